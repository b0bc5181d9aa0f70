package scripttest

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/crypto/ssh"
)

// world is what a script has beside its files: a server, and what the host was like before.
type world struct {
	dir, root   string
	api, ssh    string // ports
	https       string
	rdp         string       // a free one, for an endpoint
	agents      string       // a free one, for agents that are not on this host
	files       string       // address of a file server, if there is one
	database    string       // address of a PostgreSQL, if there is one
	endDatabase func() error // stops it
	before      []string
	server      *exec.Cmd
	ended       chan error // the server's end, once
	log         bytes.Buffer
}

type worldKey struct{}

func of(ts *testscript.TestScript) *world { return ts.Value(worldKey{}).(*world) }

func (w *world) path(elem ...string) string {
	return filepath.Join(append([]string{w.dir}, elem...)...)
}

// patience bounds every wait. On an idle host nothing takes more than a minute or two; a busy one needs many times that.
const patience = 5 * time.Minute

// shoal runs the command line as root of the host, for the harness's own needs.
func (w *world) shoal(path string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(path, "shoal"), args...)
	cmd.Env = append(os.Environ(), "SHOAL_DATA="+w.path("data"))
	out, err := cmd.Output()
	if e, ok := errors.AsType[*exec.ExitError](err); ok {
		err = fmt.Errorf("shoal %s: %w: %s", strings.Join(args, " "), err, e.Stderr)
	}
	return out, err
}

// start starts the server and waits until it answers.
func (w *world) start(bin string, args ...string) error {
	if w.server != nil {
		return errors.New("a server runs already")
	}
	args = append([]string{"serve", "--data", w.path("data"), "--listen", "127.0.0.1:" + w.api, "--ssh-listen", "127.0.0.1:" + w.ssh, "--https-listen", "127.0.0.1:" + w.https}, args...)
	cmd := exec.Command(filepath.Join(bin, "shoal"), args...)
	logFile, err := os.OpenFile(w.path("server.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer logFile.Close()
	cmd.Stdout, cmd.Stderr = logFile, logFile
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		select {
		case err := <-ended:
			return fmt.Errorf("the server ended: %w\n%s", err, w.tail())
		default:
		}
		if _, err := os.Stat(w.path("data", "shoal.sock")); err == nil {
			if _, err := w.shoal(bin, "pool", "list"); err == nil {
				break
			}
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the server does not answer\n%s", w.tail())
		}
	}
	w.server, w.ended = cmd, ended
	return w.knowHost()
}

// knowHost writes the gateway's host key where the scripts' ssh looks for it.
func (w *world) knowHost() error {
	text, err := os.ReadFile(w.path("data", "keys", "ssh_host_ed25519_key"))
	if err != nil {
		return err
	}
	key, err := ssh.ParsePrivateKey(text)
	if err != nil {
		return err
	}
	line := fmt.Sprintf("[127.0.0.1]:%s %s", w.ssh, ssh.MarshalAuthorizedKey(key.PublicKey()))
	return os.WriteFile(w.path("known_hosts"), []byte(line), 0o644)
}

// stop ends the server with a signal. After SIGTERM it must end well.
func (w *world) stop(s syscall.Signal) error {
	if w.server == nil {
		return errors.New("no server runs")
	}
	if err := w.server.Process.Signal(s); err != nil {
		return err
	}
	defer func() { w.server, w.ended = nil, nil }()
	select {
	case err := <-w.ended:
		if s == syscall.SIGTERM && err != nil {
			return fmt.Errorf("the server ended badly: %w\n%s", err, w.tail())
		}
		return nil
	case <-time.After(patience):
		err := w.server.Process.Kill()
		return errors.Join(fmt.Errorf("the server did not stop\n%s", w.tail()), err)
	}
}

func (w *world) tail() string {
	text, err := os.ReadFile(w.path("server.log"))
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(lines[max(0, len(lines)-30):], "\n")
}

// names lists the objects of a kind by name or id.
func (w *world) names(bin, noun string) ([]string, error) {
	out, err := w.shoal(bin, noun, "list", "-o", "json")
	if err != nil {
		return nil, err
	}
	var list []struct{ Name, ID string }
	if err := json.Unmarshal(out, &list); err != nil {
		return nil, err
	}
	var names []string
	for _, l := range list {
		names = append(names, cmp.Or(l.ID, l.Name))
	}
	return names, nil
}

// empty removes all pools, and their machines whatever runs there, and ends the server.
func (w *world) empty(bin string) error {
	if w.server == nil {
		return nil
	}
	for _, kind := range []struct {
		noun string
		end  []string
	}{{"pool", []string{"pool", "delete"}}, {"machine", []string{"machine", "delete", "--force"}}} {
		names, err := w.names(bin, kind.noun)
		if err != nil {
			return err
		}
		for _, name := range names {
			_, _ = w.shoal(bin, append(kind.end, name)...) // it may be gone already, or come to be only now
		}
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		pools, err := w.names(bin, "pool")
		if err != nil {
			return err
		}
		if len(pools) == 0 {
			return w.stop(syscall.SIGTERM)
		}
		if time.Now().After(deadline) {
			out, err := w.shoal(bin, "machine", "list")
			return errors.Join(fmt.Errorf("pools %v do not go:\n%s", pools, out), err)
		}
	}
}

// close ends what a script that failed left running.
func (w *world) close() {
	if w.server == nil {
		return
	}
	if err := w.empty(filepath.Dir(w.server.Path)); err != nil && w.server != nil {
		_ = w.server.Process.Kill()
		<-w.ended
	}
}

// look lists what is on the host that a server could leave behind.
func look(root string) ([]string, error) {
	out, err := exec.Command(filepath.Join(root, "scripts", "leftovers")).Output()
	if err != nil {
		return nil, fmt.Errorf("scripts/leftovers: %w", err)
	}
	return strings.Split(strings.TrimSpace(string(out)), "\n"), nil
}

// lookUntilClean returns what is there that was not before and counts, when nothing is or after a minute: the kernel
// takes control groups and interfaces apart in its own time.
func lookUntilClean(root string, before []string, counts func(line string) bool) ([]string, error) {
	for tries := 600; ; tries-- {
		after, err := look(root)
		if err != nil {
			return nil, err
		}
		known := slices.Clone(before)
		var left []string
		for _, line := range after {
			if i, ok := slices.BinarySearch(known, line); ok {
				known = slices.Delete(known, i, i+1)
			} else if counts(line) {
				left = append(left, line)
			}
		}
		if len(left) == 0 || tries == 0 {
			return left, nil
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// bears says whether a line of look is about what belongs to this script.
func (w *world) bears(line string) bool {
	sum := sha256.Sum256([]byte(w.path("data", "local")))
	return strings.Contains(line, hex.EncodeToString(sum[:3])) || strings.Contains(line, w.dir+"/")
}

// left returns what bears this script's name and was not there before.
func (w *world) left() ([]string, error) {
	return lookUntilClean(w.root, w.before, w.bears)
}
