package shoaltest_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/client"
	"github.com/shoal-pool/shoal/internal/providers/fake"
	"github.com/shoal-pool/shoal/shoaltest"
)

const team = `
kind: Share
name: team
source: /srv/team
---
kind: Pool
name: lab
provider: fake
image: any
uses: [interactive, batch]
machine: {cpus: 2, memory: 2GiB}
size: {min: 0, max: 4}
seats: 8
mounts: [{share: team, path: /shared}]
home: {share: team, path: "home/{user}"}
scale: {idle: {after: 30m}}
price: {perHour: 3.60, currency: EUR}
---
kind: User
name: alice
---
kind: User
name: bob
`

func world(t *testing.T, conf fake.Config) *shoaltest.World {
	w := shoaltest.New(t, conf)
	w.Apply(team)
	return w
}

func TestLoginWakesAndIdlenessEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := world(t, fake.Config{BootTime: 3 * time.Second})
		start := time.Now()
		r := w.SSH("alice", "who")
		if took := time.Since(start); took < 3*time.Second || took > 6*time.Second {
			t.Errorf("the login took %v, the machine 3 s", took)
		}
		machines := w.Machines("lab")
		if len(machines) != 1 || r.Out != fmt.Sprintf("alice %s\n", machines[0].ID) {
			t.Fatalf("%+v on %+v", r, machines)
		}
		if !strings.Contains(r.Banner, "waking machine m-") {
			t.Errorf("the banner says %q", r.Banner)
		}
		time.Sleep(29 * time.Minute)
		if n := len(w.Machines("lab")); n != 1 {
			t.Errorf("%d machines before it was idle for long enough", n)
		}
		w.Until("the machine has gone", 5*time.Minute, func() bool { return len(w.Machines("lab")) == 0 })
		bill, err := w.Host.Usage(t.Context(), "pool", "", start)
		if err != nil {
			t.Fatal(err)
		}
		// From the provider's acceptance to its end: the boot, the login, half an hour of idleness.
		if s := bill.Total.MachineSeconds; s < 30*60 || s > 36*60 {
			t.Errorf("%v machine-seconds", s)
		}
		if c := bill.Total.Cost; c < 1.8 || c > 2.2 {
			t.Errorf("it cost %v", c)
		}
	})
}

func TestFiftyAtOnceFromZero(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := world(t, fake.Config{BootTime: 2 * time.Second})
		var users strings.Builder
		for i := range 50 {
			fmt.Fprintf(&users, "kind: User\nname: u%d\n---\n", i)
		}
		w.Apply(users.String() + strings.ReplaceAll(strings.Split(team, "---")[1], "max: 4", "max: 9"))
		var all sync.WaitGroup
		for i := range 50 {
			all.Go(func() {
				if r, err := w.TrySSH(t.Context(), fmt.Sprintf("u%d", i), "sleep 20; echo here"); err != nil || r.Out != "here\n" {
					t.Errorf("u%d: %+v, %v", i, r, err)
				}
			})
		}
		time.Sleep(10 * time.Second)
		if n := len(w.Machines("lab")); n != 7 {
			t.Errorf("%d machines, want 7", n)
		}
		all.Wait()
	})
}

// From zero every login succeeds, though the provider fails at some of them, and waits for its machine and hardly anything
// else: in the middle no more than 0.3 s.
func TestEveryLoginFromZeroSucceeds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const boot = time.Minute
		w := world(t, fake.Config{BootTime: boot})
		w.Apply(strings.ReplaceAll(strings.Split(team, "---")[1], "after: 30m", "after: 1m"))
		unwell := shoal.Errorf(shoal.KindUnavailable, "the cloud is not well")
		var beyond []time.Duration
		for i := range 9 {
			switch i {
			case 2:
				w.Provider.Fail(fake.OpCreate, 2, unwell)
			case 4:
				w.Provider.FailHalfway(1)
			case 6:
				w.Provider.Fail(fake.OpObserve, 3, unwell)
			case 8:
				w.Provider.Delay(fake.OpCreate, 20*time.Second)
			}
			began := time.Now()
			if r := w.SSH("alice", "who"); !strings.HasPrefix(r.Out, "alice m-") {
				t.Fatalf("login %d: %+v", i, r)
			}
			beyond = append(beyond, time.Since(began)-boot)
			w.Provider.Delay(fake.OpCreate, 0)
			if time.Sleep(10 * time.Minute); len(w.Machines("lab")) > 0 {
				t.Fatalf("after login %d its machine stays", i)
			}
		}
		slices.Sort(beyond)
		t.Logf("beyond the start of a machine: %s in the middle, %s at most", beyond[len(beyond)/2], beyond[len(beyond)-1])
		if middle := beyond[len(beyond)/2]; middle > 300*time.Millisecond {
			t.Errorf("in the middle logins wait %s longer than a machine takes to start", middle)
		}
	})
}

func TestSweep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := world(t, fake.Config{})
		alice := w.As("alice")
		job, err := alice.Submit(t.Context(), shoal.JobSpec{Name: "sweep", Pool: "lab", Command: "echo hello; sleep 5; exit 0", Array: "1-10",
			Resources: shoal.Resources{CPUs: 1000, Memory: 256 << 20}}, "")
		if err != nil {
			t.Fatal(err)
		}
		got, err := alice.WaitJob(t.Context(), job.ID)
		if err != nil || got.ExitCode != 0 || got.Job.State != shoal.JobSucceeded || got.Job.Counts.Succeeded != 10 {
			t.Fatalf("%+v, %v", got, err)
		}
		if out := w.Output(alice, shoal.TaskRef{Job: job.ID, Index: 7}); out != "hello\n" {
			t.Errorf("%q", out)
		}
		// Ten tasks of one processor, four machines of two: two rounds of five seconds and the boot.
		if d := got.Job.Ended.Sub(got.Job.Submitted); d < 10*time.Second || d > 25*time.Second {
			t.Errorf("it took %v", d)
		}
		if _, err := w.As("bob").Job(t.Context(), job.ID); shoal.KindOf(err) != shoal.KindNotFound {
			t.Errorf("bob sees it: %v", err)
		}
	})
}

func TestExitCodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := world(t, fake.Config{})
		alice := w.As("alice")
		for _, c := range []struct {
			spec  shoal.JobSpec
			state shoal.JobState
			code  int
		}{
			{shoal.JobSpec{Command: "exit 3"}, shoal.JobFailed, 3},
			{shoal.JobSpec{Command: "exit 3", Retries: 2}, shoal.JobFailed, 3},
			{shoal.JobSpec{Command: "sleep 100", TimeLimit: shoal.Duration(10 * time.Second)}, shoal.JobTimedOut, 143},
		} {
			c.spec.Pool = "lab"
			job, err := alice.Submit(t.Context(), c.spec, "")
			if err != nil {
				t.Fatal(err)
			}
			got, err := alice.WaitJob(t.Context(), job.ID)
			if err != nil || got.ExitCode != c.code || got.Job.State != c.state {
				t.Errorf("%+v: %+v, %v", c.spec, got, err)
			}
		}
	})
}

func TestServerRestartLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := world(t, fake.Config{})
		alice := w.As("alice")
		leaves := shoal.Resources{CPUs: 800, Memory: 800 << 20} // room for a seat: nobody is preempted by bob's login
		job, err := alice.Submit(t.Context(), shoal.JobSpec{Pool: "lab", Command: "sleep 300; echo done", Array: "0-3", Resources: leaves}, "")
		if err != nil {
			t.Fatal(err)
		}
		before := w.SSH("bob", "who")
		w.Until("all run", time.Minute, func() bool {
			j, err := alice.Job(t.Context(), job.ID)
			return err == nil && j.Counts.Running == 4
		})
		for range 3 {
			time.Sleep(40 * time.Second)
			w.Restart()
		}
		time.Sleep(5 * time.Minute)
		got, err := alice.WaitJob(t.Context(), job.ID)
		if err != nil || got.Job.State != shoal.JobSucceeded {
			t.Fatalf("%+v, %v", got, err)
		}
		tasks, err := alice.Tasks(t.Context(), job.ID, 0, 0)
		if err != nil || len(tasks) != 4 {
			t.Fatalf("%d tasks, %v", len(tasks), err)
		}
		for _, a := range tasks {
			if a.Attempt != 1 || w.Output(alice, a.TaskRef) != "done\n" {
				t.Errorf("%+v", a)
			}
		}
		if after := w.SSH("bob", "who"); after.Out != before.Out {
			t.Errorf("bob was on %q and is on %q", before.Out, after.Out)
		}
	})
}

func TestLostMachineIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := world(t, fake.Config{})
		alice := w.As("alice")
		job, err := alice.Submit(t.Context(), shoal.JobSpec{Pool: "lab", Command: "sleep 60; echo done"}, "")
		if err != nil {
			t.Fatal(err)
		}
		running := func() bool {
			j, err := alice.Job(t.Context(), job.ID)
			return err == nil && j.Counts.Running == 1
		}
		w.Until("it runs", time.Minute, running)
		w.Provider.Vanish(w.Machines("lab")[0].ID)
		got, err := alice.WaitJob(t.Context(), job.ID)
		if err != nil || got.Job.State != shoal.JobSucceeded {
			t.Fatalf("%+v, %v", got, err)
		}
		tasks, err := alice.Tasks(t.Context(), job.ID, 0, 0)
		if err != nil || len(tasks) != 1 || tasks[0].Attempt != 2 || tasks[0].Failures != 0 {
			t.Errorf("%+v, %v", tasks, err)
		}
	})
}

func TestClientThatGoesAwayWithdrawsItsDemand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := world(t, fake.Config{BootTime: time.Hour})
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if _, err := w.TrySSH(ctx, "alice", "who"); err == nil {
			t.Fatal("nothing runs yet")
		}
		time.Sleep(5 * time.Second)
		list, err := w.Host.Sessions(t.Context(), client.SessionQuery{Pool: "lab"})
		if err != nil || len(list) != 0 {
			t.Errorf("%+v, %v", list, err)
		}
	})
}

func TestDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := world(t, fake.Config{})
		first := w.SSH("alice", "who")
		id := w.Machines("lab")[0].ID
		open, end := context.WithCancel(t.Context())
		defer end()
		var stays sync.WaitGroup
		stays.Go(func() { _, _ = w.TrySSH(open, "alice", "sleep 100000") }) // ended below
		time.Sleep(time.Second)
		if _, err := w.Host.Drain(t.Context(), id, api.DrainRequest{Reason: "kernel update"}); err != nil {
			t.Fatal(err)
		}
		if again := w.SSH("alice", "who"); again.Out != first.Out {
			t.Errorf("who is there comes back there: %q, not %q", again.Out, first.Out)
		}
		if other := w.SSH("bob", "who"); strings.Contains(other.Out, string(id)) {
			t.Errorf("somebody new was put on a draining machine: %q", other.Out)
		}
		time.Sleep(2 * time.Hour)
		if m, err := w.Host.Machine(t.Context(), id); err != nil || m.State != shoal.MachineReady {
			t.Errorf("%+v, %v: alice is still there", m, err)
		}
		end()
		stays.Wait()
	})
}
