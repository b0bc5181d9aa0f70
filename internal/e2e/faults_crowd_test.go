package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/rig"
)

// A crowd of tasks runs while the server is killed at any moment. None is ended, repeated or lost, and
// who follows the output of one misses nothing and sees nothing twice.
func TestCrowdOutlivesServer(t *testing.T) {
	t.Parallel()
	const machines = 4
	crowd, lines := prove(200, 2000), prove(100, 2000)
	w := newWorld(t)
	gate := filepath.Join(w.Share, "gate")
	if err := syscall.Mkfifo(gate, 0o666); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"begun", "ended"} {
		if err := os.Mkdir(filepath.Join(w.Share, dir), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(filepath.Join(w.Share, dir), 0o777); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(gate, 0o666); err != nil {
		t.Fatal(err)
	}
	w.apply(1, rig.Pool("lab", "batch", "{cpus: 2, memory: 3GiB}", fmt.Sprintf("{min: %d, max: %d}", machines, machines), 1, ""))
	w.ready("lab", machines)
	small := shoal.Resources{CPUs: 2, Memory: 4 << 20}
	job, err := w.as("u1").Submit(t.Context(), shoal.JobSpec{Pool: "lab", Array: fmt.Sprintf("1-%d", crowd), Resources: small,
		// Opening the gate waits until somebody opens it for writing.
		Command: `mkdir /shared/begun/$SHOAL_ARRAY_INDEX || exit 9; echo begin; : </shared/gate; echo end; mkdir /shared/ended/$SHOAL_ARRAY_INDEX`}, "")
	if err != nil {
		t.Fatal(err)
	}
	teller, err := w.as("u1").Submit(t.Context(), shoal.JobSpec{Pool: "lab", Resources: small, Command: counting(lines, 0)}, "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.AsUser(t.Context(), "u1", "pool", "list"); err != nil { // makes her token
		t.Fatal(err)
	}
	var followed string
	var wg sync.WaitGroup
	wg.Go(func() {
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		var err error
		if followed, err = w.follows(ctx, "u1", "job", "logs", string(teller.ID), "-f"); err != nil {
			t.Errorf("the follower: %v", err)
		}
	})
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	for range repeat(t, 5, 200, "rounds") {
		time.Sleep(time.Duration(r.IntN(1500)) * time.Millisecond)
		if err := w.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := w.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	w.until("all tasks run", func() (bool, error) {
		j, err := w.Client.Job(t.Context(), job.ID)
		return j.Counts.Running == crowd, err
	})
	open, err := os.OpenFile(gate, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	w.until("the crowd has ended", func() (bool, error) {
		j, err := w.Client.Job(t.Context(), job.ID)
		return j.State.Ended(), err
	})
	tasks, err := w.Client.Tasks(t.Context(), job.ID, 0, 0)
	if err != nil || len(tasks) != crowd {
		t.Errorf("%d tasks, %v", len(tasks), err)
	}
	for _, a := range tasks {
		if a.State != shoal.JobSucceeded || a.Attempt != 1 || a.StdoutBytes != int64(len("begin\nend\n")) {
			t.Errorf("task %v ended as %+v", a.AttemptRef, a)
		}
	}
	for _, dir := range []string{"begun", "ended"} {
		if list, err := os.ReadDir(filepath.Join(w.Share, dir)); err != nil || len(list) != crowd {
			t.Errorf("%d tasks have %s, %v", len(list), dir, err)
		}
	}
	wg.Wait()
	if want := counted(lines); followed != want {
		t.Errorf("the follower saw %d lines of %d, the last %q", strings.Count(followed, "\n"), lines, followed[max(0, len(followed)-50):])
	}
}
