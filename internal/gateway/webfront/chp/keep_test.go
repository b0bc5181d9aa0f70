package chp_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-pool/shoal/internal/gateway/webfront/chp"
	"github.com/shoal-pool/shoal/internal/gateway/webfront/routes"
)

// TestKept: after a restart a hub's routes are there, with when they were used, but not those of Shoal's own hub.
func TestKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "routes")
	keep := func(table *routes.Table) chp.Keeper {
		return chp.Keeper{Routes: table, Path: path, Log: slog.New(slog.DiscardHandler)}
	}
	synctest.Test(t, func(t *testing.T) {
		table := routes.New()
		keep(table).Load()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- keep(table).Run(ctx) }()
		posted := map[string]json.RawMessage{"target": []byte(`"http://10.0.0.1:80"`), "user": []byte(`"alice"`)}
		for name, guarded := range map[string]bool{"/user/älice": false, "/user/own": true, "/gone": false} {
			if err := table.Put(name, posted, guarded, time.Now()); err != nil {
				t.Fatal(err)
			}
		}
		table.Remove("/gone")
		used := time.Now()
		time.Sleep(time.Second)
		after := func() []*routes.Route {
			again := routes.New()
			keep(again).Load()
			return again.All()
		}
		if all := after(); len(all) != 1 || all[0].Prefix != "/user/älice" || all[0].User != "alice" || all[0].Target.Host != "10.0.0.1:80" || !all[0].LastUsed().Equal(used.Truncate(time.Millisecond)) {
			t.Errorf("kept is %+v", all)
		}
		table.Remove("/user/älice")
		cancel() // at once
		if err := <-done; err != nil {
			t.Error(err)
		}
		if all := after(); len(all) != 0 {
			t.Errorf("after the end there is %+v", all)
		}
		if err := os.WriteFile(path, []byte(`{"/x":`), 0o600); err != nil {
			t.Fatal(err)
		}
		if all := after(); len(all) != 0 {
			t.Errorf("from half a file comes %+v", all)
		}
	})
}
