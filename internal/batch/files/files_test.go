package files

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shoal-pool/shoal"
)

func alice() User { return User{Name: "alice", UID: 30001, GID: 30001, Groups: []int{40001}} }
func bob() User   { return User{Name: "bob", UID: 30002, GID: 30002} }

// share makes a share below directories that nobody but root may pass.
func share(t *testing.T) string {
	if os.Geteuid() != 0 {
		t.Skip("only root can read as others")
	}
	dir := filepath.Join(t.TempDir(), "locked", "share")
	must(t, os.MkdirAll(dir, 0o755), os.Chmod(filepath.Dir(dir), 0o700))
	return dir
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, u User, mode os.FileMode, text string, elem ...string) {
	t.Helper()
	name := filepath.Join(elem...)
	for dir := filepath.Dir(name); ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(dir); err == nil {
			break
		}
		must(t, os.MkdirAll(filepath.Dir(dir), 0o755))
		must(t, os.Mkdir(dir, 0o755), os.Chown(dir, u.UID, u.GID))
	}
	must(t, os.WriteFile(name, []byte(text), mode), os.Chmod(name, mode), os.Chown(name, u.UID, u.GID))
}

func read(t *testing.T, r *Reader, u User, outputs []Output, name string) (string, error) {
	f, err := r.Open(t.Context(), u, outputs, name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	return string(b), err
}

func TestRights(t *testing.T) {
	dir := share(t)
	write(t, alice(), 0o600, "mine", dir, "out/1/model.bin")
	write(t, bob(), 0o600, "secret", dir, "home/bob/key")
	write(t, bob(), 0o640, "ours", dir, "team/plan")
	write(t, bob(), 0o644, "outside", dir, "../outside")
	must(t, os.Chmod(filepath.Join(dir, "home/bob"), 0o755), os.Chown(filepath.Join(dir, "team/plan"), bob().UID, 40001))
	for name, to := range map[string]string{"abs": "/etc/shadow", "up": "../../../outside", "bobs": "../../home/bob/key", "team": "../../team/plan", "self": "self",
		"ok": "model.bin", "root": "/", "home": "../../home/bob"} {
		must(t, os.Symlink(to, filepath.Join(dir, "out/1", name)))
	}
	must(t, syscall.Mkfifo(filepath.Join(dir, "out/1/pipe"), 0o666))
	outputs := []Output{{Name: "out", Place: Place{dir, "out/1"}}, {Name: "others", Place: Place{dir, "home/bob"}}, {Name: "up", Place: Place{dir, "../.."}}, {Name: "late", Place: Place{dir, "not/yet"}}}
	r := NewReader()
	for _, c := range []struct {
		user       User
		name, want string
		kind       shoal.Kind
	}{
		{alice(), "out/model.bin", "mine", ""},
		{alice(), "/out/ok/", "mine", ""},
		{alice(), "out/team", "ours", ""},
		{bob(), "out/team", "ours", ""}, // his own
		{bob(), "out/model.bin", "", shoal.KindDenied},
		{User{Name: "carol", UID: 30003, GID: 30003}, "out/team", "", shoal.KindDenied},
		{alice(), "out/bobs", "", shoal.KindDenied},
		{alice(), "others/key", "", shoal.KindDenied},
		{bob(), "others/key", "secret", ""},
		{alice(), "out/home/key", "", shoal.KindDenied},
		{alice(), "out/abs", "", shoal.KindDenied},
		{alice(), "out/up", "", shoal.KindDenied},
		{alice(), "out/root/etc/passwd", "", shoal.KindDenied},
		{alice(), "up/outside", "", shoal.KindDenied},
		{alice(), "out/../../home/bob/key", "", shoal.KindInvalid},
		{alice(), "out//model.bin", "", shoal.KindInvalid},
		{alice(), "out/\x00", "", shoal.KindInvalid},
		{alice(), "out/self", "", shoal.KindUnavailable},
		{alice(), "out/pipe", "", shoal.KindInvalid},
		{alice(), "out", "", shoal.KindInvalid},
		{alice(), "out/none", "", shoal.KindNotFound},
		{alice(), "nout/x", "", shoal.KindNotFound},
		{alice(), "", "", shoal.KindNotFound},
		{alice(), "late/x", "", shoal.KindNotFound},
		{User{Name: "root"}, "out/model.bin", "", shoal.KindDenied},
	} {
		got, err := read(t, r, c.user, outputs, c.name)
		if got != c.want || (err == nil) != (c.kind == "") || err != nil && shoal.KindOf(err) != c.kind {
			t.Errorf("%s reads %q: %q, %v", c.user.Name, c.name, got, err)
		}
	}
	all, _, err := r.List(t.Context(), alice(), outputs[:1], "", "", 100)
	var names []string
	for _, f := range all {
		names = append(names, f.Path)
	}
	if want := []string{"bobs", "home", "model.bin", "ok", "team"}; err != nil || !slices.Equal(names, want) { // where a link leads may be seen and not read
		t.Errorf("listed %v, %v", names, err)
	}
	if all, more, err := r.List(t.Context(), alice(), outputs[3:], "", "", 100); err != nil || len(all) != 0 || more {
		t.Errorf("an output that is not there yet: %v, %v", all, err)
	}
	if _, _, err := r.List(t.Context(), User{Name: "carol", UID: 30003, GID: 30003}, outputs[:1], "none/x", "", 100); shoal.KindOf(err) != shoal.KindNotFound {
		t.Error(err)
	}
	free(t)
}

// free holds all threads of the process to be the server's own again, and able to read what is its.
func free(t *testing.T) {
	t.Helper()
	for range 6000 {
		bad := ""
		all, err := filepath.Glob("/proc/self/task/*/status")
		must(t, err)
		for _, name := range all {
			b, err := os.ReadFile(name)
			if err != nil {
				continue // it has ended
			}
			for line := range strings.Lines(string(b)) {
				if f := strings.Fields(line); (f[0] == "Uid:" || f[0] == "Gid:") && !slices.Equal(f[1:], []string{"0", "0", "0", "0"}) {
					bad = line
				}
			}
		}
		if bad == "" {
			return
		}
		time.Sleep(10 * time.Millisecond) // a thread takes a moment to end
	}
	t.Error("a thread has kept somebody's rights")
}

// Others change what is read meanwhile: parts of its way become links that lead out, the file becomes a
// pipe. What is read is never theirs, and nobody waits.
func TestRaces(t *testing.T) {
	dir := share(t)
	write(t, alice(), 0o644, "mine", dir, "out/sub/file")
	write(t, bob(), 0o644, "secret", dir, "../outside/file") // everybody may read it, but for the way there
	write(t, bob(), 0o600, "secret", dir, "bobs/file")
	ctx, stop := context.WithCancel(t.Context())
	var busy sync.WaitGroup
	sub := filepath.Join(dir, "out/sub")
	busy.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			to := []string{"../../outside", "../bobs", "real"}[i%3]
			os.Rename(sub, filepath.Join(dir, "out/real"))
			os.Symlink(to, sub)
			os.Remove(sub)
			os.Rename(filepath.Join(dir, "out/real"), sub)
		}
	})
	busy.Go(func() {
		name := filepath.Join(dir, "out/file")
		for ctx.Err() == nil {
			syscall.Mkfifo(name, 0o666)
			os.Remove(name)
			os.WriteFile(name, []byte("mine"), 0o644)
			os.Remove(name)
			os.Symlink("../bobs/file", name)
			os.Remove(name)
		}
	})
	r := NewReader()
	n := 2000
	if testing.Short() {
		n = 300
	}
	outputs, good := []Output{{Name: "out", Place: Place{dir, "out"}}}, 0
	for i := range n {
		got, err := read(t, r, alice(), outputs, []string{"out/sub/file", "out/file"}[i%2])
		if got == "mine" {
			good++
		} else if got != "" {
			t.Fatalf("read %q", got)
		} else if err != nil && shoal.KindOf(err) == shoal.KindUnavailable && strings.Contains(err.Error(), "answer") {
			t.Fatal(err)
		}
		if _, _, err := r.List(t.Context(), alice(), outputs, "", "", 10); err != nil && shoal.KindOf(err) == shoal.KindUnavailable {
			t.Log(err)
		}
	}
	stop()
	busy.Wait()
	if good == 0 {
		t.Error("nothing was read at all")
	}
	free(t)
}

// Pages of any length together are the whole list, in order.
func TestPages(t *testing.T) {
	t.Parallel()
	dir := share(t)
	var want []string
	for _, name := range []string{"a", "b/c", "b/d/e", "b.x", "b-x", "f/g", "f/h/i/j", "z"} {
		for _, out := range []string{"one", "two"} {
			write(t, alice(), 0o600, name, dir, out, name)
		}
	}
	must(t, os.Symlink("..", filepath.Join(dir, "one/f/circle")))
	outputs := []Output{{Name: "two", Place: Place{dir, "two"}}, {Name: "one", Place: Place{dir, "one"}}}
	r := NewReader()
	list := func(under string, limit int) (all []string) {
		for after := ""; ; {
			page, more, err := r.List(t.Context(), alice(), outputs, under, after, limit)
			must(t, err)
			for _, f := range page {
				after = path.Join(f.Output, f.Path)
				all = append(all, fmt.Sprint(after, " ", f.Dir, " ", f.Size))
			}
			if !more {
				return all
			}
		}
	}
	want = list("", 1000)
	if len(want) != 8*2+5*2+1 || !slices.Contains(want, "one/f/circle true 0") || !slices.Contains(want, "two/b/d/e false 5") {
		t.Errorf("%q", want)
	}
	for limit := range 9 {
		if diff := cmp.Diff(want, list("", limit+1)); diff != "" {
			t.Errorf("by %d: %s", limit+1, diff)
		}
	}
	if got := list("one/b", 2); !slices.Equal(got, []string{"one/b/c false 3", "one/b/d true 0", "one/b/d/e false 5"}) {
		t.Errorf("below one: %q", got)
	}
	if got := list("two/f/h/i/j", 2); !slices.Equal(got, []string{"two/f/h/i/j false 7"}) {
		t.Errorf("one: %q", got)
	}
}

// Whoever asks too often is told so, and keeps nobody else from reading.
func TestBusy(t *testing.T) {
	t.Parallel()
	b := newThreads()
	for range maxPerUser {
		if !b.Enter(1) {
			t.Error("refused")
		}
	}
	if b.Enter(1) || !b.Enter(2) {
		t.Error("one user keeps the others out")
	}
	b.Leave(1)
	if !b.Enter(1) {
		t.Error("refused after one was given back")
	}
}

func TestFind(t *testing.T) {
	t.Parallel()
	p := shoal.Pool{Name: "lab", Mounts: []shoal.Mount{{Share: "team", Path: "/shared"}, {Share: "deep", Path: "/shared/deep"}, {Share: "far", Path: "/far"}, {Share: "gone", Path: "/gone"}}}
	shares := map[shoal.ShareName]shoal.Share{"team": {Name: "team", Source: "/srv/team"}, "deep": {Name: "deep", Source: "/srv/deep/"}, "far": {Name: "far", Source: "nfs://host/x"}}
	find := func(name shoal.ShareName) (shoal.Share, error) {
		s, ok := shares[name]
		if !ok {
			return s, shoal.Errorf(shoal.KindNotFound, "there is no share %q", name)
		}
		return s, nil
	}
	for _, c := range []struct {
		dir  string
		want Place
		says string
	}{
		{"/shared/out/7", Place{"/srv/team", "out/7"}, ""},
		{"/shared", Place{"/srv/team", "."}, ""},
		{"/shared/deep/x/", Place{"/srv/deep", "x"}, ""},
		{"/shared/deeper", Place{"/srv/team", "deeper"}, ""},
		{"/shared/../etc", Place{}, "/etc is on no share"},
		{"/tmp/out", Place{}, "have outputs on a share: pool lab mounts team at /shared, deep"},
		{"/far/x", Place{}, "which the server does not read"},
		{"/gone/x", Place{}, `no share "gone"`},
	} {
		got, err := Find(p, find, c.dir)
		if got != c.want || (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error()+": "+shoal.HintOf(err), c.says) {
			t.Errorf("%s: %+v, %v", c.dir, got, err)
		}
	}
}

func FuzzSplit(f *testing.F) {
	for _, s := range []string{"out/x", "/out//", "out/../x", "..", "", "out/\x00", "out/./x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		output, below, err := split(name)
		if err == nil && (strings.Contains(output, "/") || !filepath.IsLocal(below) || path.Clean(below) != below) {
			t.Errorf("%q is %q and %q", name, output, below)
		}
	})
}
