package rootfs

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// State is what the host's software is at now: it changes whenever a package is installed, upgraded or
// removed. It costs one stat.
func (s *Store) State() string {
	info, err := os.Stat(filepath.Join(s.host, packageStatus))
	if err != nil {
		return "none"
	}
	return fmt.Sprintf("%d-%d", info.ModTime().UnixNano(), info.Size())
}

// hostImage builds the image host for the packages of now, or finds it built.
func (s *Store) hostImage(ctx context.Context, o Options) (Image, error) {
	state := s.State()
	key := fmt.Sprintf("%s opt=%t etc=%q", state, o.Opt, o.Etc)
	defer s.lock(key)()
	s.mu.Lock()
	image, ok := s.built[key]
	s.mu.Unlock()
	if ok {
		return image, nil
	}
	image, err := s.buildHost(ctx, o)
	if err != nil {
		return Image{}, fmt.Errorf("cannot make the image host: %w", err)
	}
	image.State = state
	s.mu.Lock()
	defer s.mu.Unlock()
	s.built[key] = image
	return image, nil
}

// Forget lets the image host be made anew, as when the host's packages have changed.
func (s *Store) Forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.built)
}

// CheckOptions refuses names in /etc that must not be asked for.
func (o Options) CheckOptions() error {
	for _, name := range o.Etc {
		clean := filepath.Clean(name)
		if name == "" || clean != name || filepath.IsAbs(name) || strings.HasPrefix(name, "..") || name == "." {
			return fmt.Errorf("cannot copy %q from /etc: write the name of an entry, as in \"pip.conf\"", name)
		}
		if slices.Contains([]string{"passwd", "group", "shadow", "gshadow", "sudoers", "ssh", "pam.d"}, strings.Split(name, "/")[0]) {
			return fmt.Errorf("cannot copy /etc/%s: Shoal writes that itself in each machine", name)
		}
	}
	return nil
}

// buildHost makes the lower directory anew. Images with the same content share one directory, so a
// restarted server goes on with the image that its machines already stand on.
func (s *Store) buildHost(ctx context.Context, o Options) (Image, error) {
	tmp, err := os.MkdirTemp(s.dir, tmpPrefix)
	if err != nil {
		return Image{}, err
	}
	defer os.RemoveAll(tmp)
	if err := os.Chmod(tmp, 0o755); err != nil {
		return Image{}, err
	}
	b := &builder{host: s.host, root: filepath.Join(tmp, "root"), sum: sha256.New()}
	trees, err := b.build(ctx, o)
	if err != nil {
		return Image{}, err
	}
	for i, t := range trees {
		mask := filepath.Join("masks", strings.ReplaceAll(strings.Trim(t.Path, "/"), "/", "_"))
		found, err := b.mask(ctx, t.Path, filepath.Join(tmp, mask), trees)
		if err != nil {
			return Image{}, err
		}
		if found {
			trees[i].Mask = mask
		}
	}
	dir := filepath.Join(s.dir, "host-"+hex.EncodeToString(b.sum.Sum(nil))[:16])
	if err := s.finish(tmp, dir); err != nil {
		return Image{}, err
	}
	for i, t := range trees {
		if t.Mask != "" {
			trees[i].Mask = filepath.Join(dir, t.Mask)
		}
	}
	return Image{Root: filepath.Join(dir, "root"), Trees: trees}, nil
}

// builder copies what is listed from a host into a new root, and sums up all it writes.
type builder struct {
	host string
	root string
	sum  hash.Hash
}

func (b *builder) build(ctx context.Context, o Options) ([]Tree, error) {
	if err := os.MkdirAll(b.root, 0o755); err != nil {
		return nil, err
	}
	for _, d := range emptyDirs() {
		if err := b.dir(d.path, d.mode); err != nil {
			return nil, err
		}
	}
	for _, l := range [][2]string{{"var/run", "/run"}, {"var/lock", "/run/lock"}, {"etc/mtab", "../proc/self/mounts"}} {
		if err := b.link(l[0], l[1]); err != nil {
			return nil, err
		}
	}
	trees, err := b.topLevel(o)
	if err != nil {
		return nil, err
	}
	for _, name := range slices.Concat(etcNames(), o.Etc) {
		if err := b.copy(ctx, "etc/"+name); err != nil {
			return nil, err
		}
	}
	for _, name := range varNames() {
		if err := b.copy(ctx, "var/"+name); err != nil {
			return nil, err
		}
	}
	for _, f := range writtenFiles() {
		if err := b.file(f.path, f.mode, []byte(f.text)); err != nil {
			return nil, err
		}
	}
	return trees, b.accounts()
}

// topLevel makes the links at the top and says which directories are trees.
func (b *builder) topLevel(o Options) ([]Tree, error) {
	var trees []Tree
	add := func(path string) { trees = append(trees, Tree{Path: path}) }
	for _, name := range []string{"usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32"} {
		info, err := os.Lstat(filepath.Join(b.host, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if info.Mode()&fs.ModeSymlink != 0 {
			to, err := os.Readlink(filepath.Join(b.host, name))
			if err != nil {
				return nil, err
			}
			if err := b.link(name, to); err != nil {
				return nil, err
			}
			continue
		}
		if err := b.dir(name, 0o755); err != nil {
			return nil, err
		}
		add("/" + name)
	}
	if _, err := os.Stat(filepath.Join(b.host, packageDB)); err == nil {
		add(packageDB)
	}
	if o.Opt && b.public("/opt") {
		add("/opt")
	}
	return b.submounts(trees)
}

// dir makes a directory.
func (b *builder) dir(path string, mode uint32) error {
	fmt.Fprintf(b.sum, "d %s %o\n", path, mode)
	full := filepath.Join(b.root, path)
	if err := os.MkdirAll(full, 0o755); err != nil {
		return err
	}
	return unix.Chmod(full, mode) // os.Chmod would need the sticky bit translated
}

func (b *builder) link(path, to string) error {
	fmt.Fprintf(b.sum, "l %s %s\n", path, to)
	full := filepath.Join(b.root, path)
	if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
		return err
	}
	return os.Symlink(to, full)
}

// file writes a file; one that was copied before is replaced.
func (b *builder) file(path string, mode uint32, text []byte) error {
	fmt.Fprintf(b.sum, "f %s %o %d\n", path, mode, len(text))
	_, _ = b.sum.Write(text) // a hash never fails
	full := filepath.Join(b.root, path)
	if err := os.Remove(full); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.WriteFile(full, text, 0o600); err != nil {
		return err
	}
	return unix.Chmod(full, mode)
}

// maxCopied bounds one copied file; configuration is not larger, ld.so.cache and hyphenation tables are nearly.
const maxCopied = 64 << 20

// copy copies an entry of the host with all below it, as far as everybody may read it there.
// What does not exist is left out.
func (b *builder) copy(ctx context.Context, path string) error {
	if !b.reachable(path) {
		return nil
	}
	from := filepath.Join(b.host, path)
	return filepath.WalkDir(from, func(full string, d fs.DirEntry, err error) error {
		if err != nil {
			return skipAbsent(err)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return skipAbsent(err)
		}
		rel, err := filepath.Rel(b.host, full)
		if err != nil {
			return err
		}
		switch {
		case info.Mode()&fs.ModeSymlink != 0:
			to, err := os.Readlink(full)
			if err != nil {
				return skipAbsent(err)
			}
			if _, err := os.Lstat(filepath.Join(b.root, rel)); err == nil {
				return nil
			}
			return b.link(rel, to)
		case info.IsDir() && info.Mode()&0o005 != 0o005:
			return fs.SkipDir
		case info.IsDir():
			return b.dir(rel, uint32(info.Mode().Perm()))
		case info.Mode().IsRegular() && info.Mode()&0o004 != 0 && info.Size() <= maxCopied:
			text, err := os.ReadFile(full)
			if err != nil {
				return skipAbsent(err)
			}
			return b.file(rel, uint32(info.Mode().Perm()), text)
		}
		return nil // devices, sockets, and what is not for everybody
	})
}

// reachable reports whether everybody may go to where an entry lies.
func (b *builder) reachable(path string) bool {
	for dir := filepath.Dir(path); dir != "."; dir = filepath.Dir(dir) {
		info, err := os.Lstat(filepath.Join(b.host, dir))
		if err != nil || !info.IsDir() || info.Mode()&0o001 == 0 {
			return false
		}
	}
	return true
}

// skipAbsent forgives what vanished while we looked.
func skipAbsent(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
