package homes_test

import (
	"context"
	"log/slog"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/engine/homes"
	"github.com/shoal-pool/shoal/internal/store"
	"github.com/shoal-pool/shoal/internal/store/storetest"
	"github.com/shoal-pool/shoal/provider"
)

// mounting is a provider that mounts homes.
type mounting struct {
	provider.Provider
	calls atomic.Int64
}

func (p *mounting) MountHomes(context.Context, shoal.MachineID, []provider.HomeMount) error {
	p.calls.Add(1)
	return nil
}

// A store that could not be read is read again, though nothing changes in it.
func TestStoreFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "store.db")
		db := storetest.OpenAt(t, path)
		storetest.Update(t, db, func(tx *store.Tx) error {
			if _, err := tx.Users().Put(shoal.User{Name: "alice", UID: 20001}); err != nil {
				return err
			}
			if _, err := tx.Shares().Put(shoal.Share{Name: "team", Source: "smb://files/team", Credentials: &shoal.SecretRef{Secret: "team"}}); err != nil {
				return err
			}
			if _, err := tx.Pools().Put(shoal.Pool{Name: "lab", Provider: "p", Mounts: []shoal.Mount{{Share: "team", Path: "/shared"}},
				Home: shoal.Home{Share: "team", Path: "home/{user}"}}); err != nil {
				return err
			}
			_, err := tx.Machines().Put(shoal.Machine{ID: "m-1", Pool: "lab", Provider: "p", Wanted: shoal.WantRun, State: shoal.MachineReady, Since: time.Now()})
			return err
		})
		show := storetest.Hide(t, path, "users")
		p := &mounting{}
		k := homes.New(homes.Config{Store: db, Providers: map[string]provider.Provider{"p": p}, Runs: func(shoal.Machine) bool { return true }, Log: slog.New(slog.DiscardHandler)})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { _ = k.Run(ctx); close(done) }()
		time.Sleep(5 * time.Second)
		if p.calls.Load() > 0 {
			t.Error("the store could be read")
		}
		show()
		time.Sleep(time.Minute)
		if p.calls.Load() != 1 {
			t.Errorf("asked %d times", p.calls.Load())
		}
		cancel()
		<-done
	})
}
