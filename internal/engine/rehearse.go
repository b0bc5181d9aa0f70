package engine

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/access"
	"github.com/shoal-pool/shoal/internal/engine/scalings"
	"github.com/shoal-pool/shoal/internal/scale"
	"github.com/shoal-pool/shoal/internal/store"
)

const rehearseRows = 50_000

// Rehearse tells what the autoscaler would do with a pool now, and would have done with what was asked of it, with
// other settings or with those it has. Nothing changes.
func (e *Engine) Rehearse(ctx context.Context, by access.Subject, name shoal.PoolName, r api.RehearsalRequest) (api.Rehearsal, error) {
	if err := access.Check(by, access.Scale, access.Object{Kind: shoal.ObjectPool, Name: string(name)}); err != nil {
		return api.Rehearsal{}, err
	}
	since, err := scalings.Since(r)
	if err != nil {
		return api.Rehearsal{}, err
	}
	var out api.Rehearsal
	var past []api.Scaling
	var pool shoal.Pool
	var boot time.Duration
	now := clock()
	err = e.cfg.Store.View(ctx, func(tx *store.Tx) error {
		p, err := tx.Pools().Get(name)
		if err != nil {
			return err
		}
		pool = scalings.Other(p, r.Pool)
		j, err := e.imagine(tx)
		if err != nil {
			return err
		}
		s, _, err := j.wholeState(p)
		if err != nil {
			return err
		}
		s.Pool = pool
		out.Now = scalings.Of(s, scale.Decide(s, j.now), scale.SampleOf(s, j.now), j.now)
		recent, err := j.Recent(name)
		if err != nil {
			return err
		}
		boot = scalings.UsualStart(recent)
		past, err = tx.ScalingsFrom(name, now.Add(-since), rehearseRows)
		return err
	})
	if err != nil {
		return api.Rehearsal{}, fmt.Errorf("cannot rehearse for pool %s: %w", name, err)
	}
	slices.Reverse(past)
	was := scalings.Rehearsed(pool, past, now, boot)
	was.Now = out.Now
	return was, nil
}
