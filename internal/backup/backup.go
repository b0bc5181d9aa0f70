// Package backup saves what a server knows into one file and puts it back, and moves a store from one database to
// another. What tasks have written, and what lies on shares, is not part of it.
package backup

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/store"
	"github.com/shoal-pool/shoal/internal/store/file"
	"github.com/shoal-pool/shoal/internal/store/postgres"
)

// Place is where a server keeps what it knows.
type Place struct {
	Data     string // its data directory
	Database string // its PostgreSQL; empty: a file in Data
}

// storeName is the store within a backup and within a data directory.
const storeName = "shoal.db"

// wholeName is the last entry of a backup, and empty: one without it was cut off, though what there is of it can be read.
const wholeName = "whole"

// kept are the files and directories of a data directory that make a server itself, beside the store. The rest is made
// again, or is what tasks have written.
func kept() []string {
	return []string{"keys", "tls", "hub/token", "admin.token", "chp.token", "chp.routes"}
}

// Save writes a backup to path, which must not exist: a tar archive that only root can read, since the server's keys are
// in it. The server may be running; what the archive has of the store is one moment of it.
func Save(ctx context.Context, p Place, path string) (err error) {
	from, err := p.peek(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, from.Close()) }()
	out, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return shoal.Errorf(shoal.KindConflict, "cannot write the backup: %w", err)
	}
	defer func() {
		if err != nil {
			_ = os.Remove(path)
		}
	}()
	return errors.Join(save(ctx, p, from, filepath.Dir(path), out), out.Sync(), out.Close())
}

// SaveTo writes a backup to out, as Save does to a file.
func SaveTo(ctx context.Context, p Place, out io.Writer) error {
	from, err := p.peek(ctx)
	if err != nil {
		return err
	}
	return errors.Join(save(ctx, p, from, p.Data, out), from.Close())
}

// save writes a backup to out. Until then its copy of the store lies below beside.
func save(ctx context.Context, p Place, from *store.DB, beside string, out io.Writer) error {
	dir, err := os.MkdirTemp(beside, ".shoal-backup-") // made 0700
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	copied := filepath.Join(dir, storeName)
	to, err := file.Open(ctx, copied)
	if err != nil {
		return err
	}
	if err := errors.Join(store.Copy(ctx, from, to), to.Close()); err != nil {
		return err
	}
	f, err := os.Open(copied)
	if err != nil {
		return err
	}
	defer f.Close()
	// It goes before anything is written: when whoever reads standard output is gone, a write is the end of this process.
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	w := tar.NewWriter(out)
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if err := add(w, f, info, storeName, info.Size()); err != nil {
		return err
	}
	for _, name := range kept() {
		err := filepath.WalkDir(filepath.Join(p.Data, name), func(path string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) || err == nil && !d.Type().IsRegular() {
				return nil
			} else if err != nil {
				return err
			}
			inside, err := filepath.Rel(p.Data, path)
			if err != nil {
				return err
			}
			info, err := d.Info()
			var text []byte
			if err == nil {
				text, err = os.ReadFile(path) // at once, for it may change meanwhile
			}
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			} else if err != nil {
				return err
			}
			return add(w, bytes.NewReader(text), info, inside, int64(len(text)))
		})
		if err != nil {
			return err
		}
	}
	if err := w.WriteHeader(&tar.Header{Name: wholeName, Mode: 0o600, Format: tar.FormatPAX}); err != nil {
		return err
	}
	return w.Close()
}

// add adds so many bytes of a file to an archive, by a name.
func add(w *tar.Writer, text io.Reader, of fs.FileInfo, name string, size int64) error {
	if err := w.WriteHeader(&tar.Header{Name: name, Mode: int64(of.Mode().Perm()), Size: size, ModTime: of.ModTime(), Format: tar.FormatPAX}); err != nil {
		return err
	}
	_, err := io.CopyN(w, text, size)
	return err
}

// Restore makes a data directory, and the store in a database where one is named, from a backup. Neither must have been used.
func Restore(ctx context.Context, p Place, path string) (err error) {
	if left, err := os.ReadDir(p.Data); err == nil && len(left) > 0 {
		return shoal.Errorf(shoal.KindConflict, "cannot restore into %s: it is not empty", p.Data).WithHint("move it aside, or name another directory with --data")
	}
	in, err := os.Open(path)
	if err != nil {
		return shoal.Errorf(shoal.KindNotFound, "cannot read the backup: %w", err)
	}
	defer in.Close()
	if real, err := filepath.EvalSymlinks(p.Data); err == nil { // what it leads to is the place
		p.Data = real
	}
	if err := os.Remove(p.Data); err != nil && !errors.Is(err, fs.ErrNotExist) { // found out before anything is copied
		return shoal.Errorf(shoal.KindConflict, "cannot restore into %s: it cannot be replaced: %w", p.Data, err).
			WithHint("where a disk is mounted, name a directory on it with --data")
	}
	// All of it is made beside the place and moved there in the end, so that half of it is never taken for the whole.
	if err := os.MkdirAll(filepath.Dir(p.Data), 0o755); err != nil {
		return err
	}
	dir, err := os.MkdirTemp(filepath.Dir(p.Data), ".shoal-restore-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := unpack(in, dir); err != nil {
		return err
	}
	copied := filepath.Join(dir, storeName)
	from, err := file.Open(ctx, copied) // brings it to this version's schema
	if err != nil {
		return fmt.Errorf("cannot use the backup: %w", err)
	}
	if p.Database != "" {
		err = copyTo(ctx, func() (*store.DB, error) { return from, nil }, p.Database, "--database")
	}
	if err = errors.Join(err, from.Close(), os.Remove(copied+".lock")); err != nil {
		return err
	}
	if p.Database != "" {
		if err := os.Remove(copied); err != nil {
			return err
		}
	}
	return os.Rename(dir, p.Data)
}

// unpack writes what belongs to a backup, and refuses all else.
func unpack(in io.Reader, dir string) error {
	found := false
	for r := tar.NewReader(in); ; {
		h, err := r.Next()
		if found && (errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)) {
			return cutOff()
		}
		if err == nil && found && h.Name == wholeName && h.Size == 0 {
			return nil
		}
		if err != nil || h.Typeflag != tar.TypeReg || !belongs(h.Name) {
			return shoal.Errorf(shoal.KindInvalid, "cannot restore: the file is no backup of Shoal's, or it is damaged")
		}
		found = found || h.Name == storeName
		to := filepath.Join(dir, h.Name)
		if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
			return err
		}
		f, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, h.FileInfo().Mode().Perm()&0o755)
		if err != nil {
			return err
		}
		_, err = io.CopyN(f, r, h.Size)
		if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
			err = cutOff()
		}
		if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
			return err
		}
	}
}

func cutOff() error {
	return shoal.Errorf(shoal.KindInvalid, "cannot restore: the backup is not whole").WithHint("making it was interrupted, or the file was cut off later: take another")
}

// belongs reports whether a backup has files of that name.
func belongs(name string) bool {
	return name == storeName || filepath.IsLocal(name) && slices.ContainsFunc(kept(), func(k string) bool { return name == k || strings.HasPrefix(name, k+"/") })
}

// peek opens the store of a place, to be read while its server runs.
func (p Place) peek(ctx context.Context) (*store.DB, error) {
	if p.Database != "" {
		return postgres.Peek(ctx, p.Database)
	}
	return file.Peek(ctx, filepath.Join(p.Data, storeName))
}

// Migrate copies a store into another, neither of which a server may be using: sqlite:PATH or an address of PostgreSQL's.
func Migrate(ctx context.Context, from, to string) error {
	if err := holds(ctx, from); err != nil {
		return fmt.Errorf("cannot use --from: %w", err)
	}
	return copyTo(ctx, func() (*store.DB, error) {
		source, err := open(ctx, from)
		if err != nil {
			err = fmt.Errorf("cannot use --from: %w", err)
		}
		return source, err
	}, to, "--to")
}

// holds refuses what no server has ever used, and leaves it as it is: it would become a store by being opened.
func holds(ctx context.Context, where string) (err error) {
	version := 0
	if path, ok := strings.CutPrefix(where, "sqlite:"); ok && path != "" {
		version, err = file.Version(ctx, path)
	} else if postgres.Is(where) {
		version, err = postgres.Version(ctx, where)
	} else {
		_, err = open(ctx, where) // which says what would do
	}
	if err == nil && version == 0 {
		return shoal.Errorf(shoal.KindNotFound, "there is no store in %s", postgres.Redact(where)).WithHint("no server was ever started with it: is it the right one?")
	}
	return err
}

// copyTo copies a store, which it opens last and closes, into one that is empty, which a flag names. It leaves no file where there was none,
// unless all is in it.
func copyTo(ctx context.Context, from func() (*store.DB, error), to, flag string) (err error) {
	if path, ok := strings.CutPrefix(to, "sqlite:"); ok {
		for _, name := range []string{path, path + ".lock"} {
			if _, absent := os.Stat(name); errors.Is(absent, fs.ErrNotExist) {
				defer func() {
					if err != nil {
						_ = os.Remove(name)
					}
				}()
			}
		}
	}
	target, err := open(ctx, to)
	if err != nil {
		return fmt.Errorf("cannot use %s: %w", flag, err)
	}
	defer func() { err = errors.Join(err, target.Close()) }()
	if err := store.Unused(ctx, target); err != nil {
		return fmt.Errorf("cannot use %s: %w", flag, err)
	}
	source, err := from()
	if err != nil {
		return err
	}
	return errors.Join(store.Copy(ctx, source, target), source.Close())
}

func open(ctx context.Context, where string) (*store.DB, error) {
	if path, ok := strings.CutPrefix(where, "sqlite:"); ok && path != "" {
		return file.Open(ctx, path)
	}
	if postgres.Is(where) {
		return postgres.Open(ctx, where, postgres.Options{})
	}
	return nil, shoal.Errorf(shoal.KindInvalid, "cannot use the database %q", postgres.Redact(where)).WithHint("write sqlite:PATH or postgres://USER@HOST/DATABASE")
}
