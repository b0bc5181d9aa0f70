package accounts

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/shoal-pool/shoal/api"
)

// linked is a machine whose homes link to a share.
type linked struct {
	t           *testing.T
	root, share string
}

func newLinked(t *testing.T) *linked {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("accounts are made by root")
	}
	dir := t.TempDir()
	for _, d := range []string{dir, filepath.Dir(dir)} { // users pass
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	l := &linked{t: t, root: filepath.Join(dir, "disk"), share: filepath.Join(dir, "share")}
	for _, d := range []string{l.root, l.share, filepath.Join(dir, "skel")} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return l
}

var linkedPeople = []api.Account{{Name: "alice", UID: 20001, GID: 20001, Home: "/home/alice"}, {Name: "bob", UID: 20002, GID: 20002, Home: "/home/bob"}}

// do does all that is planned, with the machine's disk elsewhere than at /.
func (l *linked) do(m api.AgentMount) (problems []string) {
	l.t.Helper()
	m.Path, m.Share, m.Links = l.share, "team", true
	works := Plan(linkedPeople, nil, []api.AgentMount{m}, "")
	for _, w := range works {
		if w.Root == "/" {
			w.Root = l.root
			for i := range w.Homes {
				w.Homes[i].Path = l.root + w.Homes[i].Path
			}
		}
		done, err := w.Do()
		if err != nil {
			l.t.Fatal(err)
		}
		for _, p := range done.Problems {
			problems = append(problems, p.Reason)
		}
	}
	return problems
}

func (l *linked) is(path string, mode uint32, uid int) {
	l.t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		l.t.Errorf("%s: %v", path, err)
	} else if st.Mode&0o7777 != mode || int(st.Uid) != uid {
		l.t.Errorf("%s is %o of %d, want %o of %d", path, st.Mode&0o7777, st.Uid, mode, uid)
	}
}

func (l *linked) leads(path, to string) {
	l.t.Helper()
	if got, err := os.Readlink(path); err != nil || got != to {
		l.t.Errorf("%s leads to %q, %v; want %s", path, got, err, to)
	}
}

// Every user has her links and her directory on the share, and doing it again changes nothing.
func TestLinkedHomes(t *testing.T) {
	l := newLinked(t)
	for range 2 {
		if problems := l.do(api.AgentMount{}); len(problems) > 0 {
			t.Error(problems)
		}
		for _, u := range linkedPeople {
			home, own := l.root+u.Home, l.share+"/notebooks/"+string(u.Name)
			l.is(home, 0o700, u.UID)
			l.is(own, 0o700, u.UID)
			l.is(home+"/notebooks", 0o755, u.UID)
			l.leads(home+"/team", l.share)
			l.leads(home+"/share", l.share) // as the mount point is called
			l.leads(home+"/notebooks/remote", own)
			if entries, err := os.ReadDir(own); err != nil || len(entries) > 0 {
				t.Errorf("%s holds %v, %v", own, entries, err)
			}
		}
	}
}

// What a user has put in the way is hers to move: it is told, stays as it is, and is nobody else's trouble.
func TestHostileLinks(t *testing.T) {
	l := newLinked(t)
	l.do(api.AgentMount{})
	home := l.root + "/home/alice"
	victim := filepath.Join(l.root, "victim")
	for _, err := range []error{os.Mkdir(victim, 0o777), os.Chmod(victim, 0o777), os.RemoveAll(home + "/notebooks"), os.Symlink(victim, home+"/notebooks"),
		os.Remove(home + "/team"), os.WriteFile(home+"/team", []byte("mine"), 0o600), os.RemoveAll(l.share + "/notebooks/alice"),
		os.Symlink(victim, l.share+"/notebooks/alice"), os.RemoveAll(l.root + "/home/bob")} {
		if err != nil {
			t.Fatal(err)
		}
	}
	problems := l.do(api.AgentMount{})
	if len(problems) != 2 || !slices.ContainsFunc(problems, func(p string) bool {
		return strings.Contains(p, "~/team") && strings.Contains(p, "~/notebooks is no directory; move it away")
	}) || !slices.ContainsFunc(problems, func(p string) bool { return strings.Contains(p, "notebooks/alice: something that is no directory") }) {
		t.Errorf("problems: %q", problems)
	}
	if entries, _ := os.ReadDir(victim); len(entries) > 0 {
		t.Errorf("behind her link there is %v now", entries)
	}
	if b, _ := os.ReadFile(home + "/team"); string(b) != "mine" {
		t.Errorf("her file is %q", b)
	}
	l.leads(l.root+"/home/bob/team", l.share)
}

// squash makes root somebody else in file systems while a test runs, as a file server does that maps it to nobody.
func squash(t *testing.T) {
	t.Helper()
	runtime.LockOSThread() // the thread ends with the test's goroutine
	if err := errors.Join(unix.Setfsgid(nobody), unix.Setfsuid(nobody)); err != nil {
		t.Fatal(err)
	}
}

func TestSquashedRoot(t *testing.T) {
	l := newLinked(t)
	closed := filepath.Join(l.share, "closed")
	for _, err := range []error{os.Mkdir(closed, 0o755), os.Chmod(l.share, 0o1777), os.WriteFile(filepath.Join(filepath.Dir(l.share), "skel", ".profile"), []byte("x"), 0o644)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	w := Work{Root: l.share, Skel: filepath.Join(filepath.Dir(l.share), "skel"), Homes: []Home{{Path: l.share + "/home/alice", UID: 20001, GID: 20001},
		{Path: l.share + "/home/bob", UID: 20002, GID: 20002}, {Path: closed + "/alice", UID: 20001, GID: 20001}}}
	var done Done
	ended := make(chan error)
	go func() {
		squash(t)
		var err error
		done, err = w.Do()
		ended <- err
	}()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	l.is(l.share+"/home", 0o1777, nobody)
	l.is(l.share+"/home/alice", 0o700, 20001)
	l.is(l.share+"/home/alice/.profile", 0o644, 20001)
	l.is(l.share+"/home/bob", 0o700, 20002)
	if len(done.Homes) != 2 || len(done.Problems) != 1 || !strings.Contains(done.Problems[0].Reason, "give it the mode 1777 on the file server") {
		t.Errorf("%+v", done)
	}

	// Where everybody may make directories somebody may make another's: that one is not used.
	if err := errors.Join(os.Mkdir(l.share+"/home/carol", 0o777), os.Chown(l.share+"/home/carol", 20002, 20002)); err != nil {
		t.Fatal(err)
	}
	w.Homes = []Home{{Path: l.share + "/home/carol", UID: 20003, GID: 20003}}
	done, err := w.Do()
	if err != nil || len(done.Homes) != 0 || len(done.Problems) != 1 || !strings.Contains(done.Problems[0].Reason, "a directory of uid 20002") {
		t.Errorf("%+v, %v", done, err)
	}
}

// On a share without owners nothing is made or changed: a home is used once it is mounted with its user's uid.
func TestMountedHomes(t *testing.T) {
	l := newLinked(t)
	skel := filepath.Join(filepath.Dir(l.share), "skel")
	alice := l.share + "/home/alice"
	for _, err := range []error{os.WriteFile(skel+"/.profile", nil, 0o644), os.MkdirAll(alice, 0o755)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	works := Plan([]api.Account{{Name: "alice", UID: 20001, GID: 20001, Home: alice}, {Name: "bob", UID: 20002, GID: 20002, Home: l.share + "/home/bob"}},
		[]api.Group{{Name: "g", GID: 30001}}, []api.AgentMount{{Path: l.share, Homes: true, Unowned: true}}, skel)
	done, err := works[0].Do()
	if err != nil || len(done.Awaited) != 2 || len(done.Homes) != 0 || len(done.Problems) != 0 {
		t.Errorf("%+v, %v", done, err)
	}
	l.is(alice, 0o755, 0)
	if err := os.Chown(alice, 20001, 20001); err != nil { // as its mount would be
		t.Fatal(err)
	}
	done, err = works[0].Do()
	if err != nil || len(done.Awaited) != 1 || len(done.Homes) != 1 {
		t.Errorf("%+v, %v", done, err)
	}
	l.is(alice+"/.profile", 0o644, 20001)
}
