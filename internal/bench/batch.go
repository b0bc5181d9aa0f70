package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/client"
	"github.com/shoal-pool/shoal/internal/bench/meter"
	"github.com/shoal-pool/shoal/internal/rig"
)

// The amounts of tasks that do nothing: of an array, and submitted one by one.
const (
	noops   = 5000
	singles = 2000
)

// batchRows compares with Slurm: the same tasks on four machines of two processors, one system at work at a time.
func batchRows(ctx context.Context, b *bench) (err error) {
	w, err := b.world(ctx, "batch")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	if err := w.Apply(ctx, 1, rig.Pool("batch", "batch", "{cpus: 2, memory: 1GiB}", "{min: 4, max: 4}", 1, "")); err != nil {
		return err
	}
	if _, err := w.Ready(ctx, "batch", 4, time.Minute); err != nil {
		return err
	}
	s, err := startSlurm(ctx, b)
	if s != nil {
		defer func() { err = errors.Join(err, s.stop()) }()
	}
	if err != nil {
		return err
	}
	if err := arrays(ctx, b, w, s); err != nil {
		return err
	}
	if err := individual(ctx, b, w, s); err != nil {
		return err
	}
	return startLatency(ctx, b, w, s)
}

// arrays runs arrays of tasks that do nothing, on Shoal, on Slurm, and as bare processes without any system. It also
// measures the processor time that each takes.
func arrays(ctx context.Context, b *bench, w *world, s *slurm) error {
	machines, err := w.Machines(ctx, "batch")
	if err != nil {
		return err
	}
	ids := map[string]bool{}
	for _, m := range machines {
		ids[string(m.ID)] = true
	}
	if _, err := w.array(ctx, 200); err != nil { // what is made once is made
		return err
	}
	var ours, peer, share, cost, bareCost []float64
	for range b.rounds {
		before, err := meter.Time(w.Server.Process.Pid, ids)
		if err != nil {
			return err
		}
		took, err := w.array(ctx, noops)
		if err != nil {
			return err
		}
		after, err := meter.Time(w.Server.Process.Pid, ids)
		if err != nil {
			return err
		}
		bare, used, err := bareProcesses(ctx, b.dir, noops)
		if err != nil {
			return err
		}
		ours = append(ours, noops/took.Seconds())
		cost = append(cost, (after-before).Seconds()*1000/noops)
		bareCost = append(bareCost, used.Seconds()*1000/noops)
		share = append(share, 100*bare.Seconds()/took.Seconds())
		start := time.Now()
		if err := s.array(ctx, noops, "true"); err != nil {
			return err
		}
		peer = append(peer, noops/time.Since(start).Seconds())
	}
	b.add(Row{Measure: "no-op tasks of an array of 5,000, submitted to ended", Unit: "tasks/s", Ours: ours, Peer: peer, PeerIs: "slurm"}.judge(atLeast("ratio", 10)))
	b.add(Row{Measure: "processor time of a no-op task", Unit: "ms", Ours: cost, Peer: bareCost, PeerIs: "bare process",
		Note: "server, agents and task; the bare process is a shell of the same user with its output in a file, four at a time"}.judge(atMost("difference", 0.5)))
	b.add(Row{Measure: "no-op tasks: part of the rate of bare processes", Unit: "%", Ours: share}.judge(atLeast("ours", 50)))
	return nil
}

// bareProcesses starts n shells that do nothing as the user of the tasks, four at a time, and says how long that took
// and how much processor time.
func bareProcesses(ctx context.Context, dir string, n int) (took, used time.Duration, err error) {
	out := filepath.Join(dir, "bare")
	if err := os.MkdirAll(out, 0o755); err != nil {
		return 0, 0, err
	}
	before, err := spent()
	if err != nil {
		return 0, 0, err
	}
	start := time.Now()
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(4)
	for i := range n {
		g.Go(func() error {
			f, err := os.Create(filepath.Join(out, strconv.Itoa(i%8)))
			if err != nil {
				return err
			}
			defer f.Close()
			cmd := exec.CommandContext(ctx, "/bin/sh", "-c", "true")
			cmd.Stdout, cmd.Stderr = f, f
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: shoal.FirstID, Gid: shoal.FirstID}}
			return cmd.Run()
		})
	}
	if err := g.Wait(); err != nil {
		return 0, 0, err
	}
	took = time.Since(start)
	after, err := spent()
	return took, after - before, err
}

// spent is the processor time of this process and of its children that have ended.
func spent() (time.Duration, error) {
	var sum time.Duration
	for _, who := range []int{syscall.RUSAGE_SELF, syscall.RUSAGE_CHILDREN} {
		var r syscall.Rusage
		if err := syscall.Getrusage(who, &r); err != nil {
			return 0, err
		}
		sum += time.Duration(r.Utime.Nano() + r.Stime.Nano())
	}
	return sum, nil
}

// individual submits jobs one by one, eight at a time, and waits for all: over the API, which is how engines do it,
// and by sbatch, which is how they do it there.
func individual(ctx context.Context, b *bench, w *world, s *slurm) error {
	me, err := w.ClientAs(ctx, "u1")
	if err != nil {
		return err
	}
	var ours, peer []float64
	for i := range b.rounds {
		label := "round=" + strconv.Itoa(i)
		start := time.Now()
		spec := shoal.JobSpec{Pool: "batch", Command: "true", Resources: shoal.Resources{CPUs: 1000, Memory: 64 << 20}, Labels: map[string]string{"round": strconv.Itoa(i)}}
		err := eight(ctx, singles, func(ctx context.Context) error {
			_, err := me.Submit(ctx, spec, shoal.NewToken())
			return err
		})
		if err != nil {
			return err
		}
		if err := w.settled(ctx, me, label); err != nil {
			return err
		}
		ours = append(ours, singles/time.Since(start).Seconds())
		start = time.Now()
		err = eight(ctx, singles, func(ctx context.Context) error {
			_, err := s.run(ctx, "sbatch", "--parsable", "-o", "/dev/null", "--wrap", "true")
			return err
		})
		if err != nil {
			return err
		}
		if err := s.drained(ctx); err != nil {
			return err
		}
		peer = append(peer, singles/time.Since(start).Seconds())
	}
	b.add(Row{Measure: "2,000 no-op jobs submitted one by one, to ended", Unit: "jobs/s", Ours: ours, Peer: peer, PeerIs: "slurm"}.judge(atLeast("ratio", 10)))
	return nil
}

// eight does something n times, eight at a time.
func eight(ctx context.Context, n int, do func(context.Context) error) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(8)
	for range n {
		g.Go(func() error { return do(ctx) })
	}
	return g.Wait()
}

// settled waits until no job with a label is left that has not ended.
func (w *world) settled(ctx context.Context, me *client.Client, label string) error {
	return rig.Until(ctx, 10*time.Minute, "all jobs have ended", func() (bool, error) {
		for _, state := range []shoal.JobState{shoal.JobQueued, shoal.JobStarting, shoal.JobRunning} {
			jobs, err := me.Jobs(ctx, client.JobQuery{State: state, Label: label, Limit: 1})
			if err != nil || len(jobs) > 0 {
				return false, err
			}
		}
		return true, nil
	})
}

// array runs an array of no-ops as u1 and returns how long it took.
func (w *world) array(ctx context.Context, n int) (time.Duration, error) {
	start := time.Now()
	_, err := w.AsUser(ctx, "u1", "run", "-p", "batch", "--array", "1-"+strconv.Itoa(n), "--cpus", "1", "--memory", "64MiB", "--wait", "--", "true")
	return time.Since(start), err
}

// startLatency measures from before a submission to the first instruction of the task.
func startLatency(ctx context.Context, b *bench, w *world, s *slurm) error {
	stamp := filepath.Join(w.Dir, "share", "stamp")
	var ours, peer []float64
	for range 4 * b.rounds {
		ms, err := w.latency(ctx, stamp, func() error {
			_, err := w.AsUser(ctx, "u1", "run", "-p", "batch", "--", "sh", "-c", "date +%s%N > /shared/stamp.u1")
			return err
		})
		if err != nil {
			return err
		}
		ours = append(ours, ms)
		ms, err = w.latency(ctx, stamp, func() error { return s.array(ctx, 1, "date +%s%N > "+stamp+".u1") })
		if err != nil {
			return err
		}
		peer = append(peer, ms)
	}
	b.add(Row{Measure: "submission to start on an idle pool", Unit: "ms", Ours: ours, Peer: peer, PeerIs: "slurm",
		Note: "from the start of the submitting command to the task's first instruction"}.judge(atMost("ours", 50)))
	return nil
}

// latency runs a submission whose task writes the time, and returns the milliseconds until that time.
func (w *world) latency(ctx context.Context, stamp string, submit func() error) (float64, error) {
	file := stamp + ".u1"
	if err := os.WriteFile(file, nil, 0o666); err != nil {
		return 0, err
	}
	if err := os.Chmod(file, 0o666); err != nil {
		return 0, err
	}
	start := time.Now()
	if err := submit(); err != nil {
		return 0, err
	}
	var ran int64
	err := rig.Until(ctx, time.Minute, "the task has run", func() (bool, error) {
		b, err := os.ReadFile(file)
		if err != nil || !strings.HasSuffix(string(b), "\n") {
			return false, err
		}
		ran, err = strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
		return err == nil, err
	})
	if err != nil {
		return 0, err
	}
	return time.Unix(0, ran).Sub(start).Seconds() * 1000, nil
}
