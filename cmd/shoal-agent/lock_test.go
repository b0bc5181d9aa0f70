package main

import (
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"
)

// A machine that ends waits for the archive that its agent has begun, however long that takes; a login does not.
func TestLockHome(t *testing.T) {
	for what, gets := range map[string]bool{"save": true, "restore": false} {
		synctest.Test(t, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "lock")
			unlock, err := lockHome(t.Context(), path, 0)
			if err != nil {
				t.Fatal(err)
			}
			time.AfterFunc(3*time.Minute, unlock)
			if again, err := lockHome(t.Context(), path, patienceOf(what)); (err == nil) != gets {
				t.Errorf("%s: %v", what, err)
			} else if err == nil {
				again()
			}
			time.Sleep(3 * time.Minute)
		})
	}
}
