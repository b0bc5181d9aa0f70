package httpapi_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/agenthub"
	"github.com/shoal-pool/shoal/internal/httpapi"
	"github.com/shoal-pool/shoal/internal/store"
	"github.com/shoal-pool/shoal/internal/store/storetest"
)

// Of a machine that is up it is said when this server heard it last, not what is on record; of others what is on record.
func TestHeard(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	server := start(t, httpapi.New(w.cfg).Control())
	long := time.Now().Add(-8 * time.Minute).UTC().Truncate(time.Second)
	put := func(health shoal.Health) {
		storetest.Update(t, w.db, func(tx *store.Tx) error {
			m, err := tx.Machines().Get("m-1")
			if err != nil {
				return err
			}
			m.Health, m.LastSeen = health, long
			_, err = tx.Machines().Put(m)
			return err
		})
	}
	seen := func() (at [2]time.Time) {
		t.Helper()
		var list api.List[shoal.Machine]
		var one shoal.Machine
		for path, to := range map[string]any{"/api/v1/machines": &list, "/api/v1/machines/m-1": &one} {
			if a := do(t, server, request{method: "GET", path: path, header: bearer(w.tokens["ada"])}); json.Unmarshal([]byte(a.body), to) != nil || a.status != 200 {
				t.Fatalf("%d %s", a.status, a.body)
			}
		}
		return [2]time.Time{list.Items[0].LastSeen, one.LastSeen}
	}
	put(shoal.HealthUp)
	if at := seen(); !at[0].IsZero() || !at[1].IsZero() {
		t.Errorf("not heard yet: %v", at)
	}
	if _, err := w.hub.Report(t.Context(), agenthub.Caller{Machine: "m-1", Epoch: 1}, api.Report{}); err != nil {
		t.Fatal(err)
	}
	if at := seen(); !at[0].After(long) || !at[1].After(long) {
		t.Errorf("heard just now: %v", at)
	}
	put(shoal.HealthUnknown)
	if at := seen(); !at[0].Equal(long) || !at[1].Equal(long) {
		t.Errorf("silent: %v, want %v", at, long)
	}
}
