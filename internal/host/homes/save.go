package homes

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"github.com/shoal-pool/shoal"
)

// leftRecord is where an archive says what it does not hold.
const leftRecord = "SHOAL.left"

// Save archives a home, if something in it was changed since the last time.
func (o Order) Save() (Done, error) {
	done := Done{Merged: o.Merged, Saved: o.Saved}
	began := Now()
	home, err := os.OpenRoot(o.Home)
	if err != nil {
		return done, err
	}
	defer home.Close()
	all, ctime, err := o.walk(home)
	if err != nil {
		return done, fmt.Errorf("cannot read the home: %w", err)
	}
	if o.archived(ctime) {
		done.Nothing = true
		return done, nil
	}
	kept, out, left := o.choose(all)
	dir, err := o.openStore(true)
	if err != nil {
		return done, fmt.Errorf("cannot open the archives of the home: %w", err)
	}
	defer dir.Close()
	tmp := "." + o.Machine + ".new"
	if err := dir.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return done, err
	}
	f, err := dir.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return done, fmt.Errorf("cannot archive the home: %w", err)
	}
	done.Files, done.Bytes, err = write(f, home, kept, left)
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = dir.Rename(tmp, o.Machine+suffix)
	}
	if err != nil {
		return done, errors.Join(fmt.Errorf("cannot archive the home: %w", err), dir.Remove(tmp))
	}
	done.Left, done.Saved, done.Merged = left, began, nil
	for name, at := range o.Merged { // what they held is in ours, but for what was left out
		if info, err := dir.Lstat(name); err == nil && name != o.Machine+suffix && info.ModTime().UnixNano() == at {
			if holds(dir, name, out) || dir.Remove(name) != nil { // then it is merged still
				done.Merged = o.Merged
			}
		}
	}
	return done, nil
}

// holds reports whether an archive holds any of some files, or cannot be read so that it may.
func holds(dir *os.Root, name string, files map[string]bool) bool {
	if len(files) == 0 {
		return false
	}
	t, done, err := openArchive(dir, name)
	if err != nil {
		return true
	}
	defer done()
	for {
		h, err := t.Next()
		if err != nil {
			return !errors.Is(err, io.EOF)
		}
		if files[path.Clean(h.Name)] {
			return true
		}
	}
}

// write writes an archive. What goes or changes meanwhile is as it was found, or not there.
func write(to io.Writer, home *os.Root, all []entry, left string) (files int, bytes int64, err error) {
	z, err := zstd.NewWriter(to, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1))
	if err != nil {
		return 0, 0, err
	}
	t := tar.NewWriter(z)
	if left != "" {
		err = t.WriteHeader(&tar.Header{Typeflag: tar.TypeXGlobalHeader, Name: "shoal", PAXRecords: map[string]string{leftRecord: left}})
	}
	for _, e := range all {
		if err != nil {
			break
		}
		var n int64
		if n, err = add(t, home, e); err == nil && e.info.Mode().IsRegular() {
			files++
			bytes += n
		}
	}
	if err == nil {
		err = t.Close()
	}
	return files, bytes, errors.Join(err, z.Close())
}

// add adds one entry. An error is one of writing.
func add(t *tar.Writer, home *os.Root, e entry) (int64, error) {
	h := &tar.Header{Format: tar.FormatPAX, Name: e.name, ModTime: e.info.ModTime(), Mode: int64(e.info.Mode().Perm())}
	switch {
	case e.info.IsDir():
		h.Typeflag, h.Name = tar.TypeDir, e.name+"/"
		return 0, t.WriteHeader(h)
	case e.info.Mode()&fs.ModeSymlink != 0:
		to, err := home.Readlink(e.name)
		if err != nil {
			return 0, nil
		}
		h.Typeflag, h.Linkname = tar.TypeSymlink, to
		return 0, t.WriteHeader(h)
	}
	f, err := home.OpenFile(e.name, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		return 0, nil // it has gone, or she may not read it herself
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return 0, nil
	}
	h.Typeflag, h.Size = tar.TypeReg, min(info.Size(), e.size)
	if err := t.WriteHeader(h); err != nil {
		return 0, err
	}
	n, err := io.Copy(t, io.LimitReader(f, h.Size))
	if err == nil && n < h.Size { // it was cut meanwhile
		_, err = io.CopyN(t, zeros{}, h.Size-n)
	}
	if err != nil {
		return n, shoal.Errorf(shoal.KindUnavailable, "~/%s: %w", e.name, err)
	}
	return h.Size, nil
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}
