package batch_test

import (
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/store/storetest"
)

// The server is ended at each thing it tells an agent, which it does after it stored it: what was
// to be told then or later is lost, and all comes right when it is started again.
func TestCrashAtEachStep(t *testing.T) {
	for _, told := range []bool{false, true} { // the last word still got through, or not
		for step := 1; ; step++ {
			crashed := false
			name := fmt.Sprintf("step=%d,told=%v", step, told)
			t.Run(name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t, storetest.Open(t), t.TempDir(), shoal.Pool{})
					crashed = crash(w, step, told)
				})
			})
			if !crashed {
				if step < 12 {
					t.Errorf("only %d steps", step)
				}
				break
			}
		}
	}
}

func crash(w *world, step int, told bool) bool {
	out := func(r shoal.AttemptRef) string { return "output of " + r.String() }
	w.play = func(o api.TaskOrder) script {
		s := script{takes: 3 * time.Second, out: out(o.Ref)}
		if o.Ref.Index == 2 && o.Ref.Attempt == 1 {
			s.exit = 1
		}
		return s
	}
	w.machine("m-1")
	w.machine("m-2")
	var n atomic.Int64
	down := make(chan struct{})
	w.mu.Lock()
	w.sending = func(id shoal.MachineID, r api.Record) bool {
		switch k := n.Add(1); {
		case k < int64(step):
			return w.deliver(id, r)
		case k == int64(step):
			close(down)
			return told && w.deliver(id, r)
		}
		return false
	}
	w.mu.Unlock()
	j := w.submit(shoal.JobSpec{Array: "1-5", Retries: 1})
	gone := w.submit(shoal.JobSpec{Array: "1-3"})
	after := w.submit(shoal.JobSpec{After: []shoal.Dependency{{Job: string(j.ID)}}})
	first, ctx := w.Batch, w.ctx // those that the server began with: a restart makes others
	go func() {
		time.Sleep(5 * time.Second)
		_, _ = first.Cancel(ctx, alice, gone.ID)
	}()
	crashed := true
	select {
	case <-down:
		w.mu.Lock()
		w.sending = nil
		w.mu.Unlock()
		w.restart(time.Second)
		time.Sleep(5 * time.Second)
		if _, err := w.Cancel(w.ctx, alice, gone.ID); err != nil {
			w.t.Error(err)
		}
	case <-time.After(time.Hour):
		crashed = false
	}
	for _, id := range []shoal.JobID{j.ID, gone.ID, after.ID} {
		end := w.ended(id)
		if want := (id == gone.ID); (end.Job.State == shoal.JobCancelled) != want || !want && end.Job.State != shoal.JobSucceeded {
			w.t.Errorf("job %s ended as %+v", id, end.Job)
		}
		check(w, end.Job, out)
	}
	for _, a := range w.agents {
		for r, n := range a.starts {
			if n != 1 {
				w.t.Errorf("%s was started %d times on %s", r, n, a.id)
			}
		}
	}
	return crashed
}
