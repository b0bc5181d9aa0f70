package localdisk

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestMakeIn(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "local")
	for range 2 { // the second time it is there
		if err := MakeIn(dir, os.Getuid(), os.Getgid()); err != nil {
			t.Fatal(err)
		}
	}
	for path, want := range map[string]os.FileMode{dir: 0o711, Of(dir, os.Getuid()): 0o700} {
		if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != want {
			t.Errorf("%s: %v, %v, want %v", path, fi.Mode(), err, want)
		}
	}
	if err := MakeIn(filepath.Join(dir, "a", "b"), 1, 1); err == nil {
		t.Error("made a directory in one that is not there")
	}
}

// A directory that was made, and not given to its user before the end of who made it, is given to her by the next.
func TestHalfMade(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("owners are changed by root only")
	}
	const uid = 28601
	dir := t.TempDir()
	if err := os.Mkdir(Of(dir, uid), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := MakeIn(dir, uid, uid); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Lstat(Of(dir, uid), &st); err != nil || st.Uid != uid || st.Gid != uid {
		t.Errorf("it is %d:%d's, %v", st.Uid, st.Gid, err)
	}
}

// A shell and a list say the same.
func TestShellAgrees(t *testing.T) {
	base := t.TempDir()
	at := strings.NewReplacer(Dir, filepath.Join(base, "local"), runtime, filepath.Join(base, "run"))
	for _, dir := range []string{"local", "run"} {
		if err := MakeIn(filepath.Join(base, dir), os.Getuid(), os.Getgid()); err != nil {
			t.Fatal(err)
		}
	}
	out, err := exec.Command("env", "-i", "PATH="+os.Getenv("PATH"), "/bin/sh", "-c", at.Replace(Shell())+"env").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range Variables(os.Getuid()) {
		if !strings.Contains(string(out), at.Replace(v)+"\n") {
			t.Errorf("a shell lacks %s:\n%s", v, out)
		}
	}
	if strings.Contains(string(out), "\nlocal=") {
		t.Error("a shell keeps variables of ours")
	}
}
