package e2e

import (
	"context"
	crand "crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/client"
	"github.com/shoal-pool/shoal/internal/rig"
	"github.com/shoal-pool/shoal/internal/route"
)

// ways writes a configuration of ssh with two hosts, "pool", through the gateway, and "direct", straight to a
// machine's sshd, and returns its file.
func (w *world) ways(user shoal.UserName, m shoal.Machine) string {
	w.t.Helper()
	pem, err := os.ReadFile(filepath.Join(w.Data, "keys", "user_ca"))
	if err != nil {
		w.t.Fatal(err)
	}
	ca, err := ssh.ParsePrivateKey(pem)
	if err != nil {
		w.t.Fatal(err)
	}
	cert := &ssh.Certificate{Key: w.Signer.PublicKey(), CertType: ssh.UserCert, KeyId: "direct", ValidPrincipals: []string{route.Principal(user, m.Pool)},
		ValidAfter: uint64(time.Now().Add(-time.Minute).Unix()), ValidBefore: uint64(time.Now().Add(time.Hour).Unix()),
		Permissions: ssh.Permissions{Extensions: map[string]string{"permit-pty": ""}}}
	if err := cert.SignCert(crand.Reader, ca); err != nil {
		w.t.Fatal(err)
	}
	host, port, err := net.SplitHostPort(m.Address)
	if err != nil {
		w.t.Fatal(err)
	}
	file := filepath.Join(w.Dir, "ssh_config")
	text := fmt.Sprintf("Host *\n IdentityFile %s\n IdentitiesOnly yes\n BatchMode yes\n StrictHostKeyChecking no\n UserKnownHostsFile /dev/null\n LogLevel ERROR\n"+
		"Host pool\n HostName 127.0.0.1\n Port %s\n User %s+%s\nHost direct\n HostName %s\n Port %s\n User %s\n CertificateFile %s-direct.pub\n",
		w.Key(), w.Port, user, m.Pool, host, port, user, w.Key())
	for name, b := range map[string][]byte{file: []byte(text), w.Key() + "-direct.pub": ssh.MarshalAuthorizedKey(cert)} {
		if err := os.WriteFile(name, b, 0o600); err != nil {
			w.t.Fatal(err)
		}
	}
	return file
}

// transfers are scripts that move data both ways. In them %h is the host, %s the options, %f a file with the data, %i
// a number and %c an exit code; each ends with the data on its standard output.
func transfers() []string {
	return []string{
		"ssh %s %h 'cat ~/data; exit %c' </dev/null", // input at its end
		"ssh %s %h 'cat ~/data; exit %c' < <(echo $BASHPID >%f.pid; exec sleep 1000 >/dev/null 2>&1); e=$?; kill $(cat %f.pid); exit $e", // open
		"ssh %s -n %h 'cat ~/data; exit %c' 0<&-",                          // closed
		"echo some | ssh %s %h 'cat ~/data; exit %c'",                      // half-closed: more than is read
		"ssh %s %h 'cat; exit %c' <%f",                                     // both ways at once
		"ssh %s %h 'cat ~/data >&2; exit %c' 2>&1 >/dev/null </dev/null",   // on stderr
		"ssh %s -tt %h 'stty raw -echo; cat ~/data; exit %c' </dev/null",   // a terminal
		"scp -q %s %f %h:x%i && scp -q %s %h:x%i %f.%i && cat %f.%i",       // over sftp
		"scp -q -O %s %f %h:x%i && scp -q -O %s %h:x%i %f.%i && cat %f.%i", // the old way
		`printf 'put %f x%i\nget x%i %f.%i\n' | sftp -q -b - %s %h >/dev/null && cat %f.%i`,
		"rsync -e 'ssh %s' %f %h:x%i && rsync -e 'ssh %s' %h:x%i %f.%i && cat %f.%i",
		"tar -C ${f%/*} -cf - ${f##*/} | ssh %s %h 'mkdir -p d%i && tar -C d%i -xf -' && ssh %s %h 'tar -C d%i -cf - .' </dev/null | tar -xOf - ./${f##*/}",
	}
}

// Data goes through the whole product as through a direct login: every byte, and the same exit code.
func TestTransfers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.apply(1, rig.Pool("lab", "interactive", "{cpus: 2, memory: 512MiB}", "{min: 1, max: 1}", 8, ""))
	m := w.ready("lab", 1)[0]
	config := w.ways("u1", m)
	w.ssh("u1", "true") // she has an account there
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	data := filepath.Join(w.Dir, "data.bin")
	home := filepath.Join(w.Share, "home", "u1", "data")
	for i := range repeat(t, 60, 1000, "transfers") {
		content := make([]byte, []int{r.IntN(100), 32768 - 20 + r.IntN(40), 2<<20 - 20 + r.IntN(40), r.IntN(4 << 20)}[r.IntN(4)])
		rand.NewChaCha8([32]byte{byte(i), byte(i >> 8), byte(seed)}).Read(content)
		for _, name := range []string{data, home} {
			if err := os.WriteFile(name, content, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		scripts := transfers()
		script, code := scripts[i%len(scripts)], r.IntN(2)*r.IntN(120)
		if !strings.Contains(script, "%c") {
			code = 0
		}
		want := fmt.Sprintf("%x, code %d", sha256.Sum256(content), code)
		for n, host := range []string{"direct", "pool"} {
			if got := w.transfer(script, host, config, data, 2*i+n, code); got != want {
				t.Errorf("transfer %d of %d bytes, to %s, by %s: %s instead of %s", i, len(content), host, script, got, want)
			}
		}
	}
	w.until("nothing of hers is left but the gateway's connection", func() (bool, error) {
		out, err := rig.Output(exec.Command("ssh", "-F", config, "direct", "ps -u u1 -o args="))
		rest := strings.Split(strings.TrimSpace(out), "\n")
		for _, line := range rest {
			if !strings.HasPrefix(line, "sshd:") && !strings.HasPrefix(line, "ps ") {
				return false, err
			}
		}
		return true, err
	})
}

// transfer runs a script and returns the sum of what it printed and its exit code.
func (w *world) transfer(script, host, config, data string, i, code int) string {
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	script = strings.NewReplacer("%h", host, "%s", "-F "+config, "%f", data, "%i", fmt.Sprint(i), "%c", fmt.Sprint(code), "${f%/*}", w.Dir, "${f##*/}", filepath.Base(data)).Replace(script)
	cmd := exec.CommandContext(ctx, "/bin/bash", "-c", script)
	cmd.WaitDelay = time.Second
	sum := sha256.New()
	cmd.Stdout = sum
	var trouble strings.Builder
	cmd.Stderr = &trouble
	err := cmd.Run()
	if _, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok || ctx.Err() != nil {
		return fmt.Sprintf("%v %v", err, trouble.String())
	}
	if trouble.Len() > 0 {
		w.t.Logf("%s to %s: %s", script, host, trouble.String())
	}
	return fmt.Sprintf("%x, code %d", sum.Sum(nil), cmd.ProcessState.ExitCode())
}

// A tmux that runs on brings its user back to the same machine, though another is emptier.
func TestStickiness(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.apply(3, rig.Pool("lab", "interactive", "{cpus: 1, memory: 256MiB}", "{min: 2, max: 2}", 8, "placement: spread\n"))
	w.ready("lab", 2)
	first := w.ssh("u1", "tmux new-session -d -s work 'sleep 1000'; hostname")
	var others []*talk
	for range 3 { // her machine is the fuller one
		k := w.talk("u2+lab/"+first, 0)
		all(t, []*talk{k}, func(_ int, k *talk) error { return k.hear("ready") })
		others = append(others, k)
	}
	w.until("only the tmux keeps her there", func() (bool, error) {
		s, err := w.shoalOf("u1")
		return s.State == shoal.SessionDisconnected && len(s.Pins) > 0 && s.Pins[0].Kind == "tmux", err
	})
	for i := range repeat(t, 3, 20, "rounds") {
		if got := w.ssh("u1", "hostname; tmux has-session -t work && echo there"); got != first+"\nthere" {
			t.Errorf("login %d finds %q, and the tmux is on %s", i, got, first)
		}
	}
	if got := w.ssh("u3", "hostname"); got == first {
		t.Errorf("u3 is on %s, the fuller machine", got)
	}
	if err := w.Kill(); err != nil { // what is known of it survives the server
		t.Fatal(err)
	}
	if err := w.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := w.ssh("u1", "hostname"); got != first {
		t.Errorf("after the server's death she is on %s, and was on %s", got, first)
	}
	for _, k := range others { // they ended with the server
		_, _ = k.end()
	}
}

// shoalOf returns the session of a user.
func (w *world) shoalOf(user shoal.UserName) (shoal.Session, error) {
	all, err := w.Client.Sessions(w.t.Context(), client.SessionQuery{User: user})
	if err != nil || len(all) == 0 {
		return shoal.Session{}, err
	}
	return all[0], nil
}
