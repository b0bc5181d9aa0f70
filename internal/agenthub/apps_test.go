package agenthub_test

import (
	"context"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/store"
)

// webApps stands for the service of web apps.
type webApps struct {
	*services
	list []api.AppOrder
	told []api.AppReport
}

func (a *webApps) Orders(context.Context, shoal.MachineID) ([]api.AppOrder, error) {
	return a.list, nil
}

func (a *webApps) Report(_ context.Context, id shoal.MachineID, r []api.AppReport) error {
	a.told = r
	return a.tell("apps %s %d", id, len(r))
}

// A snapshot holds the apps of the machine, and from where the gateway comes; what comes later is sent after the account
// of whose it is.
func TestAppOrders(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.apps = &webApps{services: w.svc, list: []api.AppOrder{{ID: "a-1", User: "alice", Command: "true"}}}
		w.begin()
		s := w.stream(m1())
		got := w.snapshot(s)
		if diff := cmp.Diff([]api.AppOrder{{ID: "a-1", User: "alice", Command: "true"}}, got.Apps); diff != "" || len(got.Doors) != 1 || got.Doors[0] != "192.0.2.1" {
			t.Errorf("doors %v, apps %s", got.Doors, diff)
		}
		if !w.Send("m-1", api.Record{App: &api.AppOrder{ID: "a-2", User: "bob"}}) {
			t.Error("it is not sent")
		}
		if r := s.next(); r.App == nil || r.App.ID != "a-2" {
			t.Errorf("%+v", r)
		}
		w.update(func(tx *store.Tx) error { return put(tx.Users().Put, shoal.User{Name: "carol", UID: 20003}) })
		w.Send("m-1", api.Record{App: &api.AppOrder{ID: "a-3", User: "carol"}}) // whose account is not there yet
		if r := s.next(); r.App != nil {
			t.Errorf("before her account comes %+v", r)
		}
	})
}

// What an agent says of apps is handed on, cut to what people read; what no agent says is refused.
func TestAppReports(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a := &webApps{services: w.svc}
		w.apps = a
		w.begin()
		report := api.AppReport{ID: "a-1", State: shoal.AppFailed, Reason: strings.Repeat("x", 10_000), Log: strings.Repeat("y", 1<<20) + "\xff"}
		if _, err := w.Report(t.Context(), m1(), api.Report{Apps: []api.AppReport{report}}); err != nil {
			t.Fatal(err)
		}
		if got := a.told[0]; len(got.Reason) > 3000 || len(got.Log) > 70_000 || !strings.HasSuffix(got.Log, "y?") {
			t.Errorf("%d bytes of reason, %d of output", len(got.Reason), len(got.Log))
		}
		for _, bad := range []api.Report{
			{Apps: []api.AppReport{{ID: "a-1", Port: 70_000}}}, {Apps: []api.AppReport{{ID: "a-1", Port: -1}}},
			{Apps: []api.AppReport{{ID: shoal.AppID(strings.Repeat("x", 100))}}}, {Apps: make([]api.AppReport, 20_000)},
		} {
			_, err := w.Report(t.Context(), m1(), bad)
			wantKind(t, err, shoal.KindInvalid)
		}
	})
}
