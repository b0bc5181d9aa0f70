package commit_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/store/commit"
)

// While a database is away nobody is told that a change failed which may be stored: who asked is told what became of it
// once the database is back, or that it is not known when the process ends. Others are refused meanwhile.
func TestDoubt(t *testing.T) {
	for _, stored := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			db := &database{rev: 7}
			s, err := commit.Open(db, &conn{db: db})
			if err != nil {
				t.Fatal(err)
			}
			change := func(ctx context.Context) error {
				return s.Update(ctx, func(tx *commit.Tx) error { tx.Next(); return nil })
			}
			db.set(true, stored)
			var answered time.Duration
			began := time.Now()
			var wg sync.WaitGroup
			wg.Go(func() {
				err := change(t.Context())
				answered = time.Since(began)
				if (err == nil) != stored {
					t.Errorf("stored %t, told %v", stored, err)
				}
			})
			time.Sleep(time.Second)
			if err := change(t.Context()); !errors.Is(err, errAway) {
				t.Errorf("another change: %v", err)
			}
			const outage = 10 * time.Minute
			time.Sleep(outage)
			db.set(false, false)
			wg.Wait()
			if answered < outage {
				t.Errorf("answered after %v, while it was not known", answered)
			}
			if err := change(t.Context()); err != nil {
				t.Error(err)
			}

			db.set(true, stored)
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			began = time.Now()
			time.AfterFunc(outage, s.GiveUp)
			if err := change(ctx); !errors.Is(err, commit.ErrUnsure) || time.Since(began) != outage {
				t.Errorf("who goes away is told %v after %v", err, time.Since(began))
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

var errAway = errors.New("the database is away")

// database has nothing in it but a revision.
type database struct {
	mu     sync.Mutex
	rev    shoal.Rev
	away   bool
	stores bool // what is committed while it goes away
}

func (d *database) set(away, stores bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.away, d.stores = away, stores
}

func (d *database) Reader(ctx context.Context) (commit.Conn, error) { return d.Writer(ctx) }
func (d *database) Writer(context.Context) (commit.Conn, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.away {
		return nil, errAway
	}
	return &conn{db: d}, nil
}
func (*database) Broken(error) bool       { return true }
func (*database) Explain(err error) error { return err }
func (*database) Lease() time.Duration    { return 5 * time.Second }
func (*database) Columns() string         { return "" }
func (*database) Close() error            { return nil }

type conn struct{ db *database }

func (*conn) Begin(bool) error                   { return nil }
func (*conn) Rollback() error                    { return nil }
func (*conn) Exec(string, ...any) (int64, error) { return 1, nil }
func (*conn) Do(string, ...any) error            { return nil }
func (*conn) Discard()                           {}
func (c *conn) Scan(dest ...any) error           { *dest[0].(*shoal.Rev) = c.db.rev; return nil }
func (c *conn) Query(scan func(commit.Rows) error, _ string, _ ...any) error {
	c.db.mu.Lock()
	defer c.db.mu.Unlock()
	return scan(c)
}

func (c *conn) Commit(_, to shoal.Rev) error {
	c.db.mu.Lock()
	defer c.db.mu.Unlock()
	if !c.db.away || c.db.stores {
		c.db.rev = to
	}
	if c.db.away {
		return commit.ErrUnsure
	}
	return nil
}
