package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/shoal-pool/shoal/internal/bench/meter"
	"github.com/shoal-pool/shoal/internal/rig"
)

// crowdOfMachines is how many machines one host must carry.
const crowdOfMachines = 100

// density starts 100 machines, leaves them idle, and removes them.
func density(ctx context.Context, b *bench) (err error) {
	w, err := b.world(ctx, "density")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	size := fmt.Sprintf("{min: 0, max: %d}", crowdOfMachines)
	config := "providerConfig: {memoryOvercommit: 4}\n"
	if err := w.Apply(ctx, 1, rig.Pool("many", "interactive", "{cpus: 1, memory: 512MiB}", size, 8, config)); err != nil {
		return err
	}
	var readies []float64
	for i := range 2 { // each round takes a minute: two are enough to see whether one was an accident
		start := time.Now()
		if _, err := w.Shoal(ctx, "pool", "scale", "many", "--size", strconv.Itoa(crowdOfMachines)); err != nil {
			return err
		}
		if _, err := w.Ready(ctx, "many", crowdOfMachines, 5*time.Minute); err != nil {
			return err
		}
		readies = append(readies, time.Since(start).Seconds())
		if i == 0 {
			if err := w.Empty(ctx, "many"); err != nil {
				return err
			}
		}
	}
	b.add(Row{Measure: "100 machines, from pool scale to all ready", Unit: "s", Ours: readies}.judge(atMost("ours", 60)))
	return idleCost(ctx, b, w)
}

// idleCost measures the memory and the processor time of 100 machines where nobody is.
func idleCost(ctx context.Context, b *bench, w *world) error {
	select { // what follows a start is over: the last of it is the agents' garbage of then
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(2 * time.Minute):
	}
	list, err := w.Machines(ctx, "many")
	if err != nil {
		return err
	}
	ours := map[string]bool{}
	for _, m := range list {
		ours[string(m.ID)] = true
	}
	memory, err := meter.Memory(ours)
	if err != nil {
		return err
	}
	b.add(Row{Measure: "an idle machine's memory, by its control group", Unit: "MiB", Ours: memory}.judge(atMost("ours", 10)))
	var share []float64
	for range b.rounds {
		before, err := meter.Time(w.Server.Process.Pid, ours)
		if err != nil {
			return err
		}
		const window = 100 * time.Second // what agents do comes again with their reports; a part of that would be an accident
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(window):
		}
		after, err := meter.Time(w.Server.Process.Pid, ours)
		if err != nil {
			return err
		}
		share = append(share, 100*(after-before).Seconds()/window.Seconds())
	}
	b.add(Row{Measure: "control plane and 100 idle machines: processor time", Unit: "% of a core", Ours: share}.judge(atMost("ours", 0.5)))
	return nil
}
