package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/client"
	"github.com/shoal-pool/shoal/internal/rig"
)

// counting is a command that prints numbers for a while.
func counting(lines, code int) string {
	return fmt.Sprintf("i=0; while [ $i -lt %d ]; do echo line $i; i=$((i+1)); sleep 0.1; done; exit %d", lines, code)
}

// counted is what it prints.
func counted(lines int) string {
	var b strings.Builder
	for i := range lines {
		fmt.Fprintf(&b, "line %d\n", i)
	}
	return b.String()
}

// follows runs the command line as a user who follows something. One that comes while the server is away fails at once, and is run again.
func (w *world) follows(ctx context.Context, user shoal.UserName, args ...string) (string, error) {
	for {
		out, err := w.AsUser(ctx, user, args...)
		if err == nil || out != "" || !strings.Contains(err.Error(), "cannot reach the server") {
			return out, err
		}
	}
}

// Jobs run on while the server is killed and started again, and whoever waits for them or follows their output,
// from outside or from a machine, sees nothing of it.
func TestFollowersSurvive(t *testing.T) {
	t.Parallel()
	rounds := prove(3, 40)
	lines := 20 * rounds // two seconds each, which is more than a round takes
	w := newWorld(t)
	w.apply(2, rig.Pool("lab", "interactive, batch", "{cpus: 2, memory: 512MiB}", "{min: 1, max: 1}", 8, ""))
	m := w.ready("lab", 1)[0]
	if _, err := w.AsUser(t.Context(), "u1", "pool", "list"); err != nil { // makes her token
		t.Fatal(err)
	}
	small := shoal.Resources{CPUs: 100, Memory: 64 << 20}
	counting := func(code int) string {
		return "while [ ! -e /shared/go ]; do sleep 0.1; done; " + counting(lines, code)
	}
	job, err := w.as("u1").Submit(t.Context(), shoal.JobSpec{Pool: "lab", Command: counting(6), Resources: small}, "")
	if err != nil {
		t.Fatal(err)
	}
	nested, err := w.as("u2").Submit(t.Context(), shoal.JobSpec{Pool: "lab", Resources: small,
		Command: "shoal run --cpus 0.1 --memory 64MiB --wait -- sh -c '" + counting(5) + "'"}, "")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for _, c := range []struct {
		args []string
		out  string
		code string
	}{
		{[]string{"run", "-p", "lab", "--cpus", "0.1", "--memory", "64MiB", "--wait", "--", "sh", "-c", counting(7)}, counted(lines), "7"},
		{[]string{"job", "logs", string(job.ID), "-f"}, counted(lines), "0"},
		{[]string{"job", "wait", string(job.ID)}, "", "6"},
	} {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rounds)*patience)
			defer cancel()
			out, err := w.follows(ctx, "u1", c.args...)
			code := "0"
			if err != nil {
				_, rest, _ := strings.Cut(err.Error(), "exit status ")
				code, _, _ = strings.Cut(rest, ":")
			}
			if code != c.code || c.out != "" && out != c.out {
				t.Errorf("shoal %v ended with %q, %v, and printed %q", c.args[:2], code, err, out)
			}
		})
	}
	w.until("all run, those that others wait for too", func() (bool, error) {
		jobs, err := w.Client.Jobs(t.Context(), client.JobQuery{Pool: "lab"})
		return len(jobs) == 4 && !slices.ContainsFunc(jobs, func(j shoal.Job) bool { return j.State != shoal.JobRunning }), err
	})
	w.open("go")
	for range repeat(t, 3, 40, "deaths of the server") {
		time.Sleep(time.Second)
		if err := w.Kill(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(300 * time.Millisecond)
		if err := w.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	wg.Wait()
	w.until("the nested job ends", func() (bool, error) {
		j, err := w.Client.Job(t.Context(), nested.ID)
		return j.State.Ended(), err
	})
	tasks, err := w.Client.Tasks(t.Context(), nested.ID, 0, 1)
	if err != nil || len(tasks) != 1 || tasks[0].ExitCode != 5 || tasks[0].Attempt != 1 {
		t.Errorf("the task that waited for another ended as %+v, %v", tasks, err)
	}
	if got, err := w.output(shoal.TaskRef{Job: nested.ID}, "stdout"); got != counted(lines) {
		t.Errorf("it saw %q, %v", got, err)
	}
	if now := w.ready("lab", 1); len(now) != 1 || now[0].ID != m.ID {
		t.Errorf("machine %s was not adopted: %+v", m.ID, now)
	}
}
