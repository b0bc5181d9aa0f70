package engine

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/access"
	"github.com/shoal-pool/shoal/internal/engine/scalings"
	"github.com/shoal-pool/shoal/internal/engine/vet"
	"github.com/shoal-pool/shoal/internal/fleet"
	"github.com/shoal-pool/shoal/internal/scale"
	"github.com/shoal-pool/shoal/internal/store"
)

// keptRevisions is how many shapes of a pool are kept to go back to.
const keptRevisions = 10

// old reports whether a machine is not as its pool or its image is now.
func (j *judging) old(m shoal.Machine) bool { return m.Outdated != "" || m.Spec != j.digests[m.Pool] }

// anyOld reports whether an old machine of a pool runs.
func (j *judging) anyOld(pool shoal.PoolName) bool {
	return slices.ContainsFunc(j.rows, func(r *row) bool {
		return r.Pool == pool && r.State == shoal.MachineReady && r.Wanted == shoal.WantRun && j.old(r.Machine)
	})
}

// rolloutOf is how the replacement of a pool's old machines stands.
func (j *judging) rolloutOf(p shoal.Pool) (scale.Rollout, error) {
	r := scale.Rollout{Paused: p.Paused != nil}
	if !j.anyOld(p.Name) {
		return r, nil
	}
	recent, err := j.Recent(p.Name)
	if err != nil {
		return r, err
	}
	f, err := j.failures(p, recent)
	r.Failed, r.Why = f.N, f.Last.Reason
	return r, err
}

// failures are new machines of a pool that failed one after another: those made of what the pool was before say nothing
// of what it is, and those before it was changed, or somebody said that it is mended, nothing of now.
func (j *judging) failures(p shoal.Pool, recent []shoal.Machine) (fleet.Failures, error) {
	m, err := j.remembered(p)
	if err != nil || m.revision.Digest != j.digests[p.Name] {
		return fleet.Failures{}, err
	}
	since := later(m.revision.At, p.Resumed)
	for _, r := range j.rows { // as they will be, and those too old to be among the recent ones
		if r.Pool != p.Name {
			continue
		}
		if i := slices.IndexFunc(recent, func(m shoal.Machine) bool { return m.ID == r.ID }); i >= 0 {
			recent[i] = r.Machine
		} else {
			recent = append(recent, r.Machine)
		}
	}
	return fleet.FailuresOf(slices.DeleteFunc(recent, func(m shoal.Machine) bool {
		return m.Spec != j.digests[p.Name] || fleet.HasFailed(m) && fleet.FailedAt(m).Before(since)
	}), j.now), nil
}

// age puts on record since when machines of a pool are old, and when they end for it.
func (j *judging) age(p shoal.Pool, roll scale.Rollout) {
	for _, r := range j.rows {
		if r.Pool != p.Name || r.State != shoal.MachineReady || r.Wanted != shoal.WantRun {
			continue
		}
		m := r.Machine
		switch old := j.old(m); {
		case !old:
			m.OldSince, m.EndsAt = time.Time{}, time.Time{}
		case m.OldSince.IsZero():
			m.OldSince = j.now
			fallthrough
		default:
			m.EndsAt = scale.EndOf(p, m, roll, j.now)
		}
		for i, c := range m.Cordons {
			if c.Owner == shoal.CordonRollout && !c.Deadline.Equal(m.EndsAt) {
				m.Cordons = slices.Clone(m.Cordons)
				m.Cordons[i].Deadline = m.EndsAt
			}
		}
		j.set(r, m, "")
	}
}

// revise keeps what the pool's machines are made like, as a revision to go back to, and how far they have come to be so.
func (j *judging) revise(p shoal.Pool, roll scale.Rollout, m *elastic) {
	r := m.revision
	switch {
	case r.Digest != j.digests[p.Name]:
		first := r.N == 0
		r = api.Revision{N: r.N + 1, At: j.now, Digest: j.digests[p.Name], Shape: api.ShapeOf(p)}
		if !first && j.anyOld(p.Name) {
			j.tellPool(p, "rolloutBegan", "machines of pool %s are replaced: it was changed (revision %d)", p.Name, r.N)
		}
	case !reflect.DeepEqual(r.Shape, api.ShapeOf(p)):
		r.Shape = api.ShapeOf(p)
	}
	old := j.anyOld(p.Name)
	switch {
	case !old && r.Done.IsZero():
		if r.Done = j.now; r.N > 1 {
			j.tellPool(p, "rolloutDone", "all machines of pool %s are as it is now (revision %d)", p.Name, r.N)
		}
	case old && roll.Halted() && r.Halted.IsZero():
		r.Halted = j.now
		j.tellPool(p, "rolloutStopped", "the rollout of pool %s has stopped: %d new machines in a row did not become ready, the last one: %s", p.Name, roll.Failed, roll.Why)
	case !roll.Halted():
		r.Halted = time.Time{}
	}
	if reflect.DeepEqual(r, m.revision) {
		return
	}
	m.revision = r
	j.scalings = append(j.scalings, func(tx *store.Tx) error {
		if err := tx.DropRevisions(p.Name, r.N-keptRevisions); err != nil {
			return err
		}
		return tx.PutRevision(p.Name, r)
	})
}

func (j *judging) tellPool(p shoal.Pool, code, format string, args ...any) {
	j.events = append(j.events, shoal.Event{Kind: shoal.ObjectPool, Name: string(p.Name), Pool: p.Name, Code: code, Sentence: fmt.Sprintf(format, args...)})
}

// Rollout tells how far a pool's machines have come to be as the pool says, and what they were.
func (e *Engine) Rollout(ctx context.Context, by access.Subject, name shoal.PoolName) (api.RolloutStatus, error) {
	if err := access.Check(by, access.View, access.Object{Kind: shoal.ObjectPool, Name: string(name)}); err != nil {
		return api.RolloutStatus{}, err
	}
	var out api.RolloutStatus
	err := e.cfg.Store.View(ctx, func(tx *store.Tx) error {
		p, err := tx.Pools().Get(name)
		if err != nil {
			return err
		}
		j, err := e.imagine(tx)
		if err != nil {
			return err
		}
		s, _, err := j.wholeState(p)
		if err != nil {
			return err
		}
		out = scalings.Rollout(s, scale.Decide(s, j.now))
		if out.Revisions, err = tx.Revisions(name, keptRevisions); len(out.Revisions) > 0 {
			out.Since = out.Revisions[0].At
		}
		return err
	})
	if err != nil {
		return api.RolloutStatus{}, fmt.Errorf("cannot tell of the rollout of pool %s: %w", name, err)
	}
	return out, nil
}

// SteerRollout stops the replacement of a pool's old machines, lets it go on, or gives the pool the shape of a former
// revision.
func (e *Engine) SteerRollout(ctx context.Context, by access.Subject, name shoal.PoolName, r api.RolloutRequest) (api.RolloutStatus, error) {
	action := access.Scale
	if r.Action == "undo" {
		action = access.Apply
	}
	if err := access.Check(by, action, access.Object{Kind: shoal.ObjectPool, Name: string(name)}); err != nil {
		return api.RolloutStatus{}, err
	}
	var former shoal.Pool // with undo
	var shares []shoal.Share
	if r.Action == "undo" {
		err := e.cfg.Store.View(ctx, func(tx *store.Tx) (err error) {
			if former, err = formerOf(tx, name, r.Revision); err == nil {
				shares, err = tx.Shares().List()
			}
			return err
		})
		if err == nil {
			err = vet.Providers(e.cfg.Providers).CheckPool(ctx, former, shares)
		}
		if err != nil {
			return api.RolloutStatus{}, fmt.Errorf("cannot undo the rollout of pool %s: %w", name, err)
		}
	}
	err := e.cfg.Store.Update(ctx, func(tx *store.Tx) error {
		p, err := tx.Pools().Get(name)
		if err != nil {
			return err
		}
		now, did := clock(), ""
		switch r.Action {
		case "pause":
			if p.Paused != nil {
				return nil
			}
			p.Paused, did = &shoal.Pause{By: by.String(), Since: now}, "pauses the rollout of pool %s: no old machine is replaced"
		case "resume":
			p.Paused, p.Resumed, did = nil, now, "lets the rollout of pool %s go on"
		case "undo":
			p = api.ShapeOf(former).Give(p)
			p.Paused, did = nil, "gives pool %s the shape that its machines had before"
		default:
			return shoal.Errorf(shoal.KindInvalid, "%q is nothing that can be done with a rollout", r.Action).WithHint("write pause, resume or undo")
		}
		if _, err := tx.Pools().Put(p); err != nil {
			return err
		}
		tx.Event(shoal.Event{Kind: shoal.ObjectPool, Name: string(name), Pool: name, Code: "rolloutSteered", Sentence: fmt.Sprintf("%s "+did, by, name)})
		return nil
	})
	if err != nil {
		return api.RolloutStatus{}, fmt.Errorf("cannot steer the rollout of pool %s: %w", name, err)
	}
	e.Wake()
	return e.Rollout(ctx, by, name)
}

// formerOf is a pool with the shape of a former revision; 0: the one before.
func formerOf(tx *store.Tx, name shoal.PoolName, n int) (shoal.Pool, error) {
	p, err := tx.Pools().Get(name)
	if err != nil {
		return p, err
	}
	all, err := tx.Revisions(name, keptRevisions)
	if err != nil {
		return p, err
	}
	if n == 0 && len(all) > 1 {
		n = all[1].N
	}
	i := slices.IndexFunc(all, func(r api.Revision) bool { return r.N == n })
	if i < 0 || n == 0 {
		return p, shoal.Errorf(shoal.KindConflict, "there is no former revision to go back to").WithHint("`shoal pool rollout history %s` lists those on record", name)
	}
	if p.Deleting {
		return p, shoal.Errorf(shoal.KindConflict, "it is being deleted")
	}
	return all[i].Shape.Give(p), nil
}
