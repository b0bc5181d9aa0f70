package sharetest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/rig"
	"github.com/shoal-pool/shoal/internal/rig/fileservers"
)

// patience is how long a test waits for what takes moments on a quiet host.
const patience = 5 * time.Minute

// product is a server of the test's own, with a pool that has a share on a file server.
type product struct {
	*rig.World
	t    *testing.T
	data string // the file server's directory
}

// newProduct makes a pool on a share, whose secret has a value, and two users.
func newProduct(t *testing.T, data, source, secret string) *product {
	t.Helper()
	bin := os.Getenv("SHOAL_BIN")
	if bin == "" {
		bin = t.TempDir()
		if err := rig.Build(filepath.Join("..", ".."), bin+"/", "./cmd/shoal", "./cmd/shoal-agent"); err != nil {
			t.Fatal(err)
		}
	}
	dir, err := os.MkdirTemp("", "shoal-shares-") // short, for the paths of sockets in it
	if err != nil {
		t.Fatal(err)
	}
	w, err := rig.New(t.Context(), bin, dir)
	if err != nil {
		log, _ := os.ReadFile(filepath.Join(dir, "serve.log"))
		t.Fatalf("%v\n%s", errors.Join(err, os.RemoveAll(dir)), log)
	}
	p := &product{World: w, t: t, data: data}
	t.Cleanup(p.close)
	p.secret(secret)
	err = p.Apply(t.Context(), 2, fmt.Sprintf("---\nkind: Share\nname: files\nsource: %s\ncredentials: {secret: files}\n"+
		"---\nkind: Pool\nname: lab\nprovider: local\nimage: host\nuses: [interactive, batch]\nmachine: {cpus: 1, memory: 512MiB}\nsize: {min: 1, max: 1}\nseats: 8\n"+
		"mounts: [{share: files, path: /files}]\nhome: {share: files, path: \"home/{user}\"}\n", source))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *product) close() {
	p.t.Helper()
	if err := p.Close(); err != nil {
		p.t.Errorf("the end: %v", err)
	}
	if p.t.Failed() {
		log, _ := os.ReadFile(filepath.Join(p.Dir, "serve.log")) // without a log there is nothing to show
		lines := strings.Split(string(log), "\n")
		p.t.Logf("the log of the server ends with:\n%s", strings.Join(lines[max(0, len(lines)-40):], "\n"))
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || strings.Contains(string(mounts), p.Dir) {
		p.t.Errorf("mounts are left: %v", err)
	}
	sum := sha256.Sum256([]byte(filepath.Join(p.Data, "local")))
	if left, _ := filepath.Glob("/run/*" + hex.EncodeToString(sum[:3]) + "*"); len(left) > 0 { // the pattern is well formed
		p.t.Errorf("left on the host: %v", left)
	}
	if err := os.RemoveAll(p.Dir); err != nil {
		p.t.Error(err)
	}
}

// secret keeps a value for the share, as root of the host: the site's own.
func (p *product) secret(value string) {
	p.t.Helper()
	if _, err := p.Client.SetSecret(p.t.Context(), "files", api.SetSecret{Value: []byte(value)}); err != nil {
		p.t.Fatal(err)
	}
}

// ssh runs a command in the pool.
func (p *product) ssh(user, command string) (string, error) {
	ctx, cancel := context.WithTimeout(p.t.Context(), patience)
	defer cancel()
	out, err := rig.Output(p.SSH(ctx, user+"+lab", command))
	return strings.TrimSpace(out), err
}

func (p *product) must(user, command string) string {
	p.t.Helper()
	out, err := p.ssh(user, command)
	if err != nil {
		p.t.Fatal(err)
	}
	return out
}

func (p *product) until(what string, is func() (bool, error)) {
	p.t.Helper()
	if err := rig.Until(p.t.Context(), patience, what, is); err != nil {
		p.t.Fatal(err)
	}
}

// life is what users and operators see of a share, from the first login to a server that goes and comes back with
// another secret. rotate gives the server and the store another one.
func (p *product) life(s *fileservers.Server, rotate func()) {
	t := p.t
	t.Helper()
	ready, err := p.Ready(t.Context(), "lab", 1, patience)
	if err != nil {
		why, _ := p.Shoal(t.Context(), "why", "pool", "lab") // more to read if there is
		t.Fatalf("%v\n%s", err, why)
	}
	id := string(ready[0].ID)
	if got := p.must("u1", "mkdir -p /files/work; echo hers > /files/work/note; cat /files/work/note; pwd"); got != "hers\n/files/home/u1" {
		t.Errorf("in the pool: %q", got)
	}
	file := filepath.Join(p.data, "work", "note")
	defer func() {
		if t.Failed() {
			list, _ := exec.Command("find", p.data, "-ls").CombinedOutput() // more to read if there is
			t.Logf("on the server:\n%s", list)
		}
	}()
	p.until("her file is on the server", func() (bool, error) {
		text, err := os.ReadFile(file)
		return string(text) == "hers\n", ignore(err, os.ErrNotExist)
	})
	if got := uidOf(t, file); got != filesUID {
		t.Errorf("on the server her file belongs to %d", got)
	}
	if got := p.must("u2", "cat /files/work/note; grep -c nosuid,nodev /proc/mounts >/dev/null && mount | grep /files"); !strings.Contains(got, "hers") || !strings.Contains(got, "nosuid,nodev") {
		t.Errorf("another user sees %q", got)
	}

	// Her home is hers: the file server knows one user, and the machine keeps them apart.
	if got := p.must("u1", "echo private > diary; stat -c '%U %a' . diary"); got != "u1 700\nu1 700" && got != "u1 700\nu1 600" { // one mode for all files, or their own
		t.Errorf("her home: %q", got)
	}
	if got, err := p.ssh("u2", "ls /files/home/u1; cat /files/home/u1/diary"); err == nil || strings.Contains(got, "private") || strings.Contains(got, "diary\n") {
		t.Errorf("another user reads her home: %q, %v", got, err)
	}
	if got := p.must("u2", "echo other > diary; pwd"); got != "/files/home/u2" {
		t.Errorf("another user's home: %q", got)
	}
	p.until("her diary is on the server", func() (bool, error) {
		text, err := os.ReadFile(filepath.Join(p.data, "home", "u1", "diary"))
		return string(text) == "private\n", ignore(err, os.ErrNotExist)
	})

	// The server goes. The machine takes nobody new, and says why.
	if err := s.Kill(); err != nil {
		t.Fatal(err)
	}
	p.until("the machine drains", func() (bool, error) {
		m, err := p.Client.Machine(t.Context(), ready[0].ID)
		return len(m.Cordons) > 0, err
	})
	why, err := p.Shoal(t.Context(), "why", "machine", id)
	if err != nil || !strings.Contains(why, "share files") {
		t.Errorf("why machine: %v: %s", err, why)
	}
	t.Log(why)
	rotate()
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	p.until("the machine is ready again", func() (bool, error) {
		m, err := p.Client.Machine(t.Context(), ready[0].ID)
		return m.State == shoal.MachineReady && len(m.Cordons) == 0, err
	})
	if got := p.must("u1", "cat /files/work/note; echo more > /files/work/more; hostname"); got != "hers\n"+id {
		t.Errorf("after the server came back: %q", got)
	}
	p.until("what she wrote then is on the server, too", func() (bool, error) {
		text, err := os.ReadFile(filepath.Join(p.data, "work", "more"))
		return string(text) == "more\n", ignore(err, os.ErrNotExist)
	})
	if serve, err := os.ReadFile(filepath.Join(p.Dir, "serve.log")); err != nil || strings.Contains(string(serve), "battery") {
		t.Errorf("the log holds a secret, or %v", err)
	}
}

func ignore(err, what error) error {
	if errors.Is(err, what) {
		return nil
	}
	return err
}

// SMB by rclone, where the kernel has no client, and by the kernel where it has.
func TestSMB(t *testing.T) {
	needHost(t)
	t.Parallel()
	dir := place(t, filesUID, "team")
	data := filepath.Join(dir, "team")
	s, err := fileservers.StartSMB(filepath.Join(dir, "smb"), []fileservers.SMBUser{{Name: "team", UID: filesUID, Password: "battery 1"}}, fileservers.SMBShare{Name: "team", Dir: data})
	if err != nil {
		t.Fatal(err)
	}
	ends(t, s.Server)
	p := newProduct(t, data, s.URL("127.0.0.1", "team"), "username=team\npassword=battery 1\n")
	p.life(s.Server, func() {
		if err := s.SetPassword("team", "battery 2"); err != nil {
			t.Fatal(err)
		}
		p.secret("username=team\npassword=battery 2\n")
	})
}

// SFTP by sshfs, with a key.
func TestSFTP(t *testing.T) {
	needHost(t)
	t.Parallel()
	dir := place(t, filesUID, "team")
	data := filepath.Join(dir, "team")
	private, public := newKey(t, filepath.Join(dir, "key-1"))
	s, err := fileservers.StartSFTP(filepath.Join(dir, "sftp"), fileservers.SFTPUser{Name: "files", UID: filesUID, Key: public}, map[string]string{"team": data})
	if err != nil {
		t.Fatal(err)
	}
	ends(t, s.Server)
	p := newProduct(t, data, s.URL("127.0.0.1", "team"), private)
	p.life(s.Server, func() {
		private, public := newKey(t, filepath.Join(dir, "key-2"))
		if err := s.Authorize(public, ""); err != nil {
			t.Fatal(err)
		}
		p.secret(private)
	})
}

// newKey makes a key for SSH.
func newKey(t *testing.T, file string) (private, public string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", file).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for name, to := range map[string]*string{file: &private, file + ".pub": &public} {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		*to = string(text)
	}
	return private, public
}
