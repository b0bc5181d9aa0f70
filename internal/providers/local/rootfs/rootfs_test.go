package rootfs

import (
	"archive/tar"
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoal-pool/shoal"
)

// needRoot skips where files cannot have other owners.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("owners and whiteouts need root")
	}
}

// put writes a file of a pretended host, with the directories above it.
func put(t *testing.T, root, path, text string, mode uint32) {
	t.Helper()
	full := filepath.Join(root, path)
	if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(full, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := unix.Chmod(full, mode); err != nil {
		t.Fatal(err)
	}
}

// pretendedHost is a root with accounts, software, secrets and clutter.
func pretendedHost(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	if err := os.Chmod(root, 0o755); err != nil {
		t.Fatal(err)
	}
	put(t, root, "etc/passwd", "root:x:0:0:root:/root:/bin/bash\ndaemon:x:1:1:d:/:/usr/sbin/nologin\nsshd:x:104:65534::/run/sshd:/usr/sbin/nologin\n"+
		"nobody:x:65534:65534:n:/:/usr/sbin/nologin\nbob:x:1000:1000:Bob:/home/bob:/bin/bash\nbroken:line\n", 0o644)
	put(t, root, "etc/group", "root:x:0:\nshadow:x:42:\nutmp:x:43:\nmail:x:8:\nsudo:x:27:bob,daemon\nbob:x:1000:\nnogroup:x:65534:\n", 0o644)
	put(t, root, "etc/shadow", "root:$y$secret:1::::::\n", 0o640)
	put(t, root, "etc/profile", "PATH=/bin\n", 0o644)
	put(t, root, "etc/profile.d/open.sh", "x\n", 0o755)
	put(t, root, "etc/profile.d/closed.sh", "secret\n", 0o600)
	put(t, root, "etc/ssl/private/key", "secret\n", 0o644)
	put(t, root, "etc/ssl/certs/ca.pem", "cert\n", 0o644)
	put(t, root, "etc/pip.conf", "secret\n", 0o644)
	put(t, root, "etc/unlisted.conf", "secret\n", 0o644)
	put(t, root, "etc/ssh/ssh_config", "x\n", 0o644)
	put(t, root, "etc/ssh/ssh_host_rsa_key", "secret\n", 0o644)
	put(t, root, "var/lib/dpkg/status", "Package: x\n", 0o644)
	put(t, root, "var/lib/dpkg/lock", "", 0o640)
	put(t, root, "var/lib/dpkg/closed", "secret\n", 0o600)
	put(t, root, "var/lib/database/data", "secret\n", 0o644)
	put(t, root, "usr/bin/prog", "program\n", 0o755)
	put(t, root, "usr/bin/closed", "secret\n", 0o4750)
	put(t, root, "usr/lib/closed.d/x", "secret\n", 0o644)
	put(t, root, "opt/app/x", "x\n", 0o644)
	put(t, root, "home/bob/.netrc", "secret\n", 0o644)
	for path, mode := range map[string]uint32{"usr/lib/closed.d": 0o750, "etc/ssl/private": 0o710} {
		if err := unix.Chmod(filepath.Join(root, path), mode); err != nil {
			t.Fatal(err)
		}
	}
	for link, to := range map[string]string{"bin": "usr/bin", "lib": "usr/lib", "etc/localtime": "/usr/share/zoneinfo/UTC"} {
		if err := os.Symlink(to, filepath.Join(root, link)); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func openPretended(t *testing.T) (*Store, string) {
	t.Helper()
	host := pretendedHost(t)
	s, err := openAt(filepath.Join(t.TempDir(), "images"), host)
	if err != nil {
		t.Fatal(err)
	}
	return s, host
}

func get(t *testing.T, s *Store, o Options) Image {
	t.Helper()
	i, err := s.Get(t.Context(), Host, o)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// grep lists the files below a directory that hold a word.
func grep(t *testing.T, dir, word string) []string {
	t.Helper()
	var found []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		if bytes.Contains(b, []byte(word)) {
			found = append(found, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestHostImage(t *testing.T) {
	needRoot(t)
	s, host := openPretended(t)
	i := get(t, s, Options{})
	if found := grep(t, i.Root, "secret"); len(found) > 0 {
		t.Errorf("secrets in the lower: %v", found)
	}
	for path, want := range map[string]string{
		"etc/profile": "PATH=/bin\n", "etc/profile.d/open.sh": "x\n", "etc/ssl/certs/ca.pem": "cert\n", "etc/ssh/ssh_config": "x\n",
		"etc/passwd": "root:x:0:0:root:/root:/bin/bash\ndaemon:x:1:1:d:/:/usr/sbin/nologin\nsshd:x:104:65534::/run/sshd:/usr/sbin/nologin\nnobody:x:65534:65534:n:/:/usr/sbin/nologin\n",
		"etc/group":  "root:x:0:\nshadow:x:42:\nutmp:x:43:\nmail:x:8:\nsudo:x:27:daemon\nnogroup:x:65534:\n",
		"etc/shadow": "root:*:19000:0:99999:7:::\ndaemon:*:19000:0:99999:7:::\nsshd:*:19000:0:99999:7:::\nnobody:*:19000:0:99999:7:::\n",
	} {
		if b, err := os.ReadFile(filepath.Join(i.Root, path)); err != nil || string(b) != want {
			t.Errorf("%s holds %q, want %q: %v", path, b, want, err)
		}
	}
	for path, want := range map[string]uint32{"tmp": unix.S_IFDIR | 0o1777, "root": unix.S_IFDIR | 0o700, "etc/shadow": unix.S_IFREG | 0o640, "etc/sudoers": unix.S_IFREG | 0o440,
		"bin": unix.S_IFLNK | 0o777, "etc/localtime": unix.S_IFLNK | 0o777, "var/run": unix.S_IFLNK | 0o777} {
		var st unix.Stat_t
		if err := unix.Lstat(filepath.Join(i.Root, path), &st); err != nil || st.Mode != want {
			t.Errorf("%s has mode %o, want %o: %v", path, st.Mode, want, err)
		}
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(i.Root, "etc/shadow"), &st); err != nil || st.Gid != 42 {
		t.Errorf("shadow belongs to group %d: %v", st.Gid, err)
	}
	// The trees hide what is not for everybody, and nothing else.
	var paths, hiddenPaths []string
	for _, tree := range i.Trees {
		paths = append(paths, tree.Path)
		err := filepath.WalkDir(filepath.Join(host, tree.Path), func(full string, _ fs.DirEntry, err error) error {
			rel, _ := filepath.Rel(filepath.Join(host, tree.Path), full)
			if hidden(tree.Mask, rel) {
				hiddenPaths = append(hiddenPaths, filepath.Join(tree.Path, rel))
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	slices.Sort(hiddenPaths)
	if want := []string{"/usr", "/var/lib/dpkg"}; !slices.Equal(paths, want) {
		t.Errorf("the trees are %v, want %v", paths, want)
	}
	if want := []string{"/usr/bin/closed", "/usr/lib/closed.d", "/var/lib/dpkg/closed"}; !slices.Equal(hiddenPaths, want) {
		t.Errorf("hidden are %v, want %v", hiddenPaths, want)
	}
}

func TestHostOptions(t *testing.T) {
	needRoot(t)
	s, _ := openPretended(t)
	plain, wished := get(t, s, Options{}), get(t, s, Options{Opt: true, Etc: []string{"pip.conf"}})
	if plain.Root == wished.Root {
		t.Error("different wishes give the same lower")
	}
	if _, err := os.Stat(filepath.Join(plain.Root, "etc/pip.conf")); err == nil {
		t.Error("pip.conf is there unasked")
	}
	if _, err := os.Stat(filepath.Join(wished.Root, "etc/pip.conf")); err != nil {
		t.Error(err)
	}
	if !slices.ContainsFunc(wished.Trees, func(t Tree) bool { return t.Path == "/opt" }) {
		t.Errorf("opt is not among %v", wished.Trees)
	}
	for _, bad := range []string{"", ".", "..", "../root/.ssh", "/etc/x", "a/../../b", "shadow", "sudoers", "ssh/ssh_host_rsa_key", "pam.d/sshd", "passwd"} {
		if err := (Options{Etc: []string{bad}}).CheckOptions(); err == nil {
			t.Errorf("%q may be copied", bad)
		}
	}
	if err := (Options{Etc: []string{"pip.conf", "myapp/config"}}).CheckOptions(); err != nil {
		t.Error(err)
	}
}

// The same host gives the same lower, in another process too; a change of its packages gives another state,
// and what nobody stands on goes.
func TestHostChanges(t *testing.T) {
	needRoot(t)
	s, host := openPretended(t)
	first := get(t, s, Options{})
	again, err := openAt(s.dir, host)
	if err != nil {
		t.Fatal(err)
	}
	if i := get(t, again, Options{}); i.Root != first.Root || i.State != first.State {
		t.Errorf("the same host gave %v and %v", first, i)
	}
	put(t, host, "var/lib/dpkg/status", "Package: x\n\nPackage: y\n", 0o644)
	put(t, host, "etc/profile", "PATH=/usr/bin\n", 0o644)
	if again.State() == first.State {
		t.Error("the state did not change with the packages")
	}
	second := get(t, again, Options{})
	if second.Root == first.Root || second.State != again.State() {
		t.Errorf("after a change: %v", second)
	}
	third, err := openAt(s.dir, host)
	if err != nil {
		t.Fatal(err)
	}
	get(t, third, Options{})
	if err := third.Prune(func(root string) bool { return root == first.Root }); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(first.Root); err != nil {
		t.Error("a lower in use was removed")
	}
	if err := third.Prune(func(string) bool { return false }); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(first.Root); err == nil {
		t.Error("a lower that nobody uses is kept")
	}
	if _, err := os.Stat(second.Root); err != nil {
		t.Error("the current lower was removed")
	}
}

func TestSnapshot(t *testing.T) {
	needRoot(t)
	s, host := openPretended(t)
	if err := os.Link(filepath.Join(host, "usr/bin/prog"), filepath.Join(host, "usr/bin/prog2")); err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-time.Hour).Truncate(time.Second)
	if err := os.Chtimes(filepath.Join(host, "usr/bin/prog"), old, old); err != nil {
		t.Fatal(err)
	}
	if err := s.Snapshot(t.Context(), "spring-24", Options{}); err != nil {
		t.Fatal(err)
	}
	if err := s.Snapshot(t.Context(), "spring-24", Options{}); !errors.Is(err, fs.ErrExist) {
		t.Errorf("the same name again: %v", err)
	}
	for _, bad := range []string{"", "host", "../x", "A", "a b", ".x", strings.Repeat("a", 64)} {
		if err := s.Snapshot(t.Context(), bad, Options{}); err == nil {
			t.Errorf("a snapshot is called %q", bad)
		}
	}
	put(t, host, "usr/bin/prog", "upgraded\n", 0o755)
	i, err := s.Get(t.Context(), "spring-24", Options{})
	if err != nil || len(i.Trees) > 0 || i.State != "" {
		t.Fatalf("the snapshot is %v, %v", i, err)
	}
	if b, err := os.ReadFile(filepath.Join(i.Root, "usr/bin/prog")); err != nil || string(b) != "program\n" {
		t.Errorf("the snapshot holds %q: %v", b, err)
	}
	info, err := os.Stat(filepath.Join(i.Root, "usr/bin/prog"))
	if err != nil || !info.ModTime().Equal(old) || info.Mode().Perm() != 0o755 || info.Sys() == nil {
		t.Errorf("its program is %v, %v", info, err)
	}
	if found := grep(t, i.Root, "secret"); len(found) > 0 {
		t.Errorf("secrets in the snapshot: %v", found)
	}
	list, err := s.List()
	if err != nil || len(list) != 1 || list[0].Name != "spring-24" || list[0].Root() != i.Root {
		t.Errorf("kept are %v, %v", list, err)
	}
	if err := s.Snapshot(t.Context(), "../x", Options{}); shoal.KindOf(err) != shoal.KindInvalid {
		t.Errorf("an odd name: %v", err)
	}
	if err := s.Snapshot(t.Context(), "spring-24", Options{}); shoal.KindOf(err) != shoal.KindConflict {
		t.Errorf("a second of the name: %v", err)
	}
	if err := s.Remove("spring-24"); err != nil {
		t.Error(err)
	}
	if err := s.Remove("spring-24"); shoal.KindOf(err) != shoal.KindNotFound {
		t.Errorf("removed twice: %v", err)
	}
	if _, err := s.Classify("spring-24"); !errors.Is(err, ErrNoImage) {
		t.Errorf("after its removal: %v", err)
	}
}

func TestClassify(t *testing.T) {
	s, host := openPretended(t)
	file := filepath.Join(t.TempDir(), "image.tar")
	empty, text := filepath.Join(t.TempDir(), "empty.tar"), filepath.Join(t.TempDir(), "text.tar")
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	if err := errors.Join(w.WriteHeader(&tar.Header{Name: "usr/", Typeflag: tar.TypeDir}), w.Close(),
		os.WriteFile(file, archive.Bytes(), 0o600), os.WriteFile(empty, nil, 0o600), os.WriteFile(text, []byte("FROM debian"), 0o600)); err != nil {
		t.Fatal(err)
	}
	for image, want := range map[string]Kind{Host: KindHost, host: KindDirectory, file: KindArchive} {
		if got, err := s.Classify(image); got != want || err != nil {
			t.Errorf("%s is %q, want %q: %v", image, got, want, err)
		}
	}
	for image, says := range map[string]string{"docker.io/debian:12": "skopeo copy", "": "neither", "relative/dir": "neither", "/no/such": "no such file", "/dev/null": "neither a directory nor",
		t.TempDir(): "no directory usr", empty: "empty archive", text: "not a tar archive", filepath.Dir(s.dir): "contains the data directory", "/": "contains the data directory"} {
		if _, err := s.Classify(image); !errors.Is(err, ErrNoImage) || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v, want %q", image, err, says)
		}
	}
}

// What a broken-off unpacking left is removed when the store is opened.
func TestOpenRemovesUnfinished(t *testing.T) {
	dir := t.TempDir()
	left := filepath.Join(dir, tmpPrefix+"123", "root", "usr")
	if err := os.MkdirAll(left, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := openAt(dir, "/"); err != nil {
		t.Fatal(err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) > 0 {
		t.Errorf("left: %v", entries)
	}
}

func TestSubmounts(t *testing.T) {
	got := mountPoints(strings.NewReader("1 0 8:1 / / rw - ext4 /dev/a rw\n2 1 8:2 / /usr/local rw - ext4 /dev/b rw\n3 1 8:3 / /usr/with\\040blank rw - ext4 /dev/c rw\nnonsense\n"))
	if want := []string{"/", "/usr/local", "/usr/with blank"}; !slices.Equal(got, want) {
		t.Errorf("mount points are %q, want %q", got, want)
	}
}
