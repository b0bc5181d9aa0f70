package program

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/need"
	"github.com/shoal-pool/shoal/internal/providers/fake"
	"github.com/shoal-pool/shoal/provider"
	"github.com/shoal-pool/shoal/provider/providertest"
	"github.com/shoal-pool/shoal/provider/wire"
)

// TestMain lets this binary be a program that keeps all promises.
func TestMain(m *testing.M) {
	if os.Getenv("SHOAL_TEST_PROGRAM") == "" || len(os.Args) != 2 {
		os.Exit(m.Run())
	}
	p := fake.New(fake.Config{BootTime: 10 * time.Millisecond})
	os.Exit(wire.Main(context.Background(), wire.Program{Provider: p, Mode: wire.Session,
		Settings: json.RawMessage(`{"type": "object", "additionalProperties": false, "properties": {"sku": {"type": "string"}}}`)}))
}

// open opens a program.
func open(t *testing.T, cfg Config) *Provider {
	t.Helper()
	cfg.Dir, cfg.Installation, cfg.Anyone = t.TempDir(), "here", true
	p, err := New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return p
}

func spec(n int) provider.MachineSpec {
	return provider.MachineSpec{ID: shoal.MachineID(fmt.Sprintf("m-%d", n)), Pool: "lab", Token: fmt.Sprint("token", n), Config: map[string]any{"sku": "small"},
		Resources: shoal.Resources{CPUs: 1500, Memory: 1 << 30}, Join: provider.Join{Machine: "m-1", Control: "unix:///x", Epoch: 1}}
}

// A provider behind the protocol is as good as it is without.
func TestConformance(t *testing.T) {
	t.Setenv("SHOAL_TEST_PROGRAM", "1")
	t.Setenv("GORACE", "atexit_sleep_ms=0")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range providertest.Checks() {
		t.Run(c.Name, func(t *testing.T) {
			wrong := spec(1)
			wrong.Config = map[string]any{"sku": 1}
			err := c.Run(t.Context(), providertest.Subject{Provider: open(t, Config{Path: self, Grace: -1}), Spec: spec, Patience: time.Minute,
				Invalid: map[string]provider.MachineSpec{"no token": {ID: "m-1"}, "no id": {Token: "x"}, "a wrong setting": wrong}})
			if err != nil {
				t.Error(err)
			}
		})
	}
}

// script writes a program in sh that describes itself well, and otherwise does what body says. In mode once the request is in $r.
func script(t *testing.T, mode wire.Mode, body string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "provider")
	text := `#!/bin/sh
if [ "$1" = once ]; then
	read -r r
	case $r in *'"op":"describe"'*)
		echo '{"description":{"protocol":1,"mode":"` + string(mode) + `","capabilities":{"mounts":"provider","stop":true}}}'
		exit
	esac
fi
` + body + "\n"
	need.Script(t, path, text)
	return path
}

const none = `{"complete":true}`

// What a broken program does is contained, and said.
func TestBrokenPrograms(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		mode wire.Mode
		body string
		want string
	}{
		{"hangs", wire.Once, "sleep 1000", "did not answer observe within 250ms, and was killed"},
		{"hangs with a child that holds its output", wire.Once, "sleep 1000 & sleep 1000", "did not answer observe"},
		{"says nothing", wire.Once, "exit 1", "exit status 1 and said nothing"},
		{"says why on standard error", wire.Once, "echo no quota left >&2; exit 12", "no quota left"},
		{"prints garbage", wire.Once, `printf 'Segmentation\033[31m fault\n'`, `not what the protocol allows`},
		{"stops in the middle", wire.Once, `printf '{"complete":true,"machines":[{"id":"m-1"'`, "not what the protocol allows"},
		{"says more after it", wire.Once, `echo '{"complete":true}'; echo done`, "not what the protocol allows"},
		{"does not end saying", wire.Once, "exec yes", "wrote more than 16 MiB, and was killed"},
		{"cannot be executed", wire.Once, "exit 127", "exit status 127"},
		{"lists a machine twice", wire.Once, observed(`{"id":"m-1","installation":"here","pool":"lab","providerId":"a","phase":"stopped"},{"id":"m-1","installation":"here","pool":"lab","providerId":"b","phase":"stopped"}`), "machine m-1 is listed twice"},
		{"gives two one place", wire.Once, observed(`{"id":"m-1","installation":"here","pool":"lab","providerId":"a","phase":"stopped"},{"id":"m-2","installation":"here","pool":"lab","providerId":"a","phase":"stopped"}`), `machines m-1 and m-2 are both "a"`},
		{"gives two one address", wire.Once, observed(`{"id":"m-1","installation":"here","pool":"lab","providerId":"a","phase":"running","address":"h:1"},{"id":"m-2","installation":"here","pool":"lab","providerId":"b","phase":"running","address":"h:1"}`), "machines m-1 and m-2 both run at h:1"},
		{"lists what is no id", wire.Once, observed(`{"id":"../m","installation":"here","pool":"lab","providerId":"a","phase":"stopped"}`), `"../m" cannot be the id of a machine`},
		{"lists an impossible phase", wire.Once, observed(`{"id":"m-1","installation":"here","pool":"lab","providerId":"a","phase":"fine"}`), `phase "fine", which does not exist`},
		{"lists what is no address", wire.Once, observed(`{"id":"m-1","installation":"here","pool":"lab","providerId":"a","phase":"running","address":"/etc/passwd"}`), "no HOST:PORT"},
		{"hangs in a session", wire.Session, "sleep 1000", "did not answer observe within 250ms, and was killed"},
		{"does not end saying in a session", wire.Session, `read -r r; exec tr '\0' x </dev/zero`, "wrote a line of more than 16 MiB, and was killed"},
		{"stops in the middle in a session", wire.Session, `read -r r; printf '{"id":1,"complete":true,"machines":[{"id":"m-1"'; exit 3`, "no answer, and was killed"},
		{"floods standard error", wire.Once, "head -c 20000000 /dev/zero >&2; echo no quota left >&2; exit 12", "no quota left"},
		{"reads nothing in a session", wire.Session, "exec sleep 1000 <&-", "was killed"},
		{"ends in a session", wire.Session, "read -r r; echo out of memory >&2; exit 3", "it has ended (exit status 3; the last it said: out of memory)"},
		{"ends in a session and leaves a child that holds its output", wire.Session, "read -r r; setsid sleep 3 & exit 4", "it has ended (exit status 4)"},
		{"prints garbage in a session", wire.Session, "echo Traceback; sleep 1000", `no answer, and was killed: "Traceback"`},
		{"answers what nobody asked", wire.Session, `echo '{"id":77,"complete":true}'; sleep 1000`, "answered request 77, which was not made"},
		{"answers twice", wire.Session, `read -r r; echo '{"id":1,"complete":true}'; echo '{"id":1,"complete":true}'; sleep 1000`, "answered request 1, which was not made"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := open(t, Config{Path: script(t, c.mode, c.body), Limit: time.Minute})
			if strings.HasPrefix(c.name, "hangs") || strings.HasPrefix(c.name, "reads nothing") { // until the limit
				p.cfg.Limit = 500 * time.Millisecond
			}
			o, err := p.Observe(t.Context())
			if c.name == "answers twice" { // the second one comes when the first is taken
				for err == nil && t.Context().Err() == nil {
					o, err = p.Observe(t.Context())
				}
			}
			typed, ok := errors.AsType[*provider.Error](err)
			if !ok || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("it shows %+v, %v; want %q", o, err, c.want)
			}
			if strings.ContainsRune(err.Error(), 033) {
				t.Errorf("the terminal is told what to do: %q", err)
			}
			if want := provider.Transient; !strings.HasSuffix(c.name, "standard error") && typed.Code != want {
				t.Errorf("the error is %s", typed.Code)
			}
		})
	}
}

// observed is a program that lists these machines.
func observed(machines string) string {
	return `echo '{"complete":true,"machines":[` + machines + `]}'`
}

// Whoever hangs is killed with what it has started, and the next call starts anew.
func TestTheHungAreKilledWithTheirChildren(t *testing.T) {
	t.Parallel()
	for _, mode := range []wire.Mode{wire.Once, wire.Session} {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			p := open(t, Config{Path: script(t, mode, "sleep 1000 & echo $! >child; echo $$ >parent; wait")})
			p.cfg.Limit = time.Second
			for len(pids(p)) < 2 {
				if _, err := p.Observe(t.Context()); err == nil {
					t.Fatal("it answered")
				}
			}
			for _, pid := range pids(p) {
				for alive(pid) {
					time.Sleep(time.Millisecond)
				}
			}
		})
	}
}

func pids(p *Provider) (all []int) {
	for _, name := range []string{"child", "parent"} {
		b, _ := os.ReadFile(filepath.Join(p.cfg.Dir, name))
		if pid, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil {
			all = append(all, pid)
		}
	}
	return all
}

// alive reports whether a process runs. One that has ended and was not waited for does not.
func alive(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && syscall.Kill(pid, 0) == nil && !strings.Contains(string(b), ") Z ")
}

// A session that ends is started again, and not over and over.
func TestSessionsRest(t *testing.T) {
	t.Parallel()
	p := open(t, Config{Path: script(t, wire.Session, "echo x >>starts; exit 1")})
	for range 50 {
		if _, err := p.Observe(t.Context()); err == nil || !strings.Contains(err.Error(), "it has ended (exit status 1)") {
			t.Fatalf("it says %v", err)
		}
	}
	b, err := os.ReadFile(filepath.Join(p.cfg.Dir, "starts"))
	if err != nil || len(b) > 20 { // a second is long enough for a few on the slowest machine
		t.Errorf("it was started %d times: %v", len(b)/2, err)
	}
	p.mu.Lock()
	p.rested = time.Time{}
	p.mu.Unlock()
	if _, err := p.Observe(t.Context()); strings.Contains(err.Error(), "started again in") {
		t.Errorf("after its rest it says %v", err)
	}
}

// The kinds of errors come by the exit status; what is no kind of ours can be tried again.
func TestKindsOfErrors(t *testing.T) {
	t.Parallel()
	for status, want := range map[int]provider.Code{10: provider.NotFound, 11: provider.NoCapacity, 12: provider.Quota, 13: provider.Denied, 14: provider.Transient,
		15: provider.Invalid, 1: provider.Transient, 2: provider.Transient, 16: provider.Transient, 126: provider.Transient, 255: provider.Transient} {
		p := open(t, Config{Path: script(t, wire.Once, fmt.Sprintf(`echo '{"error":{"message":"so it is","until":"2030-01-02T03:04:05Z"}}'; exit %d`, status))})
		s := spec(1)
		s.Config = nil
		err := p.Create(t.Context(), s)
		typed, ok := errors.AsType[*provider.Error](err)
		if !ok || typed.Code != want || err.Error() != "cannot create machine m-1: so it is" || typed.Until.Year() != 2030 {
			t.Errorf("status %d: %v", status, err)
		}
	}
	for code, want := range map[string]provider.Code{"quota": provider.Quota, "": provider.Transient, "fatal": provider.Transient} {
		p := open(t, Config{Path: script(t, wire.Session, `while read -r r; do n=$((n+1)); echo '{"id":'$n',"error":{"code":"`+code+`","message":"so it is"}}'; done`)})
		typed, ok := errors.AsType[*provider.Error](p.Stop(t.Context(), "m-1"))
		if !ok || typed.Code != want {
			t.Errorf("code %q: %v", code, typed)
		}
	}
}

// A program that cannot describe itself is asked again, and until then says why pools do not work.
func TestDescriptions(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`{}`: "without a description",
		`{"description":{"protocol":2,"mode":"once","capabilities":{"mounts":"agent"}}}`:                              "version 2",
		`{"description":{"protocol":1,"mode":"twice","capabilities":{"mounts":"agent"}}}`:                             `mode "twice"`,
		`{"description":{"protocol":1,"mode":"once","capabilities":{"mounts":"magic"}}}`:                              `mounts are by "magic"`,
		`{"description":{"protocol":1,"mode":"once","capabilities":{"mounts":"agent","gpus":-1}}}`:                    "below zero",
		`{"description":{"protocol":1,"mode":"once","capabilities":{"mounts":"agent"},"settings":[]}}`:                "no JSON Schema",
		`{"description":{"protocol":1,"mode":"once","capabilities":{"mounts":"agent"},"settings":{"$ref":"http:x"}}}`: "no JSON Schema",
		`usage: provider FILE`: "not what the protocol allows",
	} {
		path := filepath.Join(t.TempDir(), "provider")
		good := script(t, wire.Once, "echo '"+none+"'")
		need.Script(t, path, "#!/bin/sh\n[ -e fixed ] && exec "+good+" once\ncat >/dev/null; cat <<'X'\n"+text+"\nX\n")
		p := open(t, Config{Path: path})
		if _, err := p.Observe(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
		if err := p.Check(t.Context(), shoal.Pool{Name: "lab"}, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: a pool: %v", text, err)
		}
		if err := os.WriteFile(filepath.Join(p.cfg.Dir, "fixed"), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		if o, err := p.Observe(t.Context()); err != nil || !o.Complete {
			t.Errorf("after it was mended: %+v, %v", o, err)
		}
	}
}

// A pool's settings and shares are looked at before anything is made.
func TestCheck(t *testing.T) {
	t.Setenv("SHOAL_TEST_PROGRAM", "1")
	t.Setenv("GORACE", "atexit_sleep_ms=0")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := open(t, Config{Path: self})
	shares := []shoal.Share{{Name: "team", Source: "/srv/team"}, {Name: "win", Source: "smb://files/team"}}
	for _, c := range []struct {
		pool shoal.Pool
		want string
	}{
		{shoal.Pool{ProviderConfig: map[string]any{"sku": "a"}, Mounts: []shoal.Mount{{Share: "team", Path: "/shared"}}}, ""},
		{shoal.Pool{ProviderConfig: map[string]any{"skuu": "a"}}, `unexpected additional properties ["skuu"]`},
		{shoal.Pool{Mounts: []shoal.Mount{{Share: "win", Path: "/shared"}}}, "share win needs credentials"},
	} {
		err := p.Check(t.Context(), c.pool, shares)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.pool, err, c.want)
		}
	}
}

// A word that something changed wakes who waits for it, and a flood of them no more often.
func TestChanged(t *testing.T) {
	t.Parallel()
	p := open(t, Config{Path: script(t, wire.Session, `read -r r; echo '{"changed":true}'; echo '{"changed":true}'; echo '{"id":1,"complete":true}'; while read -r r; do :; done`)})
	if _, err := p.Observe(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-p.Changed()
}
