package broker_test

import (
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/need"
	"github.com/shoal-pool/shoal/internal/route"
	"github.com/shoal-pool/shoal/internal/store/storetest"
)

// While the disk is full a login waits and is told why, a part that closes is not forgotten, and
// both are made good by themselves once there is space.
func TestFullDisk(t *testing.T) {
	dir := need.Disk(t, "2m")
	synctest.Test(t, func(t *testing.T) {
		db := storetest.OpenAt(t, filepath.Join(dir, "store.db"))
		w := newWorldAt(t, db, shoal.Pool{Seats: 1, Size: shoal.Size{Max: 2}})
		w.machine("m-1", shoal.MachineReady)
		w.machine("m-2", shoal.MachineReady)
		a := w.login("u00", "p")
		empty := storetest.Fill(t, db, dir)

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
		empty()
		wg.Wait()
		if b.Machine != "m-2" {
			t.Errorf("seated on %+v", b)
		}
		if s := w.session(a.Session); s.State != shoal.SessionDisconnected {
			t.Errorf("with space again: %+v", s)
		}
	})
}
