package postgres_test

import (
	"context"
	"fmt"
	"os"
	"testing"

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
	var err error
	if pg, err = cluster.New(context.Background(), "fsync=off"); err != nil {
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
