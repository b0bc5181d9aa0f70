package local

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/provider"
)

// smallRoot makes a root file system with a shell and a few programs of the host.
func smallRoot(t *testing.T, mark string) string {
	t.Helper()
	root := filepath.Join(t.TempDir(), "root")
	for _, d := range []string{"usr/bin", "usr/lib", "etc", "tmp"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	copyFile := func(path string) {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		to := filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, b, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	library := regexp.MustCompile(`/\S+`)
	for _, program := range []string{"/bin/sh", "/bin/cat", "/bin/sleep", "/bin/ls", "/usr/bin/stat"} {
		copyFile(program)
		out, err := exec.Command("ldd", program).Output()
		if err != nil {
			t.Fatal(err)
		}
		for _, lib := range library.FindAllString(string(out), -1) {
			copyFile(lib)
		}
	}
	for path, text := range map[string]string{"etc/passwd": "root:x:0:0::/root:/bin/sh\n", "etc/mark": mark, "etc/ssh/ssh_host_rsa_key": "known to all"} {
		to := filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// tarOf packs a directory.
func tarOf(t *testing.T, dir string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		h, err := tar.FileInfoHeader(info, "")
		if err != nil {
			return err
		}
		h.Name, _ = filepath.Rel(dir, path)
		if err := w.WriteHeader(h); err != nil || !info.Mode().IsRegular() {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		_, err = w.Write(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestImages(t *testing.T) {
	needHost(t)
	root := smallRoot(t, "mark-1")
	dir := t.TempDir()
	write := func(file string, b []byte) string {
		t.Helper()
		path := filepath.Join(dir, file)
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	plain := tarOf(t, root)
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	_, _ = z.Write(plain)
	_ = z.Close()
	image := ociImage(t, plain)
	ociDir := filepath.Join(dir, "layout")
	at, err := layout.Write(ociDir, empty.Index)
	if err == nil {
		err = at.AppendImage(image)
	}
	if err != nil {
		t.Fatal(err)
	}
	saved := filepath.Join(dir, "saved.tar")
	if err := tarball.WriteToFile(saved, name.MustParseReference("example/x:1"), image); err != nil {
		t.Fatal(err)
	}
	images := map[string]string{"directory": root, "tar": write("root.tar", plain), "tar-gz": write("root.tgz", zipped.Bytes()),
		"oci-layout": ociDir, "oci-archive": write("oci.tar", tarOf(t, ociDir)), "docker-save": saved}

	cfg := place(t)
	cfg.images = nil // a store of its own, to be listed
	p := open(t, cfg)
	for kind, image := range images {
		s := spec("m-"+kind, "lab")
		s.Image = image
		s.Mounts = []provider.Mount{{Share: shoal.Share{Name: "x", Source: t.TempDir()}, Path: "/deep/in/it"}}
		create(t, p, s)
		if strings.HasPrefix(kind, "oci") || kind == "docker-save" { // the second layer adds and removes
			must(t, p, s.ID, "cat /etc/second")
			refused(t, p, s.ID, "cat /etc/passwd")
		}
		if got := must(t, p, s.ID, "cat /etc/mark; echo changed > /etc/mark; echo x > /deep/in/it/x"); got != "mark-1" {
			t.Errorf("%s: the machine reads %q", kind, got)
		}
		if out, err := in(t, p, s.ID, "ls /etc/ssh/ssh_host_rsa_key"); err == nil {
			t.Errorf("%s: the image's host key is the machine's: %s", kind, out)
		}
	}
	if got := read(t, filepath.Join(root, "etc/mark")); got != "mark-1" {
		t.Errorf("a machine has changed its image: %q", got)
	}
	list, err := p.Images()
	if err != nil || len(list) != 3 { // tar and tar.gz have different digests; all of OCI's are one image
		t.Errorf("kept are %v, %v", list, err)
	}
	for _, i := range list {
		if err := p.RemoveImage(i.Name); shoal.KindOf(err) != shoal.KindConflict {
			t.Errorf("removing %s, which machines stand on: %v", i.Name, err)
		}
	}
	// A changed archive is another image, for new machines.
	root2 := smallRoot(t, "mark-22")
	write("root.tar", tarOf(t, root2))
	s := spec("m-again", "lab")
	s.Image = images["tar"]
	create(t, p, s)
	if got := must(t, p, s.ID, "cat /etc/mark"); got != "mark-22" {
		t.Errorf("after the archive changed: %q", got)
	}
	if got := must(t, p, "m-tar", "cat /etc/mark"); got != "changed" {
		t.Errorf("the older machine reads %q", got)
	}
}

// ociImage has two layers: the root, and one that removes a file and adds another.
func ociImage(t *testing.T, root []byte) v1.Image {
	t.Helper()
	var second bytes.Buffer
	w := tar.NewWriter(&second)
	for _, name := range []string{"etc/.wh.passwd", "etc/second"} {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
	}
	_ = w.Close()
	image := empty.Image
	for _, text := range [][]byte{root, second.Bytes()} {
		layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(text)), nil })
		if err != nil {
			t.Fatal(err)
		}
		if image, err = mutate.AppendLayers(image, layer); err != nil {
			t.Fatal(err)
		}
	}
	return image
}

// An image is anybody's: its links lead nowhere but into the machine, or it does not start.
func TestHostileImage(t *testing.T) {
	needHost(t)
	p := open(t, place(t))
	trap := t.TempDir()
	if err := os.WriteFile(filepath.Join(trap, "ssh_host_rsa_key"), []byte("the host's"), 0o600); err != nil {
		t.Fatal(err)
	}
	links := []string{"etc/hostname", "etc/hosts", "etc/resolv.conf", "etc/machine-id", "etc/ssh", "run", "opt", "usr/local", "shared", "dev", "proc", "sys", "var"}
	for i, link := range links {
		root := smallRoot(t, "x")
		at := filepath.Join(root, link)
		if err := os.RemoveAll(at); err != nil {
			t.Fatal(err)
		}
		to := trap
		if strings.HasPrefix(link, "etc/h") {
			to = filepath.Join(trap, "file")
		}
		if i%2 == 0 {
			to = "../../../../../../../.." + to
		}
		if err := os.Symlink(to, at); err != nil {
			t.Fatal(err)
		}
		s := spec(fmt.Sprintf("m-%d", i), "lab")
		s.Image = root
		s.Mounts = []provider.Mount{{Share: shoal.Share{Name: "x", Source: t.TempDir()}, Path: "/shared/dir"}}
		if err := p.Create(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	running := 0
	eventually(t, func() error {
		o, err := p.Observe(t.Context())
		running = 0
		for _, m := range o.Machines {
			switch m.Phase {
			case provider.PhaseRunning:
				running++
			case provider.PhaseCreating:
				err = fmt.Errorf("%+v", m)
			}
		}
		return err
	})
	if running == 0 {
		t.Error("none came to run, so the test shows little")
	}
	left, err := os.ReadDir(trap)
	if err != nil || len(left) != 1 {
		t.Errorf("outside the machine there was written: %v, %v", left, err)
	}
}

// When the host's packages change, machines of the image host are outdated and say why; others are not.
func TestOutdated(t *testing.T) {
	needHost(t)
	p := open(t, place(t))
	create(t, p, spec("m-host", "lab"))
	s := spec("m-dir", "lab")
	s.Image = smallRoot(t, "x")
	create(t, p, s)
	outdated := func() string {
		o, err := p.Observe(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, m := range o.Machines {
			if m.Outdated != "" {
				out = append(out, string(m.ID)+": "+m.Outdated)
			}
		}
		return strings.Join(out, "\n")
	}
	if got := outdated(); got != "" {
		t.Errorf("just made, and outdated: %s", got)
	}
	p.mu.Lock() // the host stays as it is; the machine was made before it became so
	p.machines["m-host"].rec.State = "1-1"
	p.mu.Unlock()
	if got := outdated(); !strings.HasPrefix(got, "m-host: the host's packages have changed") || strings.Contains(got, "m-dir") {
		t.Errorf("outdated is %q", got)
	}
}
