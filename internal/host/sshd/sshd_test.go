package sshd

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
)

func newServer(t *testing.T, pam map[string]string) (*Server, string) {
	t.Helper()
	dir := t.TempDir()
	etc := filepath.Join(dir, "etc")
	if err := os.MkdirAll(filepath.Join(etc, "pam.d"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range pam {
		if err := os.WriteFile(filepath.Join(etc, "pam.d", name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	s, err := New(Config{Dir: filepath.Join(dir, "run"), Etc: etc, Agent: "/opt/shoal/bin/shoal-agent", Port: 22, Log: filepath.Join(dir, "log"),
		Keys: "/run/keys/%u", Mark: "A_MARK", Client: "/run/client/*.conf"})
	if err != nil {
		t.Fatal(err)
	}
	return s, dir
}

func TestHostKeyStays(t *testing.T) {
	s, _ := newServer(t, nil)
	first, err := s.HostKey()
	if err != nil || !strings.HasPrefix(first, "ssh-ed25519 ") {
		t.Fatal(first, err)
	}
	if again, err := s.HostKey(); err != nil || again != first {
		t.Errorf("it became %q, %v", again, err)
	}
	if info, err := os.Stat(s.keyFile()); err != nil || info.Mode() != 0o600 {
		t.Errorf("it is kept as %v, %v", info, err)
	}
	if err := os.WriteFile(s.keyFile(), []byte("broken"), 0o600); err != nil {
		t.Fatal(err)
	}
	if other, err := s.HostKey(); err != nil || other == first {
		t.Errorf("a broken one was kept: %v", err)
	}
}

// The door is put into PAM's way once, wherever it is in the way already it is left.
func TestDoor(t *testing.T) {
	const call = "pam_exec.so quiet stdout /opt/shoal/bin/shoal-agent enter"
	for _, c := range []struct {
		name string
		pam  map[string]string
		want bool // sshd's file gets a line
		motd string
	}{
		{"no file", nil, true, "PrintMotd yes"},
		{"another's file", map[string]string{"sshd": "@include common-session\nsession optional pam_motd.so", "common-session": "session required pam_unix.so\n"}, true, "PrintMotd no"},
		{"by include", map[string]string{"sshd": "@include common-session\n", "common-session": "session required " + call + "\n"}, false, "PrintMotd yes"},
		{"by substack", map[string]string{"sshd": "session substack x\n", "x": "session include y\n", "y": "-session required " + call + "\n"}, false, "PrintMotd yes"},
		{"in a comment", map[string]string{"sshd": "#session required " + call + "\n"}, true, "PrintMotd yes"},
		{"for something else", map[string]string{"sshd": "auth required " + call + "\n"}, true, "PrintMotd yes"},
		{"in a circle", map[string]string{"sshd": "@include sshd\n"}, true, "PrintMotd yes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, dir := newServer(t, c.pam)
			for i := range 2 {
				changed, err := s.Configure("cert")
				if err != nil || changed != (i == 0) {
					t.Errorf("configuring: changed %v, %v", changed, err)
				}
			}
			b, err := os.ReadFile(filepath.Join(dir, "etc/pam.d/sshd"))
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.HasSuffix(string(b), "session required "+call+"\n"); got != c.want || strings.Count(string(b), "\nsession required "+call) > 1 {
				t.Errorf("pam.d/sshd is\n%s", b)
			}
			if conf, err := os.ReadFile(s.ConfigFile()); err != nil || !strings.Contains(string(conf), c.motd+"\n") {
				t.Errorf("the configuration is\n%s", conf)
			}
		})
	}
}

func TestPrincipals(t *testing.T) {
	s, _ := newServer(t, nil)
	list := func() string {
		entries, err := os.ReadDir(s.path("principals"))
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, e := range entries {
			b, err := os.ReadFile(filepath.Join(s.path("principals"), e.Name()))
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, e.Name()+"="+strings.TrimSpace(string(b)))
		}
		return strings.Join(out, " ")
	}
	steps := []struct {
		of   map[string]string
		want string
	}{{map[string]string{"alice": "alice@lab", "bob": "bob@lab"}, "alice=alice@lab bob=bob@lab"},
		{map[string]string{"alice": "alice@other"}, "alice=alice@other"},
		{map[string]string{"alice": WithEnv("alice@lab", []string{"A=1", "B=2"})}, `alice=environment="A=1",environment="B=2" alice@lab`},
		{map[string]string{"alice": "alice@lab\nroot@lab"}, "alice="}, {nil, ""}}
	for _, step := range steps {
		if err := s.Principals(step.of); err != nil {
			t.Fatal(err)
		}
		if got := list(); got != step.want {
			t.Errorf("principals are %q, want %q", got, step.want)
		}
	}
	// Another process goes on with what is on disk.
	if err := s.Principals(map[string]string{"alice": "a"}); err != nil {
		t.Fatal(err)
	}
	next := &Server{cfg: s.cfg}
	if err := next.Principals(map[string]string{"bob": "b"}); err != nil || list() != "bob=b" {
		t.Errorf("then they are %q, %v", list(), err)
	}
}

// ssh includes what it is to, once, wherever the image has its configuration.
func TestClientIncludes(t *testing.T) {
	const line = "Include /run/client/*.conf\n"
	for name, text := range map[string]string{"none": "", "one of its own": "Host *\n  ForwardX11 no\n", "one with a directory": "Include DIR/*.conf\nHost *\n"} {
		s, dir := newServer(t, nil)
		main := filepath.Join(dir, "etc/ssh/ssh_config")
		text = strings.ReplaceAll(text, "DIR", main+".d")
		if text != "" {
			if err := os.WriteFile(main, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		for range 2 {
			if _, err := s.Configure(""); err != nil {
				t.Fatal(err)
			}
		}
		got, _ := os.ReadFile(main)
		more, _ := os.ReadFile(main + ".d/shoal.conf")
		if all := string(got) + string(more); strings.Count(all, line) != 1 || !strings.Contains(all, text) || name == "one with a directory" && string(more) != line {
			t.Errorf("%s: %q and %q", name, got, more)
		}
	}
}

// The real sshd takes the configuration.
func TestConfigurationIsValid(t *testing.T) {
	s, _ := newServer(t, nil)
	if _, err := s.HostKey(); err != nil {
		t.Fatal(err)
	}
	signer, err := s.probeKey()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Configure(string(ssh.MarshalAuthorizedKey(signer.PublicKey()))); err != nil {
		t.Fatal(err)
	}
	// It looks at /run/sshd even when it only tests. The host's is others', too: this is its own.
	out, err := exec.Command("unshare", "--mount", "sh", "-c", `mount -t tmpfs none /run && mkdir /run/sshd && exec /usr/sbin/sshd "$@"`, "sh",
		"-T", "-f", s.ConfigFile(), "-C", "user=alice,host=h,addr=127.0.0.1").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, want := range []string{"permitrootlogin no", "passwordauthentication no", "kbdinteractiveauthentication no", "maxsessions 1000", "maxstartups 500:30:500",
		"usepam yes", "authorizedkeysfile /run/keys/%u", "permituserenvironment A_MARK", "allowtcpforwarding yes", "x11forwarding yes", "allowagentforwarding yes", "allowstreamlocalforwarding yes", "trustedusercakeys " + s.path("ca_keys")} {
		if !strings.Contains("\n"+string(out), "\n"+want+"\n") {
			t.Errorf("it lacks %q", want)
		}
	}
	if t.Failed() {
		t.Log(string(out))
	}
}
