package engine

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/access"
	"github.com/shoal-pool/shoal/internal/scale"
	"github.com/shoal-pool/shoal/internal/spec"
	"github.com/shoal-pool/shoal/internal/store"
)

// The past that is gone through.
const (
	rehearseWeek = 7 * 24 * time.Hour
	rehearseMost = 90 * 24 * time.Hour
	rehearseRows = 50_000
	usualBoot    = time.Minute // where no machine of the pool has ever been ready
)

// Rehearse tells what the autoscaler would do with a pool now, and would have done with what was asked of it, with
// other settings or with those it has. Nothing changes.
func (e *Engine) Rehearse(ctx context.Context, by access.Subject, name shoal.PoolName, r api.RehearsalRequest) (api.Rehearsal, error) {
	if err := access.Check(by, access.Scale, access.Object{Kind: shoal.ObjectPool, Name: string(name)}); err != nil {
		return api.Rehearsal{}, err
	}
	since := time.Duration(r.Since)
	if since == 0 {
		since = rehearseWeek
	}
	if since < 0 || since > rehearseMost {
		return api.Rehearsal{}, shoal.Errorf(shoal.KindInvalid, "cannot go through %s of the past", r.Since).WithHint("give a duration up to %s", shoal.Duration(rehearseMost))
	}
	if r.Pool != nil {
		if mistakes := spec.CheckPool(*r.Pool); len(mistakes) > 0 {
			return api.Rehearsal{}, spec.Invalid(mistakes)
		}
	}
	var out api.Rehearsal
	var past []api.Scaling
	var pool shoal.Pool
	var boot time.Duration
	now := clock()
	err := e.cfg.Store.View(ctx, func(tx *store.Tx) error {
		p, err := tx.Pools().Get(name)
		if err != nil {
			return err
		}
		if pool = p; r.Pool != nil {
			pool.Size, pool.Scale, pool.Seats, pool.Placement, pool.Machine, pool.Fixed = r.Pool.Size, r.Pool.Scale, r.Pool.Seats, r.Pool.Placement, r.Pool.Machine, nil
			pool.Price = r.Pool.Price
		}
		j, err := e.imagine(tx)
		if err != nil {
			return err
		}
		s, _, err := j.wholeState(p)
		if err != nil {
			return err
		}
		s.Pool = pool
		out.Now = scalingOf(s, scale.Decide(s, j.now), scale.SampleOf(s, j.now), j.now)
		recent, err := j.recent(name)
		if err != nil {
			return err
		}
		boot = usualStart(recent)
		past, err = tx.Scalings(name, now.Add(-since), rehearseRows)
		return err
	})
	if err != nil {
		return api.Rehearsal{}, fmt.Errorf("cannot rehearse for pool %s: %w", name, err)
	}
	slices.Reverse(past)
	done := scale.Replay(pool, pastOf(past, pool.Machine), now, boot)
	out.From, out.MachineHours, out.Was, out.Most, out.Waits, out.Waited = done.From, done.MachineHours, done.Was, done.Most, done.Waits, shoal.Duration(done.Waited.Round(time.Second))
	return out, nil
}

// pastOf is what is on record as package scale goes through it. How large waiting tasks were is not: four fill a machine.
func pastOf(records []api.Scaling, machine shoal.Resources) []scale.Past {
	var past []scale.Past
	for _, r := range records {
		x := scale.Past{At: r.At, Machines: r.Machines, Sessions: r.Sessions + r.Waiting, CPU: r.CPU * r.Machines, Memory: r.Memory * r.Machines, GPU: r.GPU * r.Machines}
		if r.Queue > 0 {
			x.Queue = []scale.Queue{{Resources: shoal.Resources{CPUs: machine.CPUs / 4, Memory: machine.Memory / 4}, Tasks: r.Queue}}
		}
		past = append(past, x)
	}
	return past
}

// usualStart is how long machines take to be ready, in the middle.
func usualStart(recent []shoal.Machine) time.Duration {
	var all []time.Duration
	for _, m := range recent {
		if !m.ReadyAt.IsZero() && !m.Started.IsZero() && m.ReadyAt.After(m.Started) {
			all = append(all, m.ReadyAt.Sub(m.Started))
		}
	}
	if len(all) == 0 {
		return usualBoot
	}
	slices.Sort(all)
	return max(all[len(all)/2], time.Second)
}
