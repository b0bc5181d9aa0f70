package batch_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
)

// Jobs that wait for each other in all ways, task by task and as a whole, with failures, retries, tasks and
// jobs that are cancelled, machines that die and a server that is started anew: everything ends, what is
// counted is what is on record, and no task begins before what it waits for has ended.
func TestChaosOfDependencies(t *testing.T) {
	for seed := range uint64(scaled(4, 300)) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			bubble(t, shoal.Pool{}, func(w *world) { dependencies(w, rand.New(rand.NewPCG(seed, 23))) })
		})
	}
}

func dependencies(w *world, rnd *rand.Rand) {
	t := w.t
	w.play = func(o api.TaskOrder) script {
		s := script{takes: time.Duration(1+(o.Ref.Index*5+o.Ref.Attempt)%7) * 3 * time.Second}
		if (o.Ref.Index+len(o.Ref.Job)+o.Ref.Attempt)%5 == 0 {
			s.exit = 1
		}
		return s
	}
	machines := 0
	add := func() { machines++; w.machine(shoal.MachineID(fmt.Sprintf("m-%d", machines))) }
	for range 4 {
		add()
	}
	conditions := []shoal.Condition{"", shoal.AfterAny, shoal.AfterFailed}
	var jobs []shoal.JobID
	touched := map[shoal.JobID]bool{} // somebody interfered: the order of starts is not checked
	pick := func() shoal.JobID { return jobs[rnd.IntN(len(jobs))] }
	submit := func() {
		s := shoal.JobSpec{Command: "true", Array: fmt.Sprintf("0-%d", rnd.IntN(12)), Retries: rnd.IntN(2), MaxFails: rnd.IntN(3) * 3, MaxRunning: rnd.IntN(3)}
		if rnd.IntN(3) == 0 {
			s.Command, s.Array = "", ""
			for i := range 2 + rnd.IntN(5) {
				task := shoal.TaskSpec{Name: fmt.Sprintf("t%d", i), Command: "true"}
				for k := range i {
					if rnd.IntN(3) == 0 {
						task.After = append(task.After, fmt.Sprintf("t%d", k))
					}
				}
				s.Tasks = append(s.Tasks, task)
			}
		}
		for range rnd.IntN(3) {
			if len(jobs) == 0 {
				break
			}
			d := shoal.Dependency{Job: string(pick()), Condition: conditions[rnd.IntN(3)]}
			if rnd.IntN(3) > 0 {
				d.Task = shoal.Corresponding
			}
			s.After = append(s.After, d)
		}
		j, err := w.Submit(w.ctx, alice, s, "")
		if err != nil && shoal.KindOf(err) != shoal.KindConflict {
			t.Fatal(err, shoal.MistakesOf(err))
		}
		if err == nil {
			jobs = append(jobs, j.ID)
		}
	}
	submit()
	for range 60 {
		switch rnd.IntN(10) {
		case 0, 1, 2:
			submit()
		case 3:
			w.restart(time.Duration(rnd.IntN(3000)) * time.Millisecond)
		case 4:
			id := shoal.MachineID(fmt.Sprintf("m-%d", 1+rnd.IntN(machines)))
			w.agents[id].die()
			w.put(id, state(shoal.MachineFailed))
			add()
		case 5, 6:
			id := pick()
			if _, err := w.Retry(w.ctx, alice, id, api.RetryRequest{}); err == nil {
				touched[id] = true
			} else if shoal.KindOf(err) != shoal.KindConflict {
				t.Fatal(err)
			}
		case 7:
			id := pick()
			if _, err := w.CancelTasks(w.ctx, alice, id, fmt.Sprint(rnd.IntN(8))); err == nil {
				touched[id] = true
			} else if shoal.KindOf(err) != shoal.KindNotFound {
				t.Fatal(err)
			}
		case 8:
			if rnd.IntN(3) == 0 {
				id := pick()
				if _, err := w.Cancel(w.ctx, alice, id); err != nil {
					t.Fatal(err)
				}
				touched[id] = true
			}
		}
		time.Sleep(time.Duration(rnd.IntN(9000)) * time.Millisecond)
	}
	for _, id := range jobs {
		end := w.ended(id).Job
		tasks, err := w.Tasks(w.ctx, alice, id, 0, 0)
		if err != nil {
			t.Fatal(err)
		}
		var counts shoal.Counts
		for _, a := range tasks {
			counts.Add(a.State, 1)
		}
		if counts != end.Counts || !end.State.Ended() || counts.Outcome() != end.State {
			t.Errorf("job %s %s counts %+v, its tasks are %+v", id, end.State, end.Counts, counts)
		}
		if !touched[id] {
			ordered(w, end, touched)
		}
	}
}

// ordered checks that no task of a job began before what it waited for had ended.
func ordered(w *world, j shoal.Job, touched map[shoal.JobID]bool) {
	place := map[string]int{}
	for i, task := range j.Spec.Tasks {
		place[task.Name] = i
	}
	tasks, err := w.Tasks(w.ctx, alice, j.ID, 0, 0)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, a := range tasks {
		first := w.history(j.ID, a.Index)
		if len(first) == 0 || first[0].Placed.IsZero() {
			continue
		}
		before := func(what string, ended time.Time) {
			if ended.IsZero() || first[0].Placed.Before(ended) {
				w.t.Errorf("%s was placed at %v, before %s ended at %v", a.TaskRef, first[0].Placed, what, ended)
			}
		}
		if a.Index < len(j.Spec.Tasks) {
			for _, name := range j.Spec.Tasks[a.Index].After {
				h := w.history(j.ID, place[name])
				if last := h[len(h)-1]; last.State != shoal.JobSucceeded {
					w.t.Errorf("%s ran after %s, which %s", a.TaskRef, name, last.State)
				} else {
					before(name, last.Ended)
				}
			}
		}
		for _, d := range j.Spec.After {
			dep := shoal.JobID(d.Job)
			if touched[dep] {
				continue
			}
			if d.Task == "" {
				before("job "+d.Job, w.job(dep).Ended)
			} else if h := w.history(dep, a.Index); len(h) > 0 {
				if last := h[len(h)-1]; !d.Met(last.State) {
					w.t.Errorf("%s ran after %s of %s, which %s", a.TaskRef, last.TaskRef, d, last.State)
				} else {
					before(last.TaskRef.String(), last.Ended)
				}
			}
		}
	}
}
