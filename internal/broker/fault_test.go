package broker_test

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/route"
	"github.com/shoal-pool/shoal/internal/store"
	"github.com/shoal-pool/shoal/internal/store/storetest"
)

// While the disk is full a login waits and is told why, a part that closes is not forgotten, and
// both are made good by themselves once there is space.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=2m"); err != nil {
		t.Skipf("cannot mount a small file system here: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, 0) })
	synctest.Test(t, func(t *testing.T) {
		db := storetest.OpenAt(t, filepath.Join(dir, "store.db"))
		w := newWorldAt(t, db, shoal.Pool{Seats: 1, Size: shoal.Size{Max: 2}})
		w.machine("m-1", shoal.MachineReady)
		w.machine("m-2", shoal.MachineReady)
		a := w.login("u00", "p")
		ballast := filepath.Join(dir, "ballast")
		fill(t, db, ballast)

		w.Closed(a.Session, "p")
		var mu sync.Mutex
		var told []string
		var b route.Target
		var wg sync.WaitGroup
		wg.Go(func() {
			var err error
			b, err = w.Login(t.Context(), route.Request{User: "u01", Pool: "lab"}, "p", func(s string) { mu.Lock(); told = append(told, s); mu.Unlock() })
			if err != nil {
				t.Error(err)
			}
		})
		later(5 * time.Second)
		mu.Lock()
		if !strings.Contains(strings.Join(told, "|"), "disk is full") {
			t.Errorf("told %q", told)
		}
		mu.Unlock()
		if s := w.session(a.Session); s.State != shoal.SessionActive {
			t.Errorf("on a full disk: %+v", s)
		}
		if err := os.Remove(ballast); err != nil {
			t.Fatal(err)
		}
		wg.Wait()
		if b.Machine != "m-2" {
			t.Errorf("seated on %+v", b)
		}
		if s := w.session(a.Session); s.State != shoal.SessionDisconnected {
			t.Errorf("with space again: %+v", s)
		}
	})
}

// fill leaves no space for another update.
func fill(t *testing.T, db *store.DB, ballast string) {
	t.Helper()
	f, err := os.Create(ballast)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for {
		if _, err := f.Write(make([]byte, 4096)); err != nil {
			break
		}
	}
	for i := range 10000 {
		err := db.Update(t.Context(), func(tx *store.Tx) error {
			_, err := tx.Shares().Put(shoal.Share{Name: "ballast", Source: strings.Repeat("x", 1000+i)})
			return err
		})
		if shoal.KindOf(err) == shoal.KindUnavailable {
			return
		}
	}
	t.Fatal("the disk does not get full")
}
