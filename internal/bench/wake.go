package main

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/client"
	"github.com/shoal-pool/shoal/internal/rig"
)

//go:embed byhand.sh
var byHand string

// wake measures from the start of ssh, with no machine running, to the end of its first command.
func wake(ctx context.Context, b *bench) (err error) {
	w, err := b.world(ctx, "wake")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	if err := w.Apply(ctx, 1, rig.Pool("lab", "interactive", "{cpus: 1, memory: 512MiB}", "{min: 0, max: 1}", 8, "")); err != nil {
		return err
	}
	var ours, peer, waits, starts []float64
	for i := range b.rounds + 1 {
		took, err := w.login(ctx, "u1+lab")
		if err != nil {
			return err
		}
		wait, start, err := w.waited(ctx)
		if err != nil {
			return err
		}
		if err := w.Empty(ctx, "lab"); err != nil {
			return err
		}
		hand, err := w.byHand(ctx)
		if err != nil {
			return err
		}
		if i == 0 {
			continue // makes the image, once per installation
		}
		ours, peer = append(ours, took.Seconds()), append(peer, hand.Seconds())
		waits, starts = append(waits, wait.Seconds()), append(starts, start.Seconds())
	}
	b.add(Row{Measure: "wake: ssh from zero machines to the output of its first command", Unit: "s", Ours: ours,
		Peer: peer, PeerIs: "runc by hand"}.judge(atMost("ours", 1.0)))
	b.add(Row{Measure: "wake: wait for a seat, from zero machines", Unit: "s", Ours: waits, Peer: starts, PeerIs: "start of the machine"}.judge(atMost("difference", 0.3)))
	return nil
}

// waited is how long the only session there is waited for its seat, and how long its machine took to start.
func (w *world) waited(ctx context.Context) (wait, start time.Duration, err error) {
	sessions, err := w.Client.Sessions(ctx, client.SessionQuery{Pool: "lab"})
	if err == nil && len(sessions) != 1 {
		err = fmt.Errorf("there are %d sessions", len(sessions))
	}
	if err != nil {
		return 0, 0, err
	}
	m, err := w.Client.Machine(ctx, sessions[0].Machine)
	return sessions[0].Started.Sub(sessions[0].Created), m.ReadyAt.Sub(m.Started), err
}

// login runs `ssh … echo` and returns how long it took.
func (w *world) login(ctx context.Context, user string) (time.Duration, error) {
	cmd := w.SSH(ctx, user, "echo here")
	start := time.Now()
	out, err := rig.Output(cmd)
	if err == nil && strings.TrimSpace(out) != "here" {
		err = fmt.Errorf("ssh as %s printed %q", user, out)
	}
	return time.Since(start), err
}

// byHand starts a machine with the fewest steps that give the same, logs in and removes it.
func (w *world) byHand(ctx context.Context) (time.Duration, error) {
	cmd := exec.CommandContext(ctx, "bash", "-c", byHand, "byhand", w.Dir, w.Key())
	out, err := rig.Output(cmd)
	if err != nil {
		return 0, err
	}
	return time.ParseDuration(strings.TrimSpace(out) + "ms")
}

// crowd lets 50 users in at once while no machine runs.
func crowd(ctx context.Context, b *bench) (err error) {
	const users = 50
	w, err := b.world(ctx, "crowd")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	machine := "{cpus: 2, memory: 1GiB}"
	pools := rig.Pool("one", "interactive", machine, "{min: 0, max: 8}", 64, "") + rig.Pool("seven", "interactive", machine, "{min: 0, max: 8}", 8, "")
	if err := w.Apply(ctx, users, pools); err != nil {
		return err
	}
	for _, c := range []struct {
		pool string
		want int
	}{{"one", 1}, {"seven", 7}} {
		var started, first []float64
		for range min(b.rounds, 3) {
			slowest, err := w.allAtOnce(ctx, users, c.pool)
			if err != nil {
				return err
			}
			first = append(first, slowest.Seconds())
			n, err := w.machinesEver(ctx, c.pool)
			if err != nil {
				return err
			}
			started = append(started, float64(n))
			if err := w.Empty(ctx, c.pool); err != nil {
				return err
			}
		}
		for i := len(started) - 1; i > 0; i-- {
			started[i] -= started[i-1]
		}
		row := Row{Measure: fmt.Sprintf("50 users at once from zero, pool %s: machines started", c.pool), Unit: "machines", Ours: started}.judge(atMost("ours", float64(c.want)))
		row.OK = row.OK && slices.Min(started) == float64(c.want) && slices.Max(started) == float64(c.want)
		b.add(row)
		b.add(Row{Measure: fmt.Sprintf("50 users at once from zero, pool %s: slowest first word, of progress or from within", c.pool), Unit: "s", Ours: first}.judge(atMost("ours", 1.0)))
	}
	return nil
}

// allAtOnce logs n users in, who stay until all are in, and returns how long it took at most
// until somebody heard something: what is waited for, or that she is in.
func (w *world) allAtOnce(ctx context.Context, n int, pool string) (time.Duration, error) {
	var mu sync.Mutex
	var slowest time.Duration
	var errs []error
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			cmd := w.SSH(ctx, fmt.Sprintf("u%d+%s", i+1, pool), "echo in; sleep 5")
			word := &firstWord{start: time.Now()}
			cmd.Stdout, cmd.Stderr = word, word
			err := cmd.Run()
			mu.Lock()
			defer mu.Unlock()
			slowest = max(slowest, word.after)
			if err != nil {
				errs = append(errs, fmt.Errorf("u%d: %w: %s", i+1, err, word.text.String()))
			}
		})
	}
	all.Wait()
	return slowest, errors.Join(errs...)
}

// firstWord notes when something is first written. A client's own remark about host keys does not count.
type firstWord struct {
	start time.Time
	after time.Duration
	text  bytes.Buffer
}

func (f *firstWord) Write(p []byte) (int, error) {
	if f.after == 0 && !bytes.Contains(p, []byte("Permanently added")) {
		f.after = time.Since(f.start)
	}
	return f.text.Write(p)
}

// machinesEver counts the machines that a pool has ever had, by their events.
func (w *world) machinesEver(ctx context.Context, pool string) (int, error) {
	seen := map[string]bool{}
	for e, err := range w.Client.Events(ctx, time.Time{}, false) {
		if err != nil {
			return 0, err
		}
		if e.Kind == shoal.ObjectMachine && e.Pool == shoal.PoolName(pool) {
			seen[e.Name] = true
		}
	}
	return len(seen), nil
}
