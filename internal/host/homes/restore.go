package homes

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"github.com/shoal-pool/shoal"
)

// Restore brings back what the archives hold that this home has not yet: those of other machines, and its own where it was
// lost. Of what is there already, the newer counts.
func (o Order) Restore() (Done, error) {
	done := Done{Merged: maps.Clone(o.Merged), Saved: o.Saved}
	dir, err := o.openStore(false)
	if errors.Is(err, fs.ErrNotExist) {
		done.Nothing = true
		return done, nil
	}
	if err != nil {
		return done, fmt.Errorf("cannot open the archives of the home: %w", err)
	}
	defer dir.Close()
	all, err := archives(dir)
	if err != nil {
		return done, fmt.Errorf("cannot list the archives of the home: %w", err)
	}
	home, err := os.OpenRoot(o.Home)
	if err != nil {
		return done, err
	}
	defer home.Close()
	_, ctime, err := o.walk(home)
	if err != nil {
		return done, fmt.Errorf("cannot read the home: %w", err)
	}
	done.Nothing = true
	for _, a := range all {
		if at, ok := o.Merged[a.name]; ok && at == a.time || a.name == o.Machine+suffix && o.Saved != 0 {
			continue
		}
		files, bytes, left, err := o.extract(dir, a.name, home)
		done.Files, done.Bytes, done.Left = done.Files+files, done.Bytes+bytes, left
		if err != nil {
			return done, fmt.Errorf("cannot bring back all of the home from %s: %w", path.Join(o.Dir, store, a.name), err)
		}
		if done.Merged == nil {
			done.Merged = map[string]int64{}
		}
		done.Nothing, done.From = false, time.Unix(0, a.time)
		done.Merged[a.name] = a.time
	}
	if !done.Nothing && o.archived(ctime) { // nothing of this machine's own waits to be archived
		done.Saved = Tick()
	}
	return done, nil
}

// openArchive opens an archive to be read, in bounded memory; done closes it.
func openArchive(dir *os.Root, name string) (t *tar.Reader, done func(), err error) {
	f, err := dir.Open(name)
	if err != nil {
		return nil, nil, err
	}
	z, err := zstd.NewReader(f, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(64<<20))
	if err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	return tar.NewReader(z), func() { z.Close(); _ = f.Close() }, nil
}

// extract brings back one archive.
func (o Order) extract(dir *os.Root, name string, home *os.Root) (files int, bytes int64, left string, err error) {
	t, done, err := openArchive(dir, name)
	if err != nil {
		return 0, 0, "", err
	}
	defer done()
	var dirs []*tar.Header // whose times and modes are set when all is in them
	for range 2 * maxEntries {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return files, bytes, left, finish(home, dirs)
		}
		if err != nil {
			return files, bytes, left, err
		}
		if h.Typeflag == tar.TypeXGlobalHeader {
			left = told(h.PAXRecords[leftRecord])
			continue
		}
		at := path.Clean(h.Name)
		if !filepath.IsLocal(at) || at == "." || o.left(at) {
			continue
		}
		if h.Size > 2*Limit-bytes {
			return files, bytes, left, shoal.Errorf(shoal.KindExhausted, "it holds more than any home may")
		}
		switch h.Typeflag {
		case tar.TypeDir:
			err := home.MkdirAll(at, 0o700)
			if general(err) {
				return files, bytes, left, fmt.Errorf("~/%s: %w", at, err)
			}
			if err == nil { // otherwise something else is there by now
				dirs = append(dirs, h)
				_ = home.Chmod(at, 0o700) // she may have kept herself from writing there
			}
		case tar.TypeReg:
			did, err := file(home, at, h, t)
			if err != nil {
				return files, bytes, left, err
			}
			if did {
				files, bytes = files+1, bytes+h.Size
			}
		case tar.TypeSymlink:
			if err := symlink(home, at, h); general(err) {
				return files, bytes, left, fmt.Errorf("~/%s: %w", at, err)
			}
		}
	}
	return files, bytes, left, shoal.Errorf(shoal.KindExhausted, "it holds more than %d files and directories", 2*maxEntries)
}

// told bounds what an archive says, which its user may have written herself.
func told(s string) string {
	const most = 1000
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	return s[:min(len(s), most)]
}

// newer reports whether what lies at a place counts more than what comes back.
func newer(home *os.Root, at string, h *tar.Header) bool {
	info, err := home.Lstat(at)
	return err == nil && (info.IsDir() || info.ModTime().After(h.ModTime))
}

// general reports whether an error is of the file system, so that others would have it as well, rather than of one place.
func general(err error) bool {
	for _, of := range []error{syscall.ENOSPC, syscall.EDQUOT, syscall.EROFS, syscall.EIO, syscall.ENFILE, syscall.EMFILE, syscall.ENOMEM} {
		if errors.Is(err, of) {
			return true
		}
	}
	return false
}

// file brings back a file: aside first, and then to its place. What is in its way stays.
func file(home *os.Root, at string, h *tar.Header, from io.Reader) (bool, error) {
	if newer(home, at, h) {
		return false, nil
	}
	var f *os.File
	tmp := path.Join(path.Dir(at), ".shoal-new")
	err := home.MkdirAll(path.Dir(at), 0o700)
	if err == nil {
		_ = home.Remove(tmp)
		f, err = home.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	}
	if general(err) {
		return false, fmt.Errorf("~/%s: %w", at, err)
	}
	if err != nil {
		return false, nil //nolint:nilerr // something else is there by now
	}
	_, err = io.Copy(f, from)
	err = errors.Join(err, f.Chmod(fs.FileMode(h.Mode).Perm()), f.Close())
	if err == nil {
		err = errors.Join(home.Chtimes(tmp, h.ModTime, h.ModTime), home.Rename(tmp, at))
	}
	if err != nil {
		_ = home.Remove(tmp)
		return false, fmt.Errorf("~/%s: %w", at, err)
	}
	return true, nil
}

func symlink(home *os.Root, at string, h *tar.Header) error {
	if newer(home, at, h) {
		return nil
	}
	if err := home.MkdirAll(path.Dir(at), 0o700); err != nil {
		return err
	}
	_ = home.Remove(at)
	if err := home.Symlink(h.Linkname, at); err != nil {
		return err
	}
	dir, err := home.Open(path.Dir(at))
	if err != nil {
		return err
	}
	defer dir.Close()
	when := unix.NsecToTimespec(h.ModTime.UnixNano())
	_ = unix.UtimesNanoAt(int(dir.Fd()), path.Base(at), []unix.Timespec{when, when}, unix.AT_SYMLINK_NOFOLLOW) // else it is as new as this
	return nil
}

// finish gives directories their modes and times, the deepest first.
func finish(home *os.Root, dirs []*tar.Header) error {
	for i := len(dirs) - 1; i >= 0; i-- {
		at := path.Clean(dirs[i].Name)
		if home.Chmod(at, fs.FileMode(dirs[i].Mode).Perm()) == nil {
			_ = home.Chtimes(at, dirs[i].ModTime, dirs[i].ModTime)
		}
	}
	return nil
}
