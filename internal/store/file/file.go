package file

import (
	"context"
	"database/sql"
	"errors"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"modernc.org/sqlite" // and the driver "sqlite"
	lib "modernc.org/sqlite/lib"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/store"
	"github.com/shoal-pool/shoal/internal/store/commit"
)

// file is the file, held open: a commit.Database.
type file struct {
	sql  *sql.DB
	lock *os.File
}

// Open opens the store at path, makes it if there is none, and brings it to the newest schema.
// The file belongs to one process at a time; a second Open is a KindConflict. The caller closes
// the store after its last use.
func Open(ctx context.Context, path string) (*store.DB, error) {
	lock, err := lockFile(path + ".lock")
	if err != nil {
		return nil, err
	}
	f := &file{lock: lock}
	s, err := f.open(ctx, path)
	if err != nil {
		if f.sql != nil {
			_ = f.sql.Close()
		}
		_ = lock.Close()
		return nil, shoal.Errorf(shoal.KindOf(err), "cannot open the store %s: %w", path, err)
	}
	return store.New(s), nil
}

// Peek opens the store at path to be read only, while a server uses it perhaps. Updates of it fail.
func Peek(ctx context.Context, path string) (*store.DB, error) {
	if _, err := os.Stat(path); err != nil {
		return nil, shoal.Errorf(shoal.KindNotFound, "cannot read the store: %w", err).WithHint("--data names the data directory of a server")
	}
	db, err := sql.Open("sqlite", DataSource(path)+"&_pragma=query_only(1)")
	if err != nil {
		return nil, err
	}
	f := &file{sql: db}
	c, err := newConn(ctx, db)
	if err == nil {
		err = newest(ctx, c)
	}
	var s *commit.Store
	if err == nil {
		s, err = commit.Open(f, c)
	}
	if err != nil {
		return nil, errors.Join(shoal.Errorf(shoal.KindOf(explain(err)), "cannot read the store %s: %w", path, explain(err)), db.Close())
	}
	return store.New(s), nil
}

// Version is of which schema the store at path is, without a change to it or its file; 0: there is none in the file.
func Version(ctx context.Context, path string) (have int, err error) {
	if info, err := os.Stat(path); err != nil {
		return 0, shoal.Errorf(shoal.KindNotFound, "cannot read the store: %w", err)
	} else if !info.Mode().IsRegular() {
		return 0, shoal.Errorf(shoal.KindInvalid, "cannot read the store: %s is not a file", path)
	}
	db, err := sql.Open("sqlite", "file:"+(&url.URL{Path: path}).EscapedPath()+"?mode=ro&_pragma=busy_timeout(10000)")
	if err != nil {
		return 0, err
	}
	err = db.QueryRowContext(ctx, "PRAGMA user_version").Scan(&have)
	if e, ok := errors.AsType[*sqlite.Error](err); ok && e.Code() == lib.SQLITE_NOTADB {
		have, err = 0, nil
	}
	return have, errors.Join(explain(err), db.Close())
}

func (f *file) open(ctx context.Context, path string) (s *commit.Store, err error) {
	if err := secure(path); err != nil {
		return nil, shoal.Errorf(shoal.KindUnavailable, "%w", err)
	}
	if f.sql, err = sql.Open("sqlite", DataSource(path)); err != nil {
		return nil, err
	}
	c, err := newConn(ctx, f.sql)
	if err != nil {
		return nil, explain(err)
	}
	if err = f.migrate(ctx, c); err == nil {
		s, err = commit.Open(f, c)
	}
	if err != nil {
		c.Discard()
	}
	return s, err
}

func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, shoal.Errorf(shoal.KindUnavailable, "cannot open the store: %w", err).WithHint("make the directory first: mkdir -m 700 %s", filepath.Dir(path))
	} else if err != nil {
		return nil, shoal.Errorf(shoal.KindUnavailable, "cannot open the store: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, shoal.Errorf(shoal.KindConflict, "cannot open the store: %s is held by another process", path).
			WithHint("is `shoal serve` already running on this data directory?")
	}
	return f, nil
}

// Reader is of commit.Database, as those that follow.
func (f *file) Reader(ctx context.Context) (commit.Conn, error) { return f.connect(ctx) }

// Writer makes a connection like another.
func (f *file) Writer(ctx context.Context) (commit.Conn, error) { return f.connect(ctx) }

func (f *file) connect(ctx context.Context) (commit.Conn, error) {
	c, err := newConn(ctx, f.sql)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// Broken reports whether the disk, the memory or the file is at fault.
func (*file) Broken(err error) bool { return broken(err) }

// Explain says what can be done.
func (*file) Explain(err error) error { return explain(err) }

// Lease is for ever: the lock on the file is the kernel's.
func (*file) Lease() time.Duration { return 0 }

// Columns are what SQLite knows of them.
func (*file) Columns() string {
	return "SELECT t.name, c.name FROM sqlite_master t JOIN pragma_table_info(t.name) c WHERE t.type = 'table' AND t.name NOT LIKE 'sqlite_%' ORDER BY t.name, c.cid"
}

// Close closes the file and lets go of its lock.
func (f *file) Close() error {
	err := explain(f.sql.Close())
	if f.lock != nil {
		err = errors.Join(err, f.lock.Close())
	}
	return err
}
