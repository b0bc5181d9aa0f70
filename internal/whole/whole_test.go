package whole_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/shoal-pool/shoal/internal/whole"
)

func TestWrite(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	for _, c := range []struct {
		text string
		mode os.FileMode
	}{{"one", 0o600}, {"two", 0o644}, {"", 0o600}} {
		if err := whole.Write(path, []byte(c.text), c.mode); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(path)
		if info, _ := os.Stat(path); err != nil || string(text) != c.text || info.Mode().Perm() != c.mode {
			t.Errorf("%q, %v, %v; want %+v", text, info.Mode(), err, c)
		}
	}
	if err := whole.Write(filepath.Join(dir, "none", "file"), nil, 0o600); err == nil {
		t.Error("a file in no directory was written")
	}
	if err := os.Mkdir(filepath.Join(dir, "taken"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := whole.Write(filepath.Join(dir, "taken"), nil, 0o600); err == nil {
		t.Error("a directory was replaced")
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 2 {
		t.Errorf("left is %v, %v", entries, err)
	}
}
