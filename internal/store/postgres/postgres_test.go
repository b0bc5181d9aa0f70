package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/rig/cluster"
	"github.com/shoal-pool/shoal/internal/store"
	"github.com/shoal-pool/shoal/internal/store/postgres"
	"github.com/shoal-pool/shoal/internal/store/storetest"
)

var pg *cluster.Cluster

func TestMain(m *testing.M) {
	if address := os.Getenv("STORE_TEST_WRITER"); address != "" {
		write(address)
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	f, err := os.CreateTemp("", "shoal-pg-hba-")
	if err == nil {
		defer os.Remove(f.Name())
		_, err = f.WriteString("local all guarded scram-sha-256\nlocal all all trust\n") // one role has a password
		err = errors.Join(err, f.Chmod(0o644), f.Close())
	}
	if err == nil {
		pg, err = cluster.New(context.Background(), "fsync=off", "hba_file="+f.Name())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer pg.Close()
	return m.Run()
}

func address(t testing.TB) string {
	t.Helper()
	a, err := pg.Database(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func open(t testing.TB) *store.DB {
	t.Helper()
	return openAt(t, address(t))
}

func openAt(t testing.TB, address string) *store.DB {
	t.Helper()
	db, err := postgres.Open(context.Background(), address, postgres.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Errorf("cannot close the store: %v", err)
		}
	})
	return db
}

func TestSuite(t *testing.T) { storetest.Run(t, open) }

func TestVersions(t *testing.T) {
	storetest.RunVersions(t, func(t testing.TB) storetest.Place {
		a := address(t)
		return storetest.Place{
			Open: func() (*store.DB, error) { return postgres.Open(t.Context(), a, postgres.Options{}) },
			Peek: func() (*store.DB, error) { return postgres.Peek(t.Context(), a) },
			Make: func(version int) error { return postgres.Make(t.Context(), a, version) },
			Mark: func(version int) error {
				_, err := ask(t.Context(), a, "UPDATE schema_version SET version = $1 RETURNING ''", version)
				return err
			},
			State: func() string {
				rows, err := ask(t.Context(), a, `SELECT schema_to_xml(current_schema(), true, true, '')::text || string_agg(xmin::text || prosrc, '')
					FROM pg_proc WHERE proname = 'json_extract'`)
				if err != nil {
					t.Fatal(err)
				}
				return rows
			},
		}
	})
}

// ask is a database's one answer.
func ask(ctx context.Context, address, query string, args ...any) (answer string, err error) {
	c, err := pgx.Connect(ctx, address)
	if err != nil {
		return "", err
	}
	defer c.Close(context.WithoutCancel(ctx))
	err = c.QueryRow(ctx, query, args...).Scan(&answer)
	return answer, err
}

// Who is of an older version than the database is no standby of who leads it: it ends at once, and says why.
func TestOlderStandby(t *testing.T) {
	a := address(t)
	openAt(t, a)
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	ended := make(chan error, 1)
	stands := make(chan struct{})
	go func() {
		_, err := postgres.Open(ctx, a, postgres.Options{Standby: func() { close(stands) }})
		ended <- err
	}()
	<-stands
	if _, err := ask(ctx, a, "UPDATE schema_version SET version = version + 1 RETURNING ''"); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; shoal.KindOf(err) != shoal.KindInvalid || !strings.Contains(err.Error(), "newer version") || shoal.HintOf(err) == "" {
		t.Errorf("it ended with %v (hint %q)", err, shoal.HintOf(err))
	}
}
