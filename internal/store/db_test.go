package store_test

import (
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/shoal-pool/shoal/internal/store"
	"github.com/shoal-pool/shoal/internal/store/file"
	"github.com/shoal-pool/shoal/internal/store/storetest"
)

func TestSuite(t *testing.T) { storetest.Run(t, storetest.Open) }

func TestVersions(t *testing.T) {
	storetest.RunVersions(t, func(t testing.TB) storetest.Place {
		path := filepath.Join(t.TempDir(), "store.db")
		return storetest.Place{
			Open: func() (*store.DB, error) { return file.Open(t.Context(), path) },
			Peek: func() (*store.DB, error) { return file.Peek(t.Context(), path) },
			Make: func(version int) error { return oldFile(path, version, "") },
			Mark: func(version int) error {
				db, err := sql.Open("sqlite", file.DataSource(path))
				if err != nil {
					return err
				}
				defer db.Close()
				_, err = db.Exec(fmt.Sprintf("PRAGMA user_version = %d", version))
				return err
			},
			State: func() string {
				text, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				return string(text)
			},
		}
	})
}
