package shoaltest_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/providers/fake"
)

// A job of two nodes has two machines made for it, begins on both together, and starts anew as a whole when
// one of them vanishes, also while the server is started anew.
func TestGangFromZero(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := world(t, fake.Config{})
		alice := w.As("alice")
		job, err := alice.Submit(t.Context(), shoal.JobSpec{Pool: "lab", Command: "sleep 300; who", Nodes: shoal.Fixed(2), Resources: shoal.Resources{CPUs: 500, Memory: 256 << 20}}, "")
		if err != nil {
			t.Fatal(err)
		}
		task := func() shoal.Attempt {
			list, err := alice.Tasks(t.Context(), job.ID, 0, 0)
			if err != nil || len(list) != 1 {
				t.Fatalf("%+v, %v", list, err)
			}
			return list[0]
		}
		w.Until("it runs", 2*time.Minute, func() bool { return task().State == shoal.JobRunning })
		first := task()
		if len(first.Members) != 2 || first.Members[0].Machine == first.Members[1].Machine {
			t.Errorf("%+v", first)
		}
		w.Restart()
		w.Provider.Vanish(first.Members[1].Machine)
		w.Until("it starts anew", 10*time.Minute, func() bool { a := task(); return a.Attempt == 2 && a.State == shoal.JobRunning })
		got, err := alice.WaitJob(t.Context(), job.ID)
		last := task()
		if err != nil || got.Job.State != shoal.JobSucceeded || last.Attempt != 2 || len(last.Members) != 2 || last.Failures != 0 {
			t.Fatalf("%+v, %+v, %v", got.Job, last, err)
		}
		if out := w.Output(alice, shoal.TaskRef{Job: job.ID}); !strings.HasSuffix(out, "alice "+string(last.Members[0].Machine)+"\n") {
			t.Errorf("%q", out)
		}
	})
}

// A login has her prompt at once on a machine whose seat a job has borrowed; the job gives way and comes back.
func TestLoginTakesItsSeatBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := world(t, fake.Config{})
		w.Apply(strings.ReplaceAll(strings.ReplaceAll(team, "max: 4", "max: 1"), "seats: 8", "seats: 1"))
		alice := w.As("alice")
		job, err := alice.Submit(t.Context(), shoal.JobSpec{Pool: "lab", Command: "sleep 600", Resources: shoal.Resources{CPUs: 2000, Memory: 2 << 30}}, "")
		if err != nil {
			t.Fatal(err)
		}
		state := func() shoal.Job {
			j, err := alice.Job(t.Context(), job.ID)
			if err != nil {
				t.Fatal(err)
			}
			return j
		}
		w.Until("it has borrowed the machine", 2*time.Minute, func() bool { return state().Counts.Running == 1 })
		began := time.Now()
		if got := w.SSH("bob", "who"); got.Code != 0 || !strings.HasPrefix(got.Out, "bob ") || time.Since(began) > 2*time.Second {
			t.Errorf("after %v: %+v", time.Since(began), got)
		}
		list, err := alice.Tasks(t.Context(), job.ID, 0, 0)
		if err != nil || len(list) != 1 {
			t.Fatal(list, err)
		}
		got, err := alice.WaitJob(t.Context(), job.ID)
		if err != nil || got.Job.State != shoal.JobSucceeded {
			t.Fatalf("%+v, %v", got, err)
		}
		if list, err = alice.Tasks(t.Context(), job.ID, 0, 0); err != nil || list[0].Attempt != 2 || list[0].Failures != 0 {
			t.Errorf("%+v, %v", list, err)
		}
	})
}
