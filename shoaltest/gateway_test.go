package shoaltest_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/client"
	"github.com/shoal-pool/shoal/internal/providers/fake"
	"github.com/shoal-pool/shoal/shoaltest"
)

// sessions lists the live sessions.
func sessions(t *testing.T, w *shoaltest.World) []shoal.Session {
	t.Helper()
	all, err := w.Host.Sessions(t.Context(), client.SessionQuery{})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// A connection through a gateway of its own outlives the control plane; who has a session comes in again meanwhile, others are told
// why not; and then all is on record as it was, once.
func TestGatewayOutlivesControl(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := world(t, fake.Config{BootTime: 3 * time.Second})
		one, two := w.AddGateway("one"), w.AddGateway("two")
		if r := one.SSH("bob", "who"); r.Code != 0 || !strings.Contains(r.Banner, "waking machine m-") {
			t.Fatalf("from zero: %+v", r)
		}
		long := make(chan shoaltest.Result, 1)
		go func() {
			r, err := one.TrySSH(t.Context(), "alice", "echo here; sleep 300; who")
			if err != nil {
				t.Error(err)
			}
			long <- r
		}()
		w.Until("alice is there", time.Minute, func() bool { s := sessions(t, w); return len(s) > 0 && s[0].User == "alice" })
		before := sessions(t, w)[0]
		if len(before.Parts) != 1 || !strings.HasPrefix(before.Parts[0].ID, "one/ssh-") {
			t.Fatalf("on record is %+v", before)
		}
		w.Until("bob has gone", time.Minute, func() bool { return len(sessions(t, w)) == 1 })
		w.Stop()
		if r := two.SSH("alice", "who"); r.Code != 0 || r.Out != "alice "+string(before.Machine)+"\n" {
			t.Errorf("alice again, through the other gateway: %+v", r)
		}
		if r := two.SSH("bob", "who"); r.Code != 75 || !strings.Contains(r.Err, "the control plane does not answer") || !strings.Contains(r.Err, "try again in a while") {
			t.Errorf("bob, who has no session: %+v", r)
		}
		hold := make(chan shoaltest.Result, 1)
		go func() {
			r, err := two.TrySSH(t.Context(), "alice+lab", "sleep 200; who")
			if err != nil {
				t.Error(err)
			}
			hold <- r
		}()
		time.Sleep(time.Minute)
		w.Start()
		w.Until("both connections are on record", 10*time.Second, func() bool { s := sessions(t, w); return len(s) == 1 && len(s[0].Parts) == 2 })
		after := sessions(t, w)[0]
		if after.ID != before.ID || after.State != shoal.SessionActive || !after.Started.Equal(before.Started) {
			t.Errorf("it was %+v\nand is  %+v", before, after)
		}
		if r := <-long; r.Out != "here\nalice "+string(before.Machine)+"\n" || r.Code != 0 {
			t.Errorf("what was open: %+v", r)
		}
		if r := <-hold; r.Code != 0 {
			t.Errorf("what was opened meanwhile: %+v", r)
		}
		w.Until("the session ends", time.Minute, func() bool { return len(sessions(t, w)) == 0 })
		events, err := w.Host.Sessions(t.Context(), client.SessionQuery{Ended: true, User: "alice"})
		if err != nil || len(events) != 1 {
			t.Errorf("alice had %d sessions, %v", len(events), err)
		}
	})
}

// A gateway that is gone loses its connections after a grace; one that reaches no machine goes through the control plane; one that was removed
// lets nobody in.
func TestGatewayGoneBlindRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := world(t, fake.Config{BootTime: 3 * time.Second})
		g := w.AddGateway("edge")
		g.Blind.Store(true)
		if r := g.SSH("alice", "who"); r.Code != 0 || !strings.HasPrefix(r.Out, "alice m-") {
			t.Errorf("through the control plane: %+v", r)
		}
		all, err := w.Host.Gateways(t.Context())
		if err != nil || len(all) != 1 || all[0].State != "connected" || all[0].Name != "edge" {
			t.Errorf("listed is %+v, %v", all, err)
		}
		if err := w.Host.RemoveGateway(t.Context(), "edge"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if r := g.SSH("alice", "who"); r.Code != 75 || !strings.Contains(r.Err, "gateway edge is not admitted any more") {
			t.Errorf("through a gateway that was removed: %+v", r)
		}
		if _, err := w.Host.AddGateway(t.Context(), api.AddGateway{Name: "edge"}); err != nil {
			t.Error(err)
		}
		g.Stop()
		g.Start()
	})
}
