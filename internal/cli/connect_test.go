package cli

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/cli/show"
	"github.com/shoal-pool/shoal/internal/identity/local"
)

func TestTarget(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	machine, token := write("machine.sock", ""), write("token", "from-file\n")
	here := write("data/shoal.sock", "")
	home := filepath.Join(dir, "home")
	stored := `{"current":"http://a:7420","servers":{"http://a:7420":{"user":"alice","token":"stored"},"http://old:7420":{"token":"x","expires":"2020-01-01T00:00:00Z"}}}`
	write("home/.config/shoal/logins.json", stored)
	none := filepath.Join(dir, "none")
	for _, tt := range []struct {
		name    string
		p       program
		env     map[string]string
		machine string
		data    string
		want    target
		kind    shoal.Kind
	}{
		{name: "flags", p: program{server: "pool.example.org", tokenFile: token}, want: target{server: "http://pool.example.org:7420", token: "from-file"}},
		{name: "flags before the environment", p: program{server: "https://x/"}, env: map[string]string{"SHOAL_SERVER": "http://y", "SHOAL_TOKEN": "t"}, want: target{server: "https://x", token: "t"}},
		{name: "environment", env: map[string]string{"SHOAL_SERVER": "http://y:1", "SHOAL_TOKEN": "t\n"}, want: target{server: "http://y:1", token: "t"}},
		{name: "the stored token of a server", p: program{server: "a"}, env: map[string]string{"HOME": home}, want: target{server: "http://a:7420", token: "stored"}},
		{name: "an expired one", p: program{server: "old"}, env: map[string]string{"HOME": home}, kind: shoal.KindUnauthenticated},
		{name: "SHOAL_DATA", env: map[string]string{"SHOAL_DATA": "/x", "HOME": home}, machine: machine, want: target{socket: "/x/shoal.sock"}},
		{name: "SHOAL_DATA with a token", env: map[string]string{"SHOAL_DATA": "/x", "SHOAL_TOKEN": "t"}, kind: shoal.KindInvalid},
		{name: "in a machine", env: map[string]string{"HOME": home}, machine: machine, want: target{socket: machine}},
		{name: "stored", env: map[string]string{"HOME": home}, want: target{server: "http://a:7420", token: "stored"}},
		{name: "stored, with a token", env: map[string]string{"HOME": home, "SHOAL_TOKEN": "t"}, want: target{server: "http://a:7420", token: "t"}},
		{name: "a server of this host", data: filepath.Dir(here), want: target{socket: here}},
		{name: "a token alone", env: map[string]string{"SHOAL_TOKEN": "t"}, data: filepath.Dir(here), want: target{server: defaultServer, token: "t"}},
		{name: "nothing", kind: shoal.KindUnavailable},
		{name: "no token in the file", p: program{tokenFile: write("empty", "\n")}, kind: shoal.KindInvalid},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := tt.p
			p.Config = Config{Getenv: func(k string) string { return tt.env[k] }, MachineSocket: show.Or(tt.machine, none), DataDir: show.Or(tt.data, none)}
			got, err := p.target()
			if tt.kind != "" {
				if shoal.KindOf(err) != tt.kind || shoal.HintOf(err) == "" {
					t.Errorf("got %v, want %s and a hint", err, tt.kind)
				}
				return
			}
			if err != nil || got != tt.want {
				t.Errorf("got %+v, %v; want %+v", got, err, tt.want)
			}
		})
	}
}

// loginServer checks passwords and signatures as the server does.
func (w *world) loginServer(key ssh.PublicKey, password string) {
	w.mux.HandleFunc("POST /api/v1/login", func(rw http.ResponseWriter, r *http.Request) {
		var q api.LoginRequest
		if err := json.NewDecoder(r.Body).Decode(&q); err != nil {
			w.t.Error(err)
		}
		good := q.User == "alice" && q.Password != "" && q.Password == password
		if q.Key != "" && q.Signature == "" {
			reply(rw, 200, api.LoginResponse{Challenge: "a-challenge"})
			return
		}
		if q.Signature != "" {
			sig, err := local.ParseSignature(q.Signature)
			good = err == nil && q.Challenge == "a-challenge" && sig.Namespace == local.Namespace && sig.Verify([]byte("a-challenge")) == nil &&
				key != nil && string(sig.Key.Marshal()) == string(key.Marshal())
		}
		if !good {
			reply(rw, 401, api.Problem{Status: 401, Kind: shoal.KindUnauthenticated, Detail: "cannot log in: name, password or key is wrong"})
			return
		}
		reply(rw, 200, api.LoginResponse{Token: "tok", Expires: time.Now().Add(time.Hour)})
	})
}

func keyFile(t *testing.T, path string) ssh.PublicKey {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(key, "test")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
	pub, err := ssh.NewPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return pub
}

func TestLogin(t *testing.T) {
	w := newWorld(t)
	url := w.srv.URL
	w.env = map[string]string{"HOME": w.home, "USER": "alice"}
	key := keyFile(t, filepath.Join(w.home, ".ssh", "id_ed25519"))
	other := filepath.Join(w.home, "other")
	keyFile(t, other)
	w.loginServer(key, "correct horse")
	w.pools()
	w.machines()
	path := filepath.Join(w.home, ".config", "shoal", "logins.json")
	check := func(o outcome) {
		t.Helper()
		if o.code != 0 || !strings.Contains(o.stdout, "logged in at "+url+" as alice until ") || o.stderr != "" {
			t.Errorf("got %+v", o)
		}
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Fatalf("%v %v", info, err)
		}
		if list := w.run("pool", "list"); list.code != 0 {
			t.Errorf("after the login: %+v", list)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	check(w.run("login", url)) // with ~/.ssh/id_ed25519
	check(w.run("login", strings.TrimPrefix(url, "http://"), "--key", filepath.Join(w.home, ".ssh", "id_ed25519")))
	check(w.runWith("correct horse\n", "login", url, "--password-stdin"))
	for _, bad := range []outcome{w.run("login", url, "--key", other), w.runWith("wrong\n", "login", url, "--password-stdin"), w.run("login", url, "-u", "")} {
		if bad.code != 4 && bad.code != 0 || bad.code == 4 && bad.stdout != "" {
			t.Errorf("got %+v", bad)
		}
	}
	_ = os.Remove(path)
	keyFile(t, filepath.Join(w.home, ".ssh", "id_ed25519")) // a key that nobody knows
	if got := w.run("login", url); got.code != 4 || !strings.Contains(got.stderr, "--password-stdin") {
		t.Errorf("got %+v", got)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("a login that failed was stored")
	}
	if got := w.run("login", "http://192.0.2.1.invalid:1", "--key", other); !strings.Contains(got.stderr, "not encrypted") || got.code != 7 {
		t.Errorf("got %+v", got)
	}
}

func TestSSH(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "ssh"), []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir)
	w := newWorld(t)
	w.answer("GET /whoami", api.Whoami{User: "alice"})
	w.answer("GET /version", api.Version{Version: "v1", SSH: "0.0.0.0:2200"})
	for line, want := range map[string]string{
		"ssh":              "ssh -p 2200 -l alice 127.0.0.1",
		"ssh lab":          "ssh -p 2200 -l alice+lab 127.0.0.1",
		"ssh lab -- ls -l": "ssh -p 2200 -l alice+lab 127.0.0.1 -- ls -l",
		"ssh -- ls":        "ssh -p 2200 -l alice 127.0.0.1 -- ls",
		"ssh -l bob --gateway gate.example.org:22 x": "ssh -p 22 -l bob+x gate.example.org",
	} {
		w.execed = nil
		got := w.run(strings.Fields(line)...)
		if got.code != 0 || strings.Join(w.execed, " ") != dir+"/ssh "+want {
			t.Errorf("%s: exit code %d, %q, want %q: %s", line, got.code, w.execed, want, got.stderr)
		}
	}
}

func TestCompletion(t *testing.T) {
	w := newWorld(t)
	w.pools()
	w.machines()
	w.list("GET /jobs", []shoal.Job{testJob("17", shoal.JobRunning, shoal.Counts{Running: 1})})
	for line, want := range map[string]string{
		"pool show ":          "lab\ntrain\n",
		"run -p ":             "lab\ntrain\n",
		"machine drain ":      "m-aaaaaa\tlab, ready\nm-bbbbbb\tlab, draining\nm-cccccc\ttrain, failed\n",
		"job logs ":           "17\tsweep running\n",
		"why job ":            "17\tsweep running\n",
		"pool list -o ":       "table\njson\nyaml\n",
		"run --priority ":     "low\nnormal\nhigh\n",
		"completion ":         "bash\nzsh\nfish\npowershell\n",
		"pool show lab ":      "",
		"usage --by ":         "user\ngroup\npool\njob\nmachine\n",
		"session keep-awake ": "30m\n2h\n10h\n",
	} {
		words := strings.Split(line, " ")
		got := w.run(append([]string{"__complete"}, words...)...)
		list, _, _ := strings.Cut(got.stdout, ":")
		if list != want {
			t.Errorf("%q: got %q, want %q", line, list, want)
		}
	}
	w.srv.Close()
	if got := w.run("__complete", "pool", "show", ""); got.code != 0 || !strings.HasPrefix(got.stdout, ":") {
		t.Errorf("without a server: %+v", got)
	}
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		if got := w.run("completion", shell); got.code != 0 || !strings.Contains(got.stdout, "shoal") {
			t.Errorf("%s: exit code %d", shell, got.code)
		}
	}
}

// TestHelp: every command explains itself, and no help is an error.
func TestHelp(t *testing.T) {
	w := newWorld(t)
	p := &program{Config: w.config("", nil, nil)}
	for _, c := range p.root().Commands() {
		if c.Short == "" || strings.HasSuffix(c.Short, ".") {
			t.Errorf("%s: %q", c.Name(), c.Short)
		}
		got := w.run(c.Name(), "--help")
		if got.code != 0 || !strings.Contains(got.stdout, "Usage:") || got.stderr != "" {
			t.Errorf("%s: %+v", c.Name(), got)
		}
	}
	golden(t, "help", w.run("--help").stdout)
}
