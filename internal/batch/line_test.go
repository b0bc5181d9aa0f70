package batch_test

import (
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
)

// lines runs an array of 200 tasks of 5 ms on two machines that hold one at a time, and returns the job when it is over.
func lines(w *world, takes func(api.TaskOrder) time.Duration, meanwhile func(shoal.JobID)) (shoal.Job, [2]*agent) {
	w.play = func(o api.TaskOrder) script { return script{takes: takes(o), out: "out"} }
	agents := [2]*agent{w.machine("m-1"), w.machine("m-2")}
	for _, a := range agents {
		a.mu.Lock()
		a.slow = true
		a.mu.Unlock()
	}
	j := w.submit(shoal.JobSpec{Array: "1-200", Resources: shoal.Resources{CPUs: 1000, Memory: 64 << 20}})
	if meanwhile != nil {
		meanwhile(j.ID)
	}
	end := w.ended(j.ID).Job
	for _, a := range agents {
		if a.most != 1 {
			w.t.Errorf("%d tasks ran at once on %s, which holds one", a.most, a.id)
		}
	}
	return end, agents
}

// lined is how many orders an agent got that come after others.
func lined(a *agent) (n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, r := range a.records {
		if r.Run != nil && r.Run.After != nil {
			n++
		}
	}
	return n
}

func brief(api.TaskOrder) time.Duration { return 5 * time.Millisecond }

func TestBriefTasksComeInLines(t *testing.T) {
	bubble(t, shoal.Pool{}, func(w *world) {
		end, agents := lines(w, brief, nil)
		if end.State != shoal.JobSucceeded || agents[0].started()+agents[1].started() != 200 {
			t.Errorf("%s %+v, %d and %d started", end.State, end.Counts, agents[0].started(), agents[1].started())
		}
		if n := lined(agents[0]) + lined(agents[1]); n < 100 {
			t.Errorf("%d of 200 came behind others, want most", n)
		}
		for i := 1; i <= 200; i++ {
			if h := w.history(end.ID, i); len(h) != 1 || h[0].Behind != nil || w.output(end.ID, i, false) != "out" {
				t.Errorf("task %d: %+v", i, h)
			}
		}
	})
}

// TestLongTaskGivesUpItsLine has what waits behind a task that takes long run elsewhere, whatever happens meanwhile: all of it, and nothing else.
func TestLongTaskGivesUpItsLine(t *testing.T) {
	for name, fault := range map[string]func(w *world, on *agent, next shoal.AttemptRef){
		"undisturbed": func(*world, *agent, shoal.AttemptRef) {},
		"restart":     func(w *world, _ *agent, _ shoal.AttemptRef) { w.restart(10 * time.Second) },
		"the word is lost": func(w *world, on *agent, _ shoal.AttemptRef) {
			w.lose(on.id, func(r api.Record) bool { return r.Stop != nil && r.Stop.Waiting })
		},
		"the next is cancelled": func(w *world, _ *agent, next shoal.AttemptRef) {
			if _, err := w.CancelTasks(w.ctx, alice, next.Job, strconv.Itoa(next.Index)); err != nil {
				w.t.Error(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, shoal.Pool{}, func(w *world) { longInLine(w, fault) })
		})
	}
}

func longInLine(w *world, fault func(w *world, on *agent, next shoal.AttemptRef)) {
	var long atomic.Int64 // the index of the first that comes behind another
	takes := func(o api.TaskOrder) time.Duration {
		if o.After != nil && long.CompareAndSwap(0, int64(o.Ref.Index)) || long.Load() == int64(o.Ref.Index) {
			return time.Hour
		}
		return brief(o)
	}
	want := map[int]bool{} // those called back
	began := time.Now()
	end, _ := lines(w, takes, func(id shoal.JobID) {
		on, ref := begun(w, &long)
		line := behind(on, ref)
		for _, r := range line {
			want[r.Index] = true
		}
		fault(w, on, line[0])
		time.Sleep(time.Minute)
		c := w.job(id).Counts
		if c.Cancelled == 1 {
			delete(want, line[0].Index)
		}
		if c.Succeeded != 199-c.Cancelled || c.Running != 1 {
			w.t.Errorf("after a minute %+v", c)
		}
	})
	if over := time.Since(began); !end.State.Ended() || over > 62*time.Minute {
		w.t.Errorf("%s after %s", end.State, over)
	}
	for i := 1; i <= 200; i++ {
		h := w.history(end.ID, i)
		if again := len(h) > 1; again != want[i] || again && (h[0].State != shoal.JobPreempted || !h[0].Started.IsZero()) {
			w.t.Errorf("task %d is behind the long one: %t; %+v", i, want[i], h)
		}
	}
	if w.told("tasksPreempted") != nil {
		w.t.Error("people are told that tasks had to go")
	}
}

// begun waits until the task has begun that takes long, and returns where.
func begun(w *world, long *atomic.Int64) (*agent, shoal.AttemptRef) {
	for ; ; time.Sleep(time.Millisecond) {
		for _, a := range w.agents {
			a.mu.Lock()
			for ref, t := range a.tasks {
				if ref.Index == int(long.Load()) && !t.begun.IsZero() {
					a.mu.Unlock()
					return a, ref
				}
			}
			a.mu.Unlock()
		}
	}
}

// behind are the attempts that an agent was told to begin after another, in order.
func behind(a *agent, ref shoal.AttemptRef) (all []shoal.AttemptRef) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, r := range a.records {
		if r.Run != nil && r.Run.After != nil && *r.Run.After == ref {
			ref = r.Run.Ref
			all = append(all, ref)
		}
	}
	return all
}

// lose has a machine's stream break before a record, which is lost with all behind it, and come again a second later.
func (w *world) lose(id shoal.MachineID, before func(api.Record) bool) {
	broken := make(chan struct{})
	w.sendBy(func(to shoal.MachineID, r api.Record) bool {
		if to != id || !before(r) {
			return w.deliver(to, r)
		}
		w.sendBy(func(to shoal.MachineID, r api.Record) bool { return to != id && w.deliver(to, r) })
		close(broken)
		return false
	})
	<-broken
	on := w.agents[id]
	on.disconnect()
	time.Sleep(time.Second)
	w.sendBy(nil)
	on.connect(w.ctx, w.Batch)
}

// TestLineIsToldAgain has a machine lose the orders of a line: it gets them again, as a line.
func TestLineIsToldAgain(t *testing.T) {
	bubble(t, shoal.Pool{}, func(w *world) {
		end, agents := lines(w, brief, func(shoal.JobID) {
			w.lose("m-1", func(r api.Record) bool { return r.Run != nil && r.Run.After != nil })
		})
		if end.State != shoal.JobSucceeded || agents[0].started()+agents[1].started() != 200 {
			t.Errorf("%s %+v, %d and %d started", end.State, end.Counts, agents[0].started(), agents[1].started())
		}
	})
}

func TestLinesAndFaults(t *testing.T) {
	for name, fault := range map[string]func(*world, shoal.JobID){
		"restart": func(w *world, _ shoal.JobID) { w.restart(10 * time.Second) },
		"cancel": func(w *world, id shoal.JobID) {
			if _, err := w.Cancel(w.ctx, alice, id); err != nil {
				w.t.Error(err)
			}
		},
		"a dead machine": func(w *world, _ shoal.JobID) {
			w.agents["m-1"].die()
			w.put("m-1", state(shoal.MachineGone))
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, shoal.Pool{}, func(w *world) {
				end, _ := lines(w, brief, func(id shoal.JobID) {
					for lined(w.agents["m-1"]) == 0 {
						time.Sleep(time.Millisecond)
					}
					fault(w, id)
				})
				if want := map[bool]shoal.JobState{true: shoal.JobCancelled, false: shoal.JobSucceeded}[name == "cancel"]; end.State != want {
					t.Errorf("%s %+v", end.State, end.Counts)
				}
				if c := end.Counts; c.Total() != 200 || !slices.Contains([]int{c.Succeeded, c.Succeeded + c.Cancelled}, 200) {
					t.Errorf("%+v", c)
				}
			})
		})
	}
}
