package batch_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/batch/fence"
	"github.com/shoal-pool/shoal/internal/store"
	"github.com/shoal-pool/shoal/internal/store/storetest"
)

// machines makes so many machines.
func (s *sim) machines(n int) {
	for i := range n {
		s.add(shoal.MachineID(fmt.Sprintf("m-%d", i+1)))
	}
}

func (s *sim) events(code string) []string { return s.w.told(code) }

// told are the sentences of all events of a kind.
func (w *world) told(code string) (all []string) {
	storetest.View(w.t, w.db, func(tx *store.Tx) error {
		events, err := tx.Events(0, 0)
		for _, e := range events {
			if e.Code == code {
				all = append(all, e.Sentence)
			}
		}
		return err
	})
	return all
}

// The nodes of a gang get ready, begin and end together; the ranks and what they know of each other are right.
func TestGang(t *testing.T) {
	simulate(t, 1, func(s *sim) {
		orders := map[int]api.TaskOrder{}
		s.took = func(o api.TaskOrder) (time.Duration, int) { orders[o.Rank] = o; return time.Hour, 0 }
		s.machines(4)
		s.cutOff("m-3", true, false)
		j := s.w.submit(shoal.JobSpec{Nodes: shoal.Fixed(4)})
		settle(time.Minute)
		if got := s.w.job(j.ID); got.State != shoal.JobStarting || s.begun != 0 {
			t.Errorf("with a node cut off, %d begun: %+v", s.begun, got)
		}
		s.cutOff("m-3", false, false)
		settle(30 * time.Second)
		a := s.w.history(j.ID, 0)
		if s.begun != 4 || s.w.job(j.ID).State != shoal.JobRunning || len(a) != 1 || len(a[0].Members) != 4 || a[0].Machine != a[0].Members[0].Machine {
			t.Errorf("%d begun: %+v", s.begun, a)
		}
		s.restart(time.Second)
		if end := s.w.ended(j.ID); end.Job.State != shoal.JobSucceeded || s.begun != 4 {
			t.Errorf("ended %+v with %d begun", end, s.begun)
		}
		for rank, o := range orders {
			if o.Env["SHOAL_NODE_RANK"] != fmt.Sprint(rank) || o.SSH == nil || o.SSH.Key != orders[0].SSH.Key && o.SSH.Authorized != orders[0].SSH.Authorized || len(o.SSH.Nodes) != 4 {
				t.Errorf("rank %d: %+v", rank, o)
			}
		}
	})
}

// A node that does not get ready in time ends the attempt with a reason, and the next one begins elsewhere.
func TestGangDeadline(t *testing.T) {
	simulate(t, 1, func(s *sim) {
		s.machines(2)
		s.cutOff("m-2", true, false)
		j := s.w.submit(shoal.JobSpec{Nodes: shoal.Fixed(2)})
		settle(time.Minute)
		s.add("m-3")
		settle(90 * time.Second) // the deadline is over; that m-2 never began is known when it says so, or its lease is over
		if why := s.w.history(j.ID, 0)[0]; why.Reason != "1 of its 2 nodes were not ready to begin within 2m: m-2" || why.State != shoal.JobStarting {
			t.Errorf("attempt %+v", why)
		}
		s.w.put("m-2", func(m *shoal.Machine) { m.Health = shoal.HealthDown })
		end := s.w.ended(j.ID)
		a := s.w.history(j.ID, 0)
		if end.Job.State != shoal.JobSucceeded || len(a) != 2 || a[0].State != shoal.JobLost || a[1].Placed.Sub(a[0].Placed) > fence.Default().Over()+3*time.Minute || s.begun != 2 {
			t.Errorf("ended %+v with %d begun: %+v", end, s.begun, a)
		}
	})
}

// One rank that fails ends all; a head decides for all, and those that keep places end with it.
func TestGangEnds(t *testing.T) {
	simulate(t, 1, func(s *sim) {
		s.took = func(o api.TaskOrder) (time.Duration, int) {
			if o.Rank == 1 && o.Ref.Job == "1" {
				return time.Minute, 7
			}
			return time.Hour, 0
		}
		s.machines(3)
		j := s.w.submit(shoal.JobSpec{Nodes: shoal.Fixed(3)})
		end := s.w.ended(j.ID)
		a := s.w.history(j.ID, 0)[0]
		if end.Job.State != shoal.JobFailed || end.ExitCode != 7 || time.Since(end.Job.Started) > 2*time.Minute || !strings.HasPrefix(a.Reason, "node 1 on "+string(a.Members[1].Machine)+": it exited with 7") ||
			a.Members[0].State != shoal.JobLost && a.Members[0].State != shoal.JobCancelled {
			t.Errorf("ended %+v: %+v", end, a)
		}
		j = s.w.submit(shoal.JobSpec{Nodes: shoal.Fixed(3), Launcher: "head"})
		if end := s.w.ended(j.ID); end.Job.State != shoal.JobSucceeded || s.begun != 4 {
			t.Errorf("ended %+v with %d begun", end, s.begun)
		}
		j = s.w.submit(shoal.JobSpec{Nodes: shoal.Fixed(2)})
		settle(time.Minute)
		if _, err := s.w.Cancel(s.w.ctx, alice, j.ID); err != nil {
			t.Fatal(err)
		}
		if end := s.w.ended(j.ID); end.Job.State != shoal.JobCancelled || time.Since(end.Job.Started) > 3*time.Minute {
			t.Errorf("ended %+v", end)
		}
	})
}

// A gang that loses a node restarts whole, on the places that were kept for it, before others that wait;
// one that goes on without does.
func TestGangNodeLoss(t *testing.T) {
	simulate(t, 1, func(s *sim) {
		s.took = func(o api.TaskOrder) (time.Duration, int) { return 30 * time.Minute, 0 }
		s.machines(3)
		j := s.w.submit(shoal.JobSpec{Nodes: shoal.Fixed(3)})
		settle(time.Minute)
		other := s.w.submit(shoal.JobSpec{Array: "1-3"})
		s.die("m-2")
		settle(2 * time.Minute)
		if got := s.w.job(other.ID); got.State != shoal.JobQueued {
			t.Errorf("the places were not kept: %+v", got)
		}
		s.add("m-4")
		settle(2 * time.Minute)
		if a := s.w.history(j.ID, 0); len(a) != 2 || a[0].State != shoal.JobLost || a[1].State != shoal.JobRunning || !strings.Contains(a[0].Reason, "its machine m-2 failed") && !strings.Contains(a[0].Reason, "its machine m-2 is failed") {
			t.Errorf("attempts %+v", a)
		}
		s.w.ended(j.ID)
		s.w.ended(other.ID)
		j = s.w.submit(shoal.JobSpec{Nodes: shoal.Fixed(3), OnNodeLoss: "continue"})
		settle(time.Minute)
		s.die(s.w.history(j.ID, 0)[0].Members[2].Machine)
		if end := s.w.ended(j.ID); end.Job.State != shoal.JobSucceeded || len(s.w.history(j.ID, 0)) != 1 {
			t.Errorf("ended %+v", end)
		}
	})
}

// Places that are kept for a gang are not kept for ever.
func TestRefillEnds(t *testing.T) {
	simulate(t, 1, func(s *sim) {
		s.machines(2)
		s.took = func(o api.TaskOrder) (time.Duration, int) { return 30 * time.Minute, 0 }
		j := s.w.submit(shoal.JobSpec{Nodes: shoal.Fixed(2)})
		settle(time.Minute)
		other := s.w.submit(shoal.JobSpec{TimeLimit: shoal.Duration(time.Hour)})
		s.die("m-2")
		settle(9 * time.Minute)
		if got := s.w.job(other.ID); got.State != shoal.JobQueued {
			t.Errorf("the place was not kept: %+v", got)
		}
		settle(3 * time.Minute)
		if got := s.w.job(other.ID); got.State != shoal.JobRunning || s.w.job(j.ID).Counts.Queued != 1 {
			t.Errorf("the place is still kept: %+v", got)
		}
	})
}

// When most machines fall silent together nothing is taken for lost, and people are told.
func TestMassDisconnect(t *testing.T) {
	simulate(t, 1, func(s *sim) {
		s.took = func(o api.TaskOrder) (time.Duration, int) { return 10 * time.Hour, 0 }
		s.machines(6)
		j := s.w.submit(shoal.JobSpec{Array: "1-6"})
		settle(time.Minute)
		for _, id := range []shoal.MachineID{"m-1", "m-2", "m-3"} {
			s.cutOff(id, true, false)
		}
		settle(30 * time.Minute)
		if got := s.w.job(j.ID); got.Counts.Running != 6 || len(s.events("lossesFrozen")) != 1 {
			t.Errorf("frozen: %+v, %v", got, s.events("lossesFrozen"))
		}
		s.cutOff("m-1", false, false)
		s.cutOff("m-2", false, false)
		settle(30 * time.Minute)
		if got := s.w.history(j.ID, 3); len(s.events("lossesThawed")) != 1 || s.w.job(j.ID).State != shoal.JobRunning {
			t.Errorf("thawed: %+v", got)
		}
	})
}

// What may run twice starts elsewhere as soon as its machine is down; whichever is done first counts.
func TestIdempotent(t *testing.T) {
	simulate(t, 1, func(s *sim) {
		s.took = func(o api.TaskOrder) (time.Duration, int) { return 20 * time.Minute, 0 }
		s.machines(1)
		j := s.w.submit(shoal.JobSpec{Idempotent: true})
		settle(time.Minute)
		s.cutOff("m-1", true, false)
		settle(time.Minute)
		s.w.put("m-1", func(m *shoal.Machine) { m.Health = shoal.HealthDown })
		s.add("m-2")
		settle(10 * time.Minute)
		if a := s.w.history(j.ID, 0); len(a) != 2 || a[1].Machine != "m-2" || a[1].State != shoal.JobRunning {
			t.Fatalf("attempts %+v", a)
		}
		settle(10 * time.Minute)
		s.cutOff("m-1", false, false) // it has ended meanwhile
		end := s.w.ended(j.ID)
		a := s.w.history(j.ID, 0)
		if end.Job.State != shoal.JobSucceeded || end.Job.Ended.Sub(end.Job.Started) > 25*time.Minute || a[0].State != shoal.JobSucceeded || a[1].Reason != "attempt 1 on m-1 was done first" {
			t.Errorf("ended %+v after %+v", end.Job, a)
		}
	})
}

// A login that needs its seat has the youngest task go, at once and whatever its run time; the task waits
// again, knows that it was started before, and is not counted as failed.
func TestLoginPreempts(t *testing.T) {
	pool := shoal.Pool{Uses: []shoal.Use{shoal.UseInteractive, shoal.UseBatch}, Size: shoal.Size{Max: 20}, Seats: 1, Seat: shoal.Resources{CPUs: 500, Memory: 256 << 20}}
	simulateIn(t, 1, pool, func(s *sim) {
		counts := map[string]bool{}
		s.took = func(o api.TaskOrder) (time.Duration, int) {
			counts[o.Env["SHOAL_RESTART_COUNT"]] = true
			return time.Hour, 0
		}
		s.machines(1)
		j := s.w.submit(shoal.JobSpec{})
		settle(10 * time.Second)
		if got := s.w.job(j.ID); got.State != shoal.JobRunning {
			t.Fatalf("it did not borrow: %+v", got)
		}
		session := shoal.Session{ID: "s-1", User: "bob", Pool: "lab", Machine: "m-1", State: shoal.SessionActive}
		put := func() {
			storetest.Update(t, s.w.db, func(tx *store.Tx) error { _, err := tx.Sessions().Put(session); return err })
		}
		put()
		settle(15 * time.Second)
		a := s.w.history(j.ID, 0)
		if len(a) != 1 || a[0].State != shoal.JobPreempted || a[0].Cause != shoal.CausePreempted || s.w.job(j.ID).State != shoal.JobQueued {
			t.Errorf("after the login: %+v", a)
		}
		if why, err := s.w.WhyJob(s.w.ctx, alice, j.ID); err != nil || !strings.Contains(why.Sentence, "logged in") {
			t.Errorf("why: %+v, %v", why, err)
		}
		session.State = shoal.SessionEnded
		put()
		end := s.w.ended(j.ID)
		if a = s.w.history(j.ID, 0); end.Job.State != shoal.JobSucceeded || len(a) != 2 || a[1].Failures != 0 || !counts["1"] {
			t.Errorf("ended %+v after %+v", end, a)
		}
	})
}

// A user may have only so many jobs that have not ended.
func TestJobLimit(t *testing.T) {
	bubble(t, shoal.Pool{Limits: shoal.Limits{PerUser: shoal.PerUser{Jobs: 2}}}, func(w *world) {
		w.machine("m-1")
		w.submit(shoal.JobSpec{Array: "1-5"})
		last := w.submit(shoal.JobSpec{})
		_, err := w.Submit(w.ctx, alice, shoal.JobSpec{Command: "true"}, "")
		kind(t, err, shoal.KindExhausted)
		w.restart(time.Second)
		_, err = w.Submit(w.ctx, alice, shoal.JobSpec{Command: "true"}, "")
		kind(t, err, shoal.KindExhausted)
		if _, err := w.Submit(w.ctx, bob, shoal.JobSpec{Command: "true"}, ""); err != nil {
			t.Errorf("another user: %v", err)
		}
		w.ended(last.ID)
		w.submit(shoal.JobSpec{})
	})
}
