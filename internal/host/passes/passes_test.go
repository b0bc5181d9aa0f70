package passes

import (
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/need"
)

func key(t testing.TB) string {
	t.Helper()
	pub, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	k, err := ssh.NewPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(k)))
}

func pass(t testing.TB, name, user string) Pass {
	return Pass{Name: name, User: user, Key: key(t) + " some comment", KeyFile: "/run/shoal/tasks/" + name + "/ssh_key", Scratch: "/var/lib/shoal-scratch/" + name,
		Nodes: []Node{{"m-1", "10.0.0.1:22", key(t)}, {"m-2", "[fd00::2]:2222", key(t)}}}
}

func read(t testing.TB, d *Desk, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(d.dir, name))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return string(b)
}

func TestPasses(t *testing.T) {
	d := At(t.TempDir())
	first, second, bobs := pass(t, "17.0.1", "alice"), pass(t, "18.0.1", "alice"), pass(t, "19.0.1", "bob")
	for _, p := range []Pass{first, second, bobs} {
		if err := d.Give(p); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Give(first); err != nil {
		t.Errorf("again: %v", err)
	}
	plainKey := func(p Pass) string { return strings.TrimSuffix(p.Key, " some comment") }
	line := func(p Pass) string {
		return fmt.Sprintf("restrict,pty,from=\"10.0.0.1,fd00::2\",environment=\"SHOAL_SCRATCH=%s\" %s %s\n", p.Scratch, plainKey(p), p.Name)
	}
	if got := read(t, d, "keys/alice"); got != line(first)+line(second) {
		t.Errorf("alice's keys are\n%s", got)
	}
	for user, keys := range map[string]map[string]string{"alice": {plainKey(first): "17.0.1", plainKey(second): "18.0.1", plainKey(bobs): "", "": ""}, "bob": {plainKey(first): "", plainKey(bobs) + "\n": "19.0.1"},
		"carol": {plainKey(bobs): ""}, "../alice": {plainKey(first): ""}} {
		for k, want := range keys {
			if name, ok := d.Of(user, k); name != want || ok != (want != "") {
				t.Errorf("for %s %q is of %q, %v", user, k, name, ok)
			}
		}
	}
	for _, at := range []struct {
		user, name string
	}{{"alice", "17.0.1"}, {"alice", "17.0.1"}, {"alice", "none"}, {"nobody", "x"}, {"..", "x"}} {
		if err := d.Take(at.user, at.name); err != nil {
			t.Error(err)
		}
	}
	if got := read(t, d, "keys/alice"); got != line(second) || read(t, d, "client/17.0.1.conf") != "" || read(t, d, "client/17.0.1.known") != "" {
		t.Errorf("after one was taken back alice's keys are\n%s", got)
	}
	for _, p := range []Pass{second, bobs} {
		if err := d.Take(p.User, p.Name); err != nil {
			t.Error(err)
		}
	}
	for _, dir := range []string{"keys", "client"} {
		if entries, _ := os.ReadDir(filepath.Join(d.dir, dir)); len(entries) != 0 {
			t.Errorf("in %s is left %v", dir, entries)
		}
	}
}

// The real ssh takes what it is told inside the attempt, and nothing outside of it.
func TestClient(t *testing.T) {
	need.Program(t, "ssh")
	d := At(t.TempDir())
	user := strings.TrimSpace(run(t, nil, "id", "-un"))
	for _, name := range []string{"17.0.1", "18.0.1"} {
		if err := d.Give(pass(t, name, user)); err != nil {
			t.Fatal(err)
		}
	}
	config := filepath.Join(d.dir, "config")
	if err := os.WriteFile(config, []byte("Include "+d.ClientFiles()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	told := func(env []string, host string) string { return run(t, env, "ssh", "-G", "-F", config, host) }
	inside := told([]string{Mark + "=/var/lib/shoal-scratch/18.0.1", "PATH=" + os.Getenv("PATH"), "SHELL=/bin/sh"}, "m-2")
	for _, want := range []string{"hostname fd00::2\n", "port 2222\n", "identityfile /run/shoal/tasks/18.0.1/ssh_key\n", "hostkeyalias m-2\n", "stricthostkeychecking true\n", "batchmode yes\n"} {
		if !strings.Contains(inside, want) {
			t.Errorf("inside ssh is not told %q:\n%s", want, inside)
		}
	}
	if strings.Contains(inside, "17.0.1") {
		t.Error("inside one attempt ssh is told of another")
	}
	for env, host := range map[string]string{"": "m-2", "x": "m-2", "/var/lib/shoal-scratch/18.0.1": "m-3"} {
		if out := told([]string{Mark + "=" + env, "PATH=" + os.Getenv("PATH"), "SHELL=/bin/sh"}, host); strings.Contains(out, "18.0.1") || strings.Contains(out, "fd00") {
			t.Errorf("with %q ssh is told how to reach %s:\n%s", env, host, out)
		}
	}
}

func run(t *testing.T, env []string, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = env
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v: %s", name, args, err, out)
	}
	return string(out)
}

func TestRefused(t *testing.T) {
	d := At(t.TempDir())
	for what, change := range map[string]func(*Pass){
		"a name":     func(p *Pass) { p.Name = "../x" },
		"a user":     func(p *Pass) { p.User = "a b" },
		"a key":      func(p *Pass) { p.Key = "ssh-ed25519 nonsense" },
		"no nodes":   func(p *Pass) { p.Nodes = nil },
		"an address": func(p *Pass) { p.Nodes[0].Address = "*:22" },
		"a port":     func(p *Pass) { p.Nodes[0].Address = "10.0.0.1" },
		"a node":     func(p *Pass) { p.Nodes[0].Name = "m-1 m-2\nHost *" },
		"a host key": func(p *Pass) { p.Nodes[1].HostKey = "" },
	} {
		p := pass(t, "17.0.1", "alice")
		change(&p)
		if err := d.Give(p); shoal.KindOf(err) != shoal.KindInvalid {
			t.Errorf("%s: %v", what, err)
		}
	}
	if entries, _ := os.ReadDir(d.dir); len(entries) != 0 {
		t.Errorf("left: %v", entries)
	}
}

// Many come and go at once; in the end none is left, and meanwhile the file holds whole lines.
func TestCrowd(t *testing.T) {
	d := At(t.TempDir())
	var all sync.WaitGroup
	for i := range 20 {
		p := pass(t, fmt.Sprintf("%d.0.1", i), "alice")
		all.Go(func() {
			if err := d.Give(p); err != nil {
				t.Error(err)
			}
			for l := range strings.Lines(read(t, d, "keys/alice")) {
				if _, _, _, _, err := ssh.ParseAuthorizedKey([]byte(l)); err != nil {
					t.Errorf("%q: %v", l, err)
				}
			}
			if name, ok := d.Of("alice", strings.TrimSuffix(p.Key, " some comment")); !ok || name != p.Name {
				t.Errorf("it is of %q", name)
			}
			if err := d.Take("alice", p.Name); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if got := read(t, d, "keys/alice"); got != "" {
		t.Errorf("left: %s", got)
	}
}

// What comes from elsewhere gets no line of its own into what sshd or ssh read.
func FuzzPass(f *testing.F) {
	f.Add("17.0.1", "alice", "m-1", "10.0.0.1:22", "x")
	f.Add("17.0.1", "alice", "m-1\nHost *", "10.0.0.1%a b:22", "x\ny")
	k := key(f)
	f.Fuzz(func(t *testing.T, name, user, node, address, comment string) {
		p := Pass{Name: name, User: user, Key: k + " " + comment, Scratch: "/s/" + name, Nodes: []Node{{node, address, k + " " + comment}}}
		d := At(filepath.Join(t.TempDir(), "d"))
		if d.Give(p) != nil {
			return
		}
		if got := read(t, d, "keys/"+user); strings.Count(got, "\n") != 1 {
			t.Errorf("keys: %q", got)
		}
		if got := read(t, d, "client/"+name+".conf"); strings.Count(got, "\n") != 16 {
			t.Errorf("config: %q", got)
		}
		if got := read(t, d, "client/"+name+".known"); strings.Count(got, "\n") != 1 {
			t.Errorf("known: %q", got)
		}
	})
}
