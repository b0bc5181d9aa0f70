package localdisk

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
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
