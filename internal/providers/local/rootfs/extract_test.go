package rootfs

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// entry is one entry of an archive under test.
type entry struct {
	kind       byte
	name, link string
	mode       int64
	text       string
}

func archiveOf(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := &tar.Header{Typeflag: e.kind, Name: e.name, Linkname: e.link, Mode: e.mode, Size: int64(len(e.text)), Uid: os.Getuid(), Gid: os.Getgid()}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(e.text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestExtract(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("unpacking keeps owners, which needs root")
	}
	dir := filepath.Join(t.TempDir(), "root")
	err := extract(t.Context(), bytes.NewReader(archiveOf(t,
		entry{tar.TypeDir, "./", "", 0o711, ""},
		entry{tar.TypeDir, "usr/", "", 0o555, ""},
		entry{tar.TypeReg, "usr/bin/prog", "", 0o4755, "program"},
		entry{tar.TypeReg, "/usr/absolute", "", 0o600, "x"},
		entry{tar.TypeLink, "usr/bin/again", "usr/bin/prog", 0o755, ""},
		entry{tar.TypeSymlink, "bin", "usr/bin", 0o777, ""},
		entry{tar.TypeReg, "bin/through", "", 0o644, "by a link within"},
		entry{tar.TypeDir, "tmp", "", 0o1777, ""},
		entry{tar.TypeChar, "dev/null", "", 0o666, ""},
		entry{tar.TypeFifo, "run/fifo", "", 0o666, ""},
		entry{tar.TypeReg, "twice", "", 0o644, "first"},
		entry{tar.TypeReg, "twice", "", 0o640, "second"},
		entry{tar.TypeDir, "kind", "", 0o755, ""},
		entry{tar.TypeReg, "kind", "", 0o644, "now a file"},
	)), dir, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]struct {
		mode uint32
		text string
	}{"": {unix.S_IFDIR | 0o711, ""}, "usr": {unix.S_IFDIR | 0o555, ""}, "usr/bin/prog": {unix.S_IFREG | 0o4755, "program"}, "usr/absolute": {unix.S_IFREG | 0o600, "x"},
		"usr/bin/again": {unix.S_IFREG | 0o4755, "program"}, "usr/bin/through": {unix.S_IFREG | 0o644, "by a link within"}, "tmp": {unix.S_IFDIR | 0o1777, ""},
		"twice": {unix.S_IFREG | 0o640, "second"}, "kind": {unix.S_IFREG | 0o644, "now a file"}} {
		var st unix.Stat_t
		if err := unix.Lstat(filepath.Join(dir, path), &st); err != nil || st.Mode != want.mode {
			t.Errorf("%s has mode %o, want %o: %v", path, st.Mode, want.mode, err)
		}
		if b, err := os.ReadFile(filepath.Join(dir, path)); err == nil && string(b) != want.text {
			t.Errorf("%s holds %q", path, b)
		}
	}
	for _, path := range []string{"dev/null", "run/fifo"} {
		if _, err := os.Lstat(filepath.Join(dir, path)); err == nil {
			t.Errorf("%s was made", path)
		}
	}
}

// hostile are archives that must write nothing beside their directory.
func hostile() map[string][]entry {
	return map[string][]entry{
		"dots":                {{tar.TypeReg, "../outside", "", 0o644, "x"}},
		"dots within":         {{tar.TypeReg, "a/../../outside", "", 0o644, "x"}},
		"absolute dots":       {{tar.TypeReg, "/../outside", "", 0o644, "x"}},
		"link up":             {{tar.TypeSymlink, "up", "..", 0o777, ""}, {tar.TypeReg, "up/outside", "", 0o644, "x"}},
		"absolute link":       {{tar.TypeSymlink, "abs", "ABOVE", 0o777, ""}, {tar.TypeReg, "abs/outside", "", 0o644, "x"}},
		"link to the victim":  {{tar.TypeSymlink, "v", "../victim", 0o777, ""}, {tar.TypeReg, "v", "", 0o644, "x"}},
		"hard link out":       {{tar.TypeLink, "h", "../victim", 0o644, ""}, {tar.TypeReg, "h", "", 0o644, "x"}},
		"hard link by a link": {{tar.TypeSymlink, "up", "..", 0o777, ""}, {tar.TypeLink, "h", "up/victim", 0o644, ""}},
		"mode by a link":      {{tar.TypeDir, "d", "", 0o777, ""}, {tar.TypeSymlink, "d", "..", 0o777, ""}},
		"directory on a link": {{tar.TypeSymlink, "d", "..", 0o777, ""}, {tar.TypeDir, "d", "", 0o777, ""}, {tar.TypeReg, "d/outside", "", 0o644, "x"}},
		"the top as a link":   {{tar.TypeSymlink, ".", "..", 0o777, ""}},
		"the top as a file":   {{tar.TypeReg, ".", "", 0o644, "x"}},
		"a name of nothing":   {{tar.TypeReg, "", "", 0o644, "x"}},
		"a long name":         {{tar.TypeReg, strings.Repeat("a/", 3000) + "x", "", 0o644, "x"}},
		"a deep name":         {{tar.TypeReg, strings.Repeat("a/", 1000) + "x", "", 0o644, "x"}},
		"a loop":              {{tar.TypeSymlink, "l", "l", 0o777, ""}, {tar.TypeReg, "l/x", "", 0o644, "x"}},
	}
}

// confined unpacks an archive in a directory beside a victim, and reports what changed outside.
func confined(t testing.TB, archive []byte) (err error) {
	t.Helper()
	above := t.TempDir()
	victim := filepath.Join(above, "victim")
	if err := os.WriteFile(victim, []byte("untouched"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(above, 0o700); err != nil {
		t.Fatal(err)
	}
	err = extract(context.Background(), bytes.NewReader(bytes.ReplaceAll(archive, []byte("ABOVE"), []byte(above)[:5])), filepath.Join(above, "root"), 1<<20)
	entries, err2 := os.ReadDir(above)
	if err2 != nil || len(entries) > 2 {
		t.Errorf("beside the archive there are %v, %v", entries, err2)
	}
	var st unix.Stat_t
	if err := unix.Stat(victim, &st); err != nil || st.Mode&0o777 != 0o600 || st.Nlink != 1 {
		t.Errorf("the victim has mode %o and %d links: %v", st.Mode, st.Nlink, err)
	}
	if b, err := os.ReadFile(victim); err != nil || string(b) != "untouched" {
		t.Errorf("the victim holds %q: %v", b, err)
	}
	if err := unix.Stat(above, &st); err != nil || st.Mode&0o777 != 0o700 {
		t.Errorf("the directory above has mode %o: %v", st.Mode, err)
	}
	return err
}

func TestExtractStaysWithin(t *testing.T) {
	for name, entries := range hostile() {
		t.Run(name, func(t *testing.T) {
			t.Log(confined(t, archiveOf(t, entries...)))
		})
	}
}

func TestExtractSaysWhatIsWrong(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("unpacking keeps owners, which needs root")
	}
	good := archiveOf(t, entry{tar.TypeReg, "usr/file", "", 0o644, strings.Repeat("x", 5000)})
	err := extract(t.Context(), bytes.NewReader(good[:3000]), filepath.Join(t.TempDir(), "root"), 1<<20)
	if err == nil || !strings.Contains(err.Error(), "usr/file") && !strings.Contains(err.Error(), "damaged") {
		t.Errorf("a cut-off archive: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := extract(ctx, bytes.NewReader(good), filepath.Join(t.TempDir(), "root"), 1<<20); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled unpacking: %v", err)
	}
	if err := extract(t.Context(), bytes.NewReader(good), t.TempDir(), 1<<20); !errors.Is(err, fs.ErrExist) {
		t.Errorf("into a directory that is there: %v", err)
	}
}

// An archive that unpacks to more than it may is refused, and not for want of disk.
func TestExtractBounds(t *testing.T) {
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	x := &extraction{root: root, left: 100}
	r := tar.NewReader(bytes.NewReader(archiveOf(t, entry{tar.TypeReg, "a", "", 0o644, strings.Repeat("x", 60)}, entry{tar.TypeReg, "b", "", 0o644, strings.Repeat("x", 60)})))
	for i := range 2 {
		h, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		if err := x.entry(r, h); (err != nil) != (i == 1) {
			t.Errorf("entry %d: %v", i, err)
		}
	}
}

func FuzzExtract(f *testing.F) {
	for _, entries := range hostile() {
		f.Add(archiveOf(f, entries...))
	}
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, archive []byte) { _ = confined(t, archive) })
}

// FuzzOpenSource reads anything as an archive of an image.
func FuzzOpenSource(f *testing.F) {
	f.Add(archiveOf(f, entry{tar.TypeReg, "oci-layout", "", 0o644, `{"imageLayoutVersion":"1.0.0"}`}, entry{tar.TypeReg, "index.json", "", 0o644, `{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:../../../../etc/passwd","size":1}]}`}))
	f.Add(archiveOf(f, entry{tar.TypeReg, "manifest.json", "", 0o644, `[{"Config":"../../etc/passwd","Layers":["a"]}]`}))
	f.Add([]byte{0x1f, 0x8b, 8, 0})
	f.Fuzz(func(t *testing.T, archive []byte) {
		dir := t.TempDir()
		path := filepath.Join(dir, "archive")
		if err := os.WriteFile(path, archive, 0o600); err != nil {
			t.Fatal(err)
		}
		scratch := filepath.Join(dir, "scratch")
		if err := os.Mkdir(scratch, 0o700); err != nil {
			t.Fatal(err)
		}
		s, err := openAt(scratch, "/")
		if err != nil {
			t.Fatal(err)
		}
		s.room = 1 << 20
		if _, err := s.archive(context.Background(), path); err == nil {
			t.Log("it is an image")
		}
		left, err := filepath.Glob(filepath.Join(scratch, tmpPrefix+"*"))
		if err != nil || len(left) > 0 {
			t.Errorf("left: %v, %v", left, err)
		}
	})
}
