package accounts

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
)

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("owners are changed by root only")
	}
}

// place is a directory that other users can pass.
func place(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "accounts")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func stat(t *testing.T, path string) unix.Stat_t {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return st
}

// as runs a script as a user.
func as(uid, gid int, groups []uint32, script string) (string, error) {
	cmd := exec.Command("/bin/sh", "-c", script)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid), Groups: groups}}
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// do does a work in which nothing is wrong.
func do(t *testing.T, w Work) {
	t.Helper()
	done, err := w.Do()
	if err != nil || len(done.Problems) > 0 || len(done.Homes) != len(w.Homes) || len(done.GroupDirs) != len(w.GroupDirs) {
		t.Fatalf("it came to %+v, %v", done, err)
	}
}

func TestHomes(t *testing.T) {
	needRoot(t)
	dir := place(t)
	skel, root := filepath.Join(dir, "skel"), filepath.Join(dir, "share")
	for _, d := range []string{filepath.Join(skel, "sub"), root} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string]string{".profile": "profile", "sub/file": "below"} {
		if err := os.WriteFile(filepath.Join(skel, name), []byte(text), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("sub/file", filepath.Join(skel, "link")); err != nil {
		t.Fatal(err)
	}
	home := filepath.Join(root, "people/home/alice")
	w := Work{Root: root, Skel: skel, Homes: []Home{{Path: home, UID: 20001, GID: 20001}}}
	for range 2 {
		do(t, w)
	}
	for _, name := range []string{".profile", "sub/file", "link"} { // what is archived of her home is newer
		if st := stat(t, filepath.Join(home, name)); st.Mtim.Sec != skelTime().Unix() {
			t.Errorf("%s is of %v", name, time.Unix(st.Mtim.Unix()).UTC())
		}
	}
	for _, c := range []struct {
		path string
		uid  uint32
		mode uint32
	}{{root + "/people", 0, 0o40755}, {home, 20001, 0o40700}, {home + "/.profile", 20001, 0o100640}, {home + "/sub", 20001, 0o40755}, {home + "/sub/file", 20001, 0o100640}, {home + "/link", 20001, 0o120777}} {
		if st := stat(t, c.path); st.Uid != c.uid || st.Mode != c.mode {
			t.Errorf("%s is %d %o", c.path, st.Uid, st.Mode)
		}
	}
	// What is there is hers.
	if err := os.WriteFile(home+"/.profile", []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	do(t, w)
	if b, err := os.ReadFile(home + "/.profile"); err != nil || string(b) != "mine" {
		t.Errorf("her file became %q", b)
	}
	if list, err := os.ReadDir(filepath.Dir(home)); err != nil || len(list) != 1 {
		t.Errorf("beside her home lies %v", list)
	}
}

// What one who was killed has left beside a home does not keep it from being made: in a machine that is started anew, processes have
// the same numbers.
func TestHomeOfBefore(t *testing.T) {
	needRoot(t)
	root := place(t)
	if err := os.Mkdir(fmt.Sprintf("%s/.shoal-new-alice-%d", root, os.Getpid()), 0o700); err != nil {
		t.Fatal(err)
	}
	do(t, Work{Root: root, Homes: []Home{{Path: root + "/alice", UID: 20001, GID: 20001}}})
}

// People plant links and directories where root comes along; nothing outside changes and nobody's files change hands.
func TestPlanted(t *testing.T) {
	needRoot(t)
	for _, c := range []struct {
		name  string
		plant string // a script, run by a user in a share that everybody may write to
	}{
		{"home is a link", "ln -s $OUT home/alice"},
		{"home is a dangling link", "ln -s $OUT/new home/alice"},
		{"parent is a link", "rmdir home; ln -s $OUT home"},
		{"group directory is a link", "ln -s $OUT projects/research"},
		{"parent of group directories is a link", "rmdir projects; ln -s $OUT projects"},
		{"group directory is a user's", "mkdir projects/research"},
		{"home is a file", "echo x > home/alice"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := place(t)
			root, out := filepath.Join(dir, "share"), filepath.Join(dir, "outside")
			for _, d := range []string{root, root + "/home", root + "/projects", out} {
				if err := errors.Join(os.Mkdir(d, 0o755), os.Chmod(d, 0o777)); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.Chown(out, 0, 0); err != nil {
				t.Fatal(err)
			}
			if said, err := as(20002, 20002, nil, "cd "+root+"; OUT="+out+"; "+c.plant); err != nil {
				t.Fatal(said, err)
			}
			before := stat(t, out)
			w := Work{Root: root, Homes: []Home{{Path: root + "/home/alice", UID: 20001, GID: 20001}}, GroupDirs: []Dir{{"projects/research", 30001, 0o2770}}}
			if done, err := w.Do(); err != nil || len(done.Problems) == 0 || len(done.Homes)+len(done.GroupDirs) > 1 {
				t.Errorf("it found %+v, %v", done, err)
			}
			if after := stat(t, out); after.Uid != before.Uid || after.Gid != before.Gid || after.Mode != before.Mode {
				t.Errorf("outside became %d:%d %o", after.Uid, after.Gid, after.Mode)
			}
			if list, _ := os.ReadDir(out); len(list) > 0 {
				t.Errorf("outside there is %v", list)
			}
			if st := stat(t, root+"/projects"); st.Mode&unix.S_IFMT == unix.S_IFDIR {
				var d unix.Stat_t
				if unix.Lstat(root+"/projects/research", &d) == nil && d.Uid == 20002 && d.Gid == 30001 {
					t.Error("a user's directory was given to the group")
				}
			}
		})
	}
}

// A path that leads up is refused, wherever it comes from.
func TestUp(t *testing.T) {
	dir := place(t)
	for _, w := range []Work{{Root: dir + "/a", Homes: []Home{{Path: dir + "/b", UID: 1, GID: 1}}}, {Root: dir + "/a", Homes: []Home{{Path: dir + "/a/../b", UID: 1, GID: 1}}}, {Root: dir + "/a", GroupDirs: []Dir{{"..", 1, 0o770}}}} {
		_ = os.Mkdir(dir+"/a", 0o755)
		if done, err := w.Do(); err != nil || len(done.Problems) != 1 {
			t.Errorf("%+v came to %+v, %v", w, done, err)
		}
	}
	if _, err := os.Lstat(dir + "/b"); err == nil {
		t.Error("a home was made outside")
	}
}

func TestGroupDir(t *testing.T) {
	needRoot(t)
	root := place(t)
	w := Work{Root: root, GroupDirs: []Dir{{"projects/research", 30001, 0o2770}}}
	for range 2 {
		do(t, w)
	}
	dir := root + "/projects/research"
	if st := stat(t, dir); st.Gid != 30001 || st.Mode&0o7777 != 0o2770 {
		t.Errorf("it is %d %o", st.Gid, st.Mode)
	}
	if said, err := as(20001, 20001, []uint32{30001}, "umask 077; cd "+dir+" && mkdir d && echo a > d/f"); err != nil {
		t.Fatal(said, err)
	}
	if said, err := as(20002, 20002, []uint32{30001}, "cd "+dir+" && echo b >> d/f && touch d/g"); err != nil {
		t.Error("a fellow may not write:", said, err)
	}
	if said, err := as(20003, 20003, nil, "cat "+dir+"/d/f"); err == nil {
		t.Error("somebody else may read:", said)
	}
	// Another gid, as after the group was made anew.
	w.GroupDirs[0].GID = 30002
	do(t, w)
	if st := stat(t, dir); st.Gid != 30002 || st.Mode&0o7777 != 0o2770 {
		t.Errorf("then it is %d %o", st.Gid, st.Mode)
	}
}

func TestProbe(t *testing.T) {
	needRoot(t)
	root := place(t)
	do(t, Work{Root: root, Probe: true})
	if list, _ := os.ReadDir(root); len(list) > 0 {
		t.Errorf("it leaves %v", list)
	}
	if _, err := (Work{Root: root + "/absent", Probe: true}).Do(); err == nil {
		t.Error("an absent mount can be written to")
	}
	if _, err := (Work{Root: "/proc", Probe: true}).Do(); err == nil {
		t.Error("a file system that takes no file passes")
	}
}

func TestPlan(t *testing.T) {
	mounts := []api.AgentMount{{Path: "/shared", GroupDirs: []shoal.GroupDir{{Path: "p/{group}"}, {Path: "q/{group}", Mode: "2775"}}}, {Path: "/shared/ro", ReadOnly: true}}
	users := []api.Account{account("local", 20001), account("alice", 20002), account("away", 20003), account("off", 20004)}
	users[1].Home, users[2].Home, users[3].Disabled = "/shared/home/alice", "/shared/ro/away", true
	got, err := json.Marshal(Plan(users, []api.Group{{Name: "g", GID: 30001}}, mounts, "/skel"))
	if err != nil {
		t.Fatal(err)
	}
	want := `[{"root":"/shared","homes":[{"path":"/shared/home/alice","user":"alice","uid":20002,"gid":20002}],"skel":"/skel","groupDirs":[{"path":"p/g","gid":30001,"mode":1528},{"path":"q/g","gid":30001,"mode":1533}]},` +
		`{"root":"/shared/ro","readOnly":true,"skel":"/skel"},{"root":"/","homes":[{"path":"/home/local","user":"local","uid":20001,"gid":20001}],"skel":"/skel"}]`
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestKeeper(t *testing.T) {
	needRoot(t)
	dir := place(t)
	put := func(name, text string, mode os.FileMode) {
		if err := errors.Join(os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600), os.Chmod(filepath.Join(dir, name), mode)); err != nil {
			t.Fatal(err)
		}
	}
	put("passwd", imagePasswd, 0o644)
	put("group", imageGroup, 0o644)
	put("shadow", imageShadow, 0o640)
	put("gshadow", imageGshadow, 0o640)
	if err := os.Chown(filepath.Join(dir, "shadow"), 0, 42); err != nil {
		t.Fatal(err)
	}
	k := New(Config{Etc: dir, State: filepath.Join(dir, "state"), System: probeAccount(), Log: slog.New(slog.DiscardHandler)})
	if err := k.Prepare(); err != nil {
		t.Fatal(err)
	}
	want := api.Accounts{Users: []api.Account{account("alice", 20001), account("bob", 20002)}}
	if out, err := k.Write(want); err != nil || len(out.Users) != 2 || len(out.Gone) != 0 {
		t.Fatal(out, err)
	}
	inode := stat(t, filepath.Join(dir, "passwd")).Ino
	if _, err := k.Write(want); err != nil {
		t.Fatal(err)
	}
	if err := k.Prepare(); err != nil {
		t.Fatal(err)
	}
	if stat(t, filepath.Join(dir, "passwd")).Ino != inode {
		t.Error("writing the same again wrote")
	}
	if st := stat(t, filepath.Join(dir, "shadow")); st.Gid != 42 || st.Mode&0o777 != 0o640 {
		t.Errorf("shadow became %d %o", st.Gid, st.Mode)
	}
	// Another process adds an account meanwhile, as a package does.
	put("passwd", read(t, dir, "passwd")+"postgres:x:110:110::/var/lib/postgresql:/bin/bash\n", 0o644)
	want.Users[1].Disabled = true
	want.Users = want.Users[1:]
	out, err := k.Write(want)
	if err != nil || len(out.Gone) != 2 {
		t.Errorf("gone are %v, %v", out.Gone, err)
	}
	// An agent that dies before what they ran has ended hears of them again, until it says so or the number is somebody's.
	for _, want := range []api.Accounts{want, {Users: append(want.Users, account("carol", 20003))}} {
		if out, err := k.Write(want); err != nil || !slices.Equal(out.Gone, []int{20001, 20002}) {
			t.Errorf("gone are %v then, %v", out.Gone, err)
		}
	}
	if err := k.Ended([]int{20001}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if out, err := k.Write(want); err != nil || !slices.Equal(out.Gone, []int{20002, 20003}) {
			t.Errorf("gone are %v at last, %v", out.Gone, err)
		}
	}
	if out, err := k.Write(api.Accounts{Users: append(want.Users, account("dora", 20003))}); err != nil || !slices.Equal(out.Gone, []int{20002}) {
		t.Errorf("gone are %v although one is somebody else's, %v", out.Gone, err)
	}
	if text := read(t, dir, "passwd"); !strings.Contains(text, "postgres") || strings.Contains(text, "alice") || !strings.Contains(text, "bob:x:20002") {
		t.Errorf("passwd is\n%s", text)
	}
	// Who holds the lock is waited for, and a list that cannot be read is not taken for an empty one.
	put("state", "{", 0o600)
	if _, err := k.Write(want); err == nil {
		t.Error("a broken list of own accounts was not noticed")
	}
}

func read(t *testing.T, dir, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestEnd(t *testing.T) {
	needRoot(t)
	const uid = 54321
	var cmds []*exec.Cmd
	for _, script := range []string{"exec sleep 1000", "trap '' TERM HUP; while :; do sleep 0.05; done"} {
		cmd := exec.Command("/bin/sh", "-c", script)
		cmd.Dir = "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		cmds = append(cmds, cmd)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := End(ctx, []int{uid}, 300*time.Millisecond); err != nil {
		t.Error(err)
	}
	for _, cmd := range cmds {
		if err := cmd.Wait(); err == nil {
			t.Error("it ended well")
		}
	}
}

// Processes that start others faster than they can be listed end too.
func TestEndOfBomb(t *testing.T) {
	needRoot(t)
	const uid = 54322
	cmd := exec.Command("/bin/bash", "-c", "ulimit -u 200; f() { f | f & }; f; sleep 1000")
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { _ = cmd.Wait() }() // it is killed
	for len(running([]int{uid})) < 50 {
		time.Sleep(10 * time.Millisecond)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := End(ctx, []int{uid}, 300*time.Millisecond); err != nil {
		t.Errorf("%v: %d are left", err, len(running([]int{uid})))
	}
}
