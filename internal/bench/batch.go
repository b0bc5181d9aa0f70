package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/client"
	"github.com/shoal-pool/shoal/internal/rig"
)

// noops is the size of the arrays of tasks that do nothing.
const noops = 1000

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
	var ours, peer []float64
	for range b.rounds {
		took, err := w.array(ctx, noops)
		if err != nil {
			return err
		}
		ours = append(ours, noops/took.Seconds())
		start := time.Now()
		if err := s.array(ctx, noops, "true"); err != nil {
			return err
		}
		peer = append(peer, noops/time.Since(start).Seconds())
	}
	b.add(Row{Measure: "no-op tasks of an array, submitted to ended", Unit: "tasks/s", Ours: ours, Peer: peer, PeerIs: "slurm"}.judge(atLeast("ratio", 5)))
	return startLatency(ctx, b, w, s)
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

// queueRows fills the queue with 100,000 tasks and asks the API meanwhile.
func queueRows(ctx context.Context, b *bench) (err error) {
	const queued = 100_000
	w, err := b.world(ctx, "queue")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	if err := w.Apply(ctx, 1, rig.Pool("batch", "batch", "{cpus: 1, memory: 256MiB}", "{min: 1, max: 1}", 1, "")); err != nil {
		return err
	}
	if _, err := w.Ready(ctx, "batch", 1, time.Minute); err != nil {
		return err
	}
	out, err := w.AsUser(ctx, "u1", "run", "-q", "-p", "batch", "--array", fmt.Sprintf("1-%d", queued), "--cpus", "1", "--memory", "64MiB", "--", "sleep", "1")
	if err != nil {
		return err
	}
	var memory, answer []float64
	for range b.rounds {
		start := time.Now()
		if _, err := w.Client.Jobs(ctx, client.JobQuery{Limit: 50}); err != nil {
			return err
		}
		answer = append(answer, time.Since(start).Seconds()*1000)
		pss, err := settledPSS(w.Server.Process.Pid)
		if err != nil {
			return err
		}
		memory = append(memory, pss/1024)
	}
	b.add(Row{Measure: "100,000 queued tasks: memory of the server", Unit: "MiB", Ours: memory}.judge(atMost("ours", 500)))
	b.add(Row{Measure: "100,000 queued tasks: listing jobs by the API", Unit: "ms", Ours: answer}.judge(atMost("ours", 1000)))
	_, err = w.Client.CancelJob(ctx, shoal.JobID(strings.TrimSpace(out)))
	return err
}
