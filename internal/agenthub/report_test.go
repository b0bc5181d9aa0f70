package agenthub_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/access"
	"github.com/shoal-pool/shoal/internal/store"
)

func TestReport(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.svc.resend = []api.Resend{{Stream: "stdout", Offset: 7}}
		full := api.Report{Boot: &api.BootReport{Ready: true}, Tasks: make([]api.TaskReport, 2), Output: make([]api.Output, 3),
			Activity: &api.Activity{Users: []api.UserActivity{{User: "alice"}}}, Load: &shoal.Load{CPUPercent: 40}}
		if at := w.Answered(m1().Machine); !at.IsZero() {
			t.Errorf("it was answered at %s before it said anything", at)
		}
		answer, err := w.Report(t.Context(), m1(), full)
		if err != nil {
			t.Fatal(err)
		}
		at := w.Answered(m1().Machine)
		if at.IsZero() {
			t.Error("nobody knows that it was answered")
		}
		if diff := cmp.Diff(w.svc.resend, answer.Resend); diff != "" {
			t.Error(diff)
		}
		want := "seen m-1 40%|boot m-1 1 ready=true |report m-1 2 3|activity m-1 1"
		if got := strings.Join(w.svc.take(), "|"); got != want {
			t.Errorf("told %s", got)
		}
		// One part that is refused keeps none of the others from being stored, and the report is not acknowledged.
		w.svc.fail["boot"] = shoal.Errorf(shoal.KindUnavailable, "its address is not known")
		w.svc.fail["activity"] = errors.New("no")
		_, err = w.Report(t.Context(), m1(), full)
		wantKind(t, err, shoal.KindUnavailable)
		if now := w.Answered(m1().Machine); !now.Equal(at) {
			t.Errorf("a report that was refused counts as answered, at %s", now)
		}
		if got := strings.Join(w.svc.take(), "|"); got != want {
			t.Errorf("told %s", got)
		}
		if _, err := w.Report(t.Context(), m1(), api.Report{}); err != nil {
			t.Error(err)
		}
	})
}

func TestReportBounds(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		for name, r := range map[string]api.Report{
			"tasks":  {Tasks: make([]api.TaskReport, 1e6)},
			"output": {Output: make([]api.Output, 1e6)},
			"users":  {Activity: &api.Activity{Users: make([]api.UserActivity, 1e6)}},
			"pins":   {Activity: &api.Activity{Users: []api.UserActivity{{Pins: make([]shoal.Pin, 1e4)}}}},
			"pin":    {Activity: &api.Activity{Users: []api.UserActivity{{Pins: []shoal.Pin{{Kind: strings.Repeat("x", 1000)}}}}}},
		} {
			if _, err := w.Report(t.Context(), m1(), r); shoal.KindOf(err) != shoal.KindInvalid {
				t.Errorf("%s: %v", name, err)
			}
		}
		if told := w.svc.take(); told != nil {
			t.Errorf("told %v", told)
		}
		if _, err := w.Report(t.Context(), m1(), api.Report{Boot: &api.BootReport{Error: strings.Repeat("é", 1e6)}}); err != nil {
			t.Fatal(err)
		}
		if told := strings.Join(w.svc.take(), ""); len(told) > 3000 {
			t.Errorf("an error of %d bytes was handed on", len(told))
		}
	})
}

// TestRelay: a machine speaks for who is there, and nobody more than as a member.
func TestRelay(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		refused := func(user shoal.UserName, machine shoal.MachineID) {
			t.Helper()
			_, err := w.Relay(t.Context(), machine, user)
			wantKind(t, err, shoal.KindDenied)
		}
		refused("alice", "m-1")
		refused("", "m-1")
		refused("nobody", "m-1")
		w.update(func(tx *store.Tx) error {
			return errors.Join(
				put(tx.Sessions().Put, shoal.Session{ID: "s-1", User: "alice", Pool: "lab", Machine: "m-1", State: shoal.SessionDisconnected}),
				tx.PutAttempt(shoal.Attempt{AttemptRef: shoal.AttemptRef{TaskRef: shoal.TaskRef{Job: "1"}, Attempt: 1}, User: "bob", Machine: "m-1", State: shoal.JobRunning}))
		})
		by, err := w.Relay(t.Context(), "m-1", "alice")
		if err != nil || by.Rights() != shoal.RoleMember || by.Machine != "m-1" || len(by.Groups) != 1 {
			t.Errorf("%+v, %v", by, err)
		}
		if access.Check(by, access.Drain, access.Object{Kind: shoal.ObjectMachine, Name: "m-1"}) == nil {
			t.Error("an admin is one through a machine, too")
		}
		if by, err := w.Relay(t.Context(), "m-1", "bob"); err != nil || by.User != "bob" {
			t.Errorf("%+v, %v", by, err)
		}
		refused("alice", "m-2")
		w.update(func(tx *store.Tx) error { // only the machine itself says that she is there
			return put(tx.Sessions().Put, shoal.Session{ID: "s-1", User: "alice", Pool: "lab", Machine: "m-1", State: shoal.SessionDisconnected, Found: true})
		})
		refused("alice", "m-1")
		w.update(func(tx *store.Tx) error {
			return errors.Join(
				put(tx.Sessions().Put, shoal.Session{ID: "s-1", User: "alice", Pool: "lab", Machine: "m-1", State: shoal.SessionEnded}),
				put(tx.Users().Put, shoal.User{Name: "bob", UID: 20002, Disabled: true}))
		})
		refused("alice", "m-1")
		refused("bob", "m-1")
	})
}
