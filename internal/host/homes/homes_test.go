package homes

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"
)

// person is a user with homes on several machines and a directory on a share.
type person struct {
	t   *testing.T
	dir string
	was map[string]Done
}

func newPerson(t *testing.T) *person {
	p := &person{t: t, dir: t.TempDir(), was: map[string]Done{}}
	if err := os.Mkdir(filepath.Join(p.dir, "share"), 0o700); err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *person) home(machine string) string { return filepath.Join(p.dir, machine) }

func (p *person) order(machine string) Order {
	p.t.Helper()
	if _, ok := p.was[machine]; !ok {
		if err := os.Mkdir(p.home(machine), 0o700); err != nil {
			p.t.Fatal(err)
		}
		p.was[machine] = Done{Saved: Tick()}
	}
	was := p.was[machine]
	return Order{Home: p.home(machine), Dir: filepath.Join(p.dir, "share"), Machine: machine, Leave: []string{"team", "notebooks/remote"}, Merged: was.Merged, Saved: was.Saved}
}

func (p *person) save(machine string) Done {
	p.t.Helper()
	Tick()
	done, err := p.order(machine).Save()
	if err != nil {
		p.t.Fatal(err)
	}
	p.was[machine] = done
	return done
}

func (p *person) restore(machine string) Done {
	p.t.Helper()
	done, err := p.order(machine).Restore()
	if err != nil {
		p.t.Fatal(err)
	}
	p.was[machine] = done
	return done
}

func (p *person) write(machine, name, text string) {
	p.t.Helper()
	p.order(machine)
	at := filepath.Join(p.home(machine), name)
	if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
		p.t.Fatal(err)
	}
	if err := os.WriteFile(at, []byte(text), 0o640); err != nil {
		p.t.Fatal(err)
	}
}

func (p *person) read(machine, name string) string {
	b, err := os.ReadFile(filepath.Join(p.home(machine), name))
	if err != nil {
		return ""
	}
	return string(b)
}

func (p *person) archives() string {
	names, _ := filepath.Glob(filepath.Join(p.dir, "share", store, "*"))
	for i := range names {
		names[i] = filepath.Base(names[i])
	}
	return strings.Join(names, " ")
}

// What she left on one machine is on the next, as it was, and so on; links to the share and what is no file are left out.
func TestRoundTrip(t *testing.T) {
	p := newPerson(t)
	p.write("m-1", ".config/tool/settings", "one")
	p.write("m-1", "notebooks/draft.ipynb", "draft")
	p.write("m-1", ".cache/pip/wheel", "cached")
	p.write("m-1", "run.sh", "#!/bin/sh")
	home := p.home("m-1")
	old := time.Unix(1_500_000_000, 123_456_789)
	for _, err := range []error{os.Symlink("/shared", home+"/team"), os.Symlink("/shared/notebooks/alice", home+"/notebooks/remote"), os.Symlink("run.sh", home+"/run"),
		unix.Mkfifo(home+"/pipe", 0o600), os.Chmod(home+"/run.sh", 0o750), os.Chtimes(home+"/notebooks/draft.ipynb", old, old), os.Mkdir(home+"/empty", 0o711)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if done := p.save("m-1"); done.Nothing || done.Files != 3 || done.Left != "" {
		t.Errorf("saved %+v", done)
	}
	if done := p.save("m-1"); !done.Nothing {
		t.Errorf("saved again: %+v", done)
	}
	if info, err := os.Stat(filepath.Join(p.dir, "share", store, "m-1.tar.zst")); err != nil || info.Mode().Perm() != 0o600 {
		t.Error(info, err)
	}
	if done := p.restore("m-2"); done.Nothing || done.Files != 3 || done.From.IsZero() {
		t.Errorf("restored %+v", done)
	}
	if got := p.read("m-2", ".config/tool/settings") + p.read("m-2", "notebooks/draft.ipynb"); got != "onedraft" {
		t.Errorf("there is %q", got)
	}
	if got, err := os.Readlink(p.home("m-2") + "/run"); got != "run.sh" {
		t.Error(got, err)
	}
	if info, err := os.Stat(p.home("m-2") + "/run.sh"); err != nil || info.Mode().Perm() != 0o750 {
		t.Error(info, err)
	}
	if info, err := os.Stat(p.home("m-2") + "/empty"); err != nil || info.Mode().Perm() != 0o711 {
		t.Error(info, err)
	}
	if info, err := os.Stat(p.home("m-2") + "/notebooks/draft.ipynb"); err != nil || !info.ModTime().Equal(old) {
		t.Error(info.ModTime(), err)
	}
	for _, name := range []string{"team", "notebooks/remote", "pipe", ".cache"} {
		if _, err := os.Lstat(filepath.Join(p.home("m-2"), name)); err == nil {
			t.Errorf("%s came along", name)
		}
	}
	if done := p.restore("m-2"); !done.Nothing {
		t.Errorf("restored again: %+v", done)
	}
	if done := p.save("m-2"); !done.Nothing || p.archives() != "m-1.tar.zst" {
		t.Errorf("what is archived is archived again: %+v, %s", done, p.archives())
	}
	p.write("m-2", "run.sh", "#!/bin/bash")
	if done := p.save("m-2"); done.Nothing || p.archives() != "m-2.tar.zst" {
		t.Errorf("%+v, %s", done, p.archives())
	}
	p.restore("m-3")
	if got := p.read("m-3", "run.sh") + p.read("m-3", ".config/tool/settings"); got != "#!/bin/bashone" {
		t.Errorf("there is %q", got)
	}
}

// On two machines at once: nothing is lost, and of what was changed on both the newer is kept.
func TestTwoMachines(t *testing.T) {
	p := newPerson(t)
	p.write("m-1", "both", "old")
	p.write("m-1", "one", "1")
	p.save("m-1")
	p.write("m-2", "two", "2")
	Tick()
	p.write("m-2", "both", "new")
	p.save("m-2")
	if p.archives() != "m-1.tar.zst m-2.tar.zst" {
		t.Errorf("there are %s", p.archives())
	}
	p.restore("m-3")
	if got := p.read("m-3", "both") + p.read("m-3", "one") + p.read("m-3", "two"); got != "new12" {
		t.Errorf("there is %q", got)
	}
	p.restore("m-1")
	if got := p.read("m-1", "both") + p.read("m-1", "one") + p.read("m-1", "two"); got != "new12" {
		t.Errorf("there is %q", got)
	}
	p.write("m-3", "three", "3")
	if p.save("m-3"); p.archives() != "m-3.tar.zst" {
		t.Errorf("there are %s", p.archives())
	}
}

// A link that was changed on a machine is not held back by an older one that came back elsewhere afterwards.
func TestNewerLink(t *testing.T) {
	p := newPerson(t)
	p.order("m-1")
	current := filepath.Join(p.home("m-1"), "current")
	if err := os.Symlink("one", current); err != nil {
		t.Fatal(err)
	}
	p.save("m-1")
	if err := errors.Join(os.Remove(current), os.Symlink("two", current)); err != nil {
		t.Fatal(err)
	}
	Tick()
	p.restore("m-2")
	p.save("m-1")
	p.restore("m-2")
	if to, err := os.Readlink(filepath.Join(p.home("m-2"), "current")); to != "two" {
		t.Errorf("it leads to %s, %v", to, err)
	}
}

// What is new in a directory that its user may not write to herself, such as Go's cache of modules, comes back all the same.
func TestReadOnlyDirectory(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("it takes root to be somebody else")
	}
	const uid = 54323
	p := newPerson(t)
	p.order("m-2")
	for dir := p.dir; dir != os.TempDir(); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	mode := func(mode os.FileMode) {
		t.Helper()
		if err := os.Chmod(filepath.Join(p.home("m-1"), "mod"), mode); err != nil {
			t.Fatal(err)
		}
	}
	p.write("m-1", "mod/one", "1")
	mode(0o555)
	p.save("m-1")
	if err := exec.Command("chown", "-R", strconv.Itoa(uid), p.home("m-2"), filepath.Join(p.dir, "share")).Run(); err != nil {
		t.Fatal(err)
	}
	restore := func() {
		t.Helper()
		done := make(chan struct{})
		go func() {
			defer close(done)
			runtime.LockOSThread() // and ends with the goroutine
			if err := unix.Setfsuid(uid); err != nil {
				t.Error(err)
				return
			}
			got, err := p.order("m-2").Restore()
			if err != nil {
				t.Error(err)
			}
			p.was["m-2"] = got
		}()
		<-done
	}
	restore()
	mode(0o755)
	p.write("m-1", "mod/two", "2")
	mode(0o555)
	p.save("m-1")
	if err := os.Chown(filepath.Join(p.dir, "share", store, "m-1"+suffix), uid, uid); err != nil {
		t.Fatal(err)
	}
	restore()
	if got := p.read("m-2", "mod/one") + p.read("m-2", "mod/two"); got != "12" {
		t.Errorf("there is %q", got)
	}
	if info, err := os.Stat(filepath.Join(p.home("m-2"), "mod")); err != nil || info.Mode().Perm() != 0o555 {
		t.Error(info, err)
	}
}

// A disk that takes no more files has not taken what an archive holds: the next machine, or the next try, brings it back.
func TestFullDisk(t *testing.T) {
	p := newPerson(t)
	p.write("m-1", "a", "first")
	p.write("m-1", "results/b", "second")
	if err := os.Symlink("a", filepath.Join(p.home("m-1"), "z")); err != nil {
		t.Fatal(err)
	}
	p.save("m-1")
	p.order("m-2")
	at := p.home("m-2")
	if err := unix.Mount("tmpfs", at, "tmpfs", 0, "nr_inodes=2"); err != nil { // of which one is its root's
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(at, unix.MNT_DETACH) })
	for inodes := 2; inodes < 5; inodes++ { // a, results, results/b, z
		if err := unix.Mount("", at, "", unix.MS_REMOUNT, fmt.Sprintf("nr_inodes=%d", inodes)); err != nil {
			t.Fatal(err)
		}
		if done, err := p.order("m-2").Restore(); !errors.Is(err, unix.ENOSPC) || len(done.Merged) > 0 {
			t.Errorf("with %d inodes: %+v, %v", inodes, done, err)
		}
	}
	if err := unix.Mount("", at, "", unix.MS_REMOUNT, "nr_inodes=100"); err != nil {
		t.Fatal(err)
	}
	p.restore("m-2")
	if a, b, z := p.read("m-2", "a"), p.read("m-2", "results/b"), p.read("m-2", "z"); a != "first" || b != "second" || z != "first" {
		t.Errorf("%q %q %q", a, b, z)
	}
}

// What is too large stays behind, the largest first, and that is told here and where the rest comes back. A sparse file
// counts as what it would be.
func TestTooLarge(t *testing.T) {
	p := newPerson(t)
	p.write("m-1", ".bashrc", "small")
	p.write("m-1", "big", strings.Repeat("x", 3000))
	if err := os.Truncate(filepath.Join(p.home("m-1"), "big"), 1<<40); err != nil {
		t.Fatal(err)
	}
	p.write("m-1", "data/large", strings.Repeat("x", 900))
	o := p.order("m-1")
	o.Limit = 1000
	Tick()
	done, err := o.Save()
	if err != nil || done.Files != 2 || !strings.Contains(done.Left, "no more than") || !strings.Contains(done.Left, "~/big (1TiB)") {
		t.Errorf("%+v, %v", done, err)
	}
	if got := p.restore("m-2"); got.Left != done.Left || p.read("m-2", "data/large") == "" {
		t.Errorf("%+v", got)
	}
}

// What there is no more room for stays in the archive of another machine that holds it, until it fits or is removed.
func TestLeftElsewhere(t *testing.T) {
	p := newPerson(t)
	p.write("m-1", "model", strings.Repeat("x", 900))
	p.save("m-1")
	p.restore("m-2")
	p.write("m-2", "model.new", strings.Repeat("y", 500))
	save := func(machine string) Done {
		t.Helper()
		Tick()
		o := p.order(machine)
		o.Limit = 1000
		done, err := o.Save()
		if err != nil {
			t.Fatal(err)
		}
		p.was[machine] = done
		return done
	}
	if done := save("m-2"); !strings.Contains(done.Left, "~/model (900B)") || len(done.Merged) != 1 || p.archives() != "m-1.tar.zst m-2.tar.zst" {
		t.Errorf("%+v, %s", done, p.archives())
	}
	p.restore("m-3")
	if p.read("m-3", "model") == "" || p.read("m-3", "model.new") == "" {
		t.Error("something is lost")
	}
	p.write("m-3", "notes", "z")
	if save("m-3"); p.archives() != "m-1.tar.zst m-3.tar.zst" { // that of m-2 holds nothing which ours does not
		t.Errorf("there are %s", p.archives())
	}
	if err := os.Remove(filepath.Join(p.home("m-3"), "model.new")); err != nil {
		t.Fatal(err)
	}
	if done := save("m-3"); done.Left != "" || len(done.Merged) > 0 || p.archives() != "m-3.tar.zst" {
		t.Errorf("%+v, %s", done, p.archives())
	}
}

// A share that is full, or gone, leaves the last archive as it is.
func TestKeepsTheLast(t *testing.T) {
	p := newPerson(t)
	p.write("m-1", "file", "one")
	p.save("m-1")
	kept := p.archives()
	o := p.order("m-1")
	p.write("m-1", "file", "two")
	if err := os.Mkdir(filepath.Join(p.dir, "share", store, ".m-1.new"), 0o700); err != nil { // in the way
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(p.dir, "share", store, ".m-1.new", "x"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	Tick()
	if done, err := o.Save(); err == nil || done.Saved != o.Saved || !strings.HasSuffix(p.archives(), kept) {
		t.Errorf("%+v, %v, %s", done, err, p.archives())
	}
	o.Dir = filepath.Join(p.dir, "gone")
	if _, err := o.Save(); err == nil {
		t.Error("saved where nothing is")
	}
}

// pack makes an archive of anything.
func pack(t testing.TB, headers ...tar.Header) []byte {
	var b bytes.Buffer
	z, err := zstd.NewWriter(&b)
	if err != nil {
		t.Fatal(err)
	}
	w := tar.NewWriter(z)
	for _, h := range headers {
		h.Size = 0
		if h.Typeflag == tar.TypeReg {
			h.Size = 4
		}
		h.Mode, h.ModTime = 0o6755, time.Now()
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if h.Size > 0 {
			if _, err := w.Write([]byte("evil")); err != nil {
				t.Fatal(err)
			}
		}
	}
	_ = w.Close()
	_ = z.Close()
	return b.Bytes()
}

// An archive is what anybody may have put there: nothing of it gets out of the home.
func TestHostileArchive(t *testing.T) {
	p := newPerson(t)
	outside := filepath.Join(p.dir, "outside")
	o := p.order("m-1")
	for _, err := range []error{os.Mkdir(outside, 0o755), os.Mkdir(filepath.Join(o.Dir, store), 0o700),
		os.WriteFile(filepath.Join(o.Dir, store, "x.tar.zst"), pack(t, tar.Header{Typeflag: tar.TypeReg, Name: "../outside/a"}, tar.Header{Typeflag: tar.TypeReg, Name: outside + "/b"},
			tar.Header{Typeflag: tar.TypeSymlink, Name: "out", Linkname: outside}, tar.Header{Typeflag: tar.TypeReg, Name: "out/c"}, tar.Header{Typeflag: tar.TypeDir, Name: "out/d"},
			tar.Header{Typeflag: tar.TypeFifo, Name: "fifo"}, tar.Header{Typeflag: tar.TypeLink, Name: "hard", Linkname: "/etc/passwd"}, tar.Header{Typeflag: tar.TypeReg, Name: "team/e"},
			tar.Header{Typeflag: tar.TypeReg, Name: "setuid"}), 0o600)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if done := p.restore("m-1"); done.Files != 1 {
		t.Errorf("%+v", done)
	}
	if entries, _ := os.ReadDir(outside); len(entries) > 0 {
		t.Errorf("outside there is %v", entries)
	}
	if info, err := os.Stat(filepath.Join(o.Home, "setuid")); err != nil || info.Mode() != 0o755 {
		t.Error(info, err)
	}
	for _, name := range []string{"fifo", "hard", "team"} {
		if _, err := os.Lstat(filepath.Join(o.Home, name)); err == nil {
			t.Errorf("there is %s", name)
		}
	}
	if err := os.WriteFile(filepath.Join(o.Dir, store, "y.tar.zst"), []byte("no archive"), 0o600); err != nil {
		t.Fatal(err)
	}
	if done, err := p.order("m-1").Restore(); err == nil || !strings.Contains(err.Error(), "y.tar.zst") || done.Merged["y.tar.zst"] != 0 {
		t.Errorf("%+v, %v", done, err)
	}
}

func FuzzRestore(f *testing.F) {
	f.Add(pack(f, tar.Header{Typeflag: tar.TypeReg, Name: "a/b"}, tar.Header{Typeflag: tar.TypeSymlink, Name: "c", Linkname: "/"}, tar.Header{Typeflag: tar.TypeReg, Name: "c/tmp/shoal-fuzz"}))
	f.Add([]byte("x"))
	f.Fuzz(func(t *testing.T, b []byte) {
		p := newPerson(t)
		o := p.order("m-1")
		if err := os.Mkdir(filepath.Join(o.Dir, store), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(o.Dir, store, "x.tar.zst"), b, 0o600); err != nil {
			t.Fatal(err)
		}
		_, _ = o.Restore()
		entries, err := os.ReadDir(p.dir)
		if err != nil || len(entries) != 2 {
			t.Errorf("there is %v, %v", entries, err)
		}
	})
}
