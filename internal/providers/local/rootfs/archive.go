package rootfs

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"golang.org/x/sys/unix"
)

// Bounds on what is unpacked: an archive that exceeds them is refused, not cut off.
const (
	maxUnpacked = 128 << 30
	maxEntries  = 5_000_000
)

// architecture is what image indexes call this kind of machine.
const architecture = runtime.GOARCH

// archive unpacks an archive of a root file system, an OCI layout (directory or archive) or what
// `docker save` writes, once for each content.
func (s *Store) archive(ctx context.Context, path string) (Image, error) {
	defer s.lock(path)()
	key, err := archiveKey(path)
	if err != nil {
		return Image{}, fmt.Errorf("%w: %w", ErrNoImage, err)
	}
	s.mu.Lock()
	dir := s.archives[key]
	s.mu.Unlock()
	if dir == "" {
		if dir, err = s.unpack(ctx, path); err != nil {
			return Image{}, fmt.Errorf("cannot unpack the image %s: %w", path, err)
		}
		s.mu.Lock()
		s.archives[key] = dir
		s.mu.Unlock()
	}
	return Image{Root: filepath.Join(dir, "root")}, nil
}

// limit is how much may be unpacked: nearly all that is free, so that what else is on the disk goes on.
func (s *Store) limit() int64 {
	if s.room > 0 {
		return s.room
	}
	var st unix.Statfs_t
	if err := unix.Statfs(s.dir, &st); err != nil {
		return maxUnpacked
	}
	return min(maxUnpacked, int64(st.Bavail)*st.Bsize/20*19)
}

// archiveKey tells a changed archive from the one that was unpacked, without reading it.
func archiveKey(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	if info.IsDir() {
		if info, err = os.Stat(filepath.Join(path, "index.json")); err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("%s %d %d", path, info.Size(), info.ModTime().UnixNano()), nil
}

// unpack unpacks an archive unless its content is there already.
func (s *Store) unpack(ctx context.Context, path string) (string, error) {
	limit := s.limit()
	src, err := openSource(ctx, path, s.dir, limit)
	if err != nil {
		return "", err
	}
	defer src.close()
	dir := filepath.Join(s.dir, "sha256-"+src.digest)
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	tmp, err := os.MkdirTemp(s.dir, tmpPrefix)
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp)
	if err := os.Chmod(tmp, 0o755); err != nil {
		return "", err
	}
	r := src.files()
	defer r.Close()
	if err := extract(ctx, r, filepath.Join(tmp, "root"), limit); err != nil {
		return "", err
	}
	for _, name := range []string{"usr", "etc"} {
		if info, err := os.Stat(filepath.Join(tmp, "root", name)); err != nil || !info.IsDir() {
			return "", fmt.Errorf("%w: it has no directory %s, so it is no root file system", ErrNoImage, name)
		}
	}
	if err := os.WriteFile(filepath.Join(tmp, "source"), []byte(path+"\n"), 0o600); err != nil {
		return "", err
	}
	return dir, s.finish(tmp, dir)
}

// source is an archive that was recognized.
type source struct {
	digest string
	files  func() io.ReadCloser // a tar stream of the root file system
	close  func()
}

// openSource recognizes an archive by what is in it.
func openSource(ctx context.Context, path, scratch string, limit int64) (*source, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		return layoutSource(path, func() {})
	}
	names, err := firstNames(path)
	if err != nil {
		return nil, err
	}
	switch {
	case names["oci-layout"] || names["index.json"] || names["blobs"] && !names["manifest.json"]:
		tmp, err := os.MkdirTemp(scratch, tmpPrefix)
		if err != nil {
			return nil, err
		}
		remove := func() { _ = os.RemoveAll(tmp) } // else the next start removes it
		if err := extractFile(ctx, path, filepath.Join(tmp, "root"), limit); err != nil {
			remove()
			return nil, err
		}
		return layoutSource(filepath.Join(tmp, "root"), remove)
	case names["manifest.json"]:
		image, err := tarball.Image(opener(path), nil)
		if err != nil {
			return nil, fmt.Errorf("it is no readable image archive: %w", err)
		}
		return imageSource(image, func() {})
	default:
		digest, err := digestOf(path)
		if err != nil {
			return nil, err
		}
		return &source{digest: digest, close: func() {}, files: func() io.ReadCloser {
			r, err := opener(path)()
			if err != nil {
				return io.NopCloser(failing{err})
			}
			return r
		}}, nil
	}
}

// failing is a reader of an error.
type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// layoutSource takes the one image of an OCI layout, or the one for this kind of machine.
func layoutSource(dir string, done func()) (*source, error) {
	image, err := layoutImage(dir)
	if err != nil {
		done()
		return nil, fmt.Errorf("it is no readable OCI layout: %w", err)
	}
	return imageSource(image, done)
}

func layoutImage(dir string) (v1.Image, error) {
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		return nil, err
	}
	return indexImage(index, 0)
}

// indexImage goes down nested indexes, which an archive may hold a few of.
func indexImage(index v1.ImageIndex, depth int) (v1.Image, error) {
	manifest, err := index.IndexManifest()
	if err != nil {
		return nil, err
	}
	for _, m := range manifest.Manifests {
		fits := m.Platform == nil || m.Platform.OS == "linux" && m.Platform.Architecture == architecture
		switch {
		case m.MediaType.IsImage() && fits:
			return index.Image(m.Digest)
		case m.MediaType.IsIndex() && depth < 4:
			inner, err := index.ImageIndex(m.Digest)
			if err != nil {
				return nil, err
			}
			if image, err := indexImage(inner, depth+1); err == nil {
				return image, nil
			}
		}
	}
	return nil, fmt.Errorf("no image for linux/%s is in it", architecture)
}

func imageSource(image v1.Image, done func()) (*source, error) {
	digest, err := image.Digest()
	if err != nil {
		done()
		return nil, err
	}
	return &source{digest: digest.Hex, close: done, files: func() io.ReadCloser { return mutate.Extract(image) }}, nil
}

// opener opens an archive, unzipped if need be.
func opener(path string) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		b := bufio.NewReaderSize(f, 1<<16)
		magic, err := b.Peek(2)
		if err != nil || magic[0] != 0x1f || magic[1] != 0x8b { // gzip's magic number
			return readCloser{b, f}, nil
		}
		z, err := gzip.NewReader(b)
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
		return readCloser{z, f}, nil
	}
}

type readCloser struct {
	io.Reader
	io.Closer
}

// begins reports whether a file begins as an archive does. The rest shows when it is unpacked.
func begins(path string) error {
	r, err := opener(path)()
	if err != nil {
		return fmt.Errorf("%w: %s is not a tar archive, plain or gzip: %w", ErrNoImage, path, err)
	}
	defer r.Close()
	switch _, err := tar.NewReader(r).Next(); {
	case errors.Is(err, io.EOF):
		return fmt.Errorf("%w: %s is an empty archive", ErrNoImage, path)
	case err != nil:
		return fmt.Errorf("%w: %s is not a tar archive, plain or gzip: %w", ErrNoImage, path, err)
	}
	return nil
}

// firstNames are the top-level names among the first entries of an archive. The tools that write image
// archives put the index or manifest anywhere, but blobs are not found in root file systems.
func firstNames(path string) (map[string]bool, error) {
	r, err := opener(path)()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	names := map[string]bool{}
	t := tar.NewReader(r)
	for range 64 {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("%w: it is not a tar archive, plain or gzip: %w", ErrNoImage, err)
		}
		first, _, _ := strings.Cut(strings.TrimPrefix(h.Name, "./"), "/")
		names[first] = true
		if names["oci-layout"] || names["manifest.json"] || names["usr"] {
			break
		}
	}
	return names, nil
}

func digestOf(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

func extractFile(ctx context.Context, path, dir string, limit int64) error {
	r, err := opener(path)()
	if err != nil {
		return err
	}
	defer r.Close()
	return extract(ctx, r, dir, limit)
}
