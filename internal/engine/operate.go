package engine

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/access"
	"github.com/shoal-pool/shoal/internal/engine/scalings"
	"github.com/shoal-pool/shoal/internal/store"
)

// ScalePool sets the size of a pool by hand, for a time or until further notice, or gives it back to
// the autoscaler.
func (e *Engine) ScalePool(ctx context.Context, by access.Subject, name shoal.PoolName, r api.ScaleRequest) (shoal.Pool, error) {
	if err := access.Check(by, access.Scale, access.Object{Kind: shoal.ObjectPool, Name: string(name)}); err != nil {
		return shoal.Pool{}, err
	}
	var p shoal.Pool
	err := e.cfg.Store.Update(ctx, func(tx *store.Tx) (err error) {
		if p, err = tx.Pools().Get(name); err != nil {
			return err
		}
		sentence := ""
		if p.Fixed, sentence, err = scalings.Fixed(p, r, clock()); err != nil {
			return err
		}
		if p, err = tx.Pools().Put(p); err != nil {
			return err
		}
		tx.Event(shoal.Event{Kind: shoal.ObjectPool, Name: string(name), Pool: name, Code: "poolScaled", Sentence: fmt.Sprintf("%s %s", by, sentence)})
		return nil
	})
	if err != nil {
		return shoal.Pool{}, fmt.Errorf("cannot scale pool %s: %w", name, err)
	}
	e.Wake()
	return p, nil
}

// DeletePool marks a pool as being deleted: it takes nobody new, its machines go as they become
// empty, and the pool goes with the last. Repeating it changes nothing. KindConflict while jobs of
// the pool have not ended.
func (e *Engine) DeletePool(ctx context.Context, by access.Subject, name shoal.PoolName) error {
	if err := access.Check(by, access.Delete, access.Object{Kind: shoal.ObjectPool, Name: string(name)}); err != nil {
		return err
	}
	err := e.cfg.Store.Update(ctx, func(tx *store.Tx) error {
		p, err := tx.Pools().Get(name)
		if err != nil || p.Deleting {
			return err
		}
		var ids []string
		err = tx.EachActiveJob(func(j shoal.Job) error {
			if j.Spec.Pool == name {
				ids = append(ids, string(j.ID))
			}
			return nil
		})
		if err != nil {
			return err
		}
		if len(ids) > 0 {
			return shoal.Errorf(shoal.KindConflict, "%d of its jobs have not ended: %s", len(ids), strings.Join(ids[:min(len(ids), 10)], ", ")).
				WithHint("wait for them, or end them with `shoal job cancel`")
		}
		p.Deleting, p.Default, p.Fixed = true, false, nil
		if _, err := tx.Pools().Put(p); err != nil {
			return err
		}
		tx.Event(shoal.Event{Kind: shoal.ObjectPool, Name: string(name), Pool: name, Code: "poolDeleting",
			Sentence: fmt.Sprintf("%s deletes pool %s: it takes nobody new, and goes with its last machine", by, name)})
		return nil
	})
	if err != nil {
		return fmt.Errorf("cannot delete pool %s: %w", name, err)
	}
	e.Wake()
	return nil
}

// Drain puts the operator's cordon on a machine: nobody new comes to it. With a deadline it is deleted
// when it is empty, and at the deadline whoever is there. Repeating it replaces the cordon.
func (e *Engine) Drain(ctx context.Context, by access.Subject, id shoal.MachineID, r api.DrainRequest) (shoal.Machine, error) {
	if err := access.Check(by, access.Drain, access.Object{Kind: shoal.ObjectMachine, Name: string(id)}); err != nil {
		return shoal.Machine{}, err
	}
	m, err := e.amend(ctx, id, func(_ *store.Tx, m *shoal.Machine) (string, error) {
		switch {
		case !m.Alive() || m.Wanted != shoal.WantRun:
			return "", shoal.Errorf(shoal.KindConflict, "it is %s%s", m.State, because(m.Reason))
		case r.Deadline < 0:
			return "", shoal.Errorf(shoal.KindInvalid, "%s cannot be a deadline", time.Duration(r.Deadline)).WithHint("give a duration such as 2h")
		case len(r.Reason) > 500 || strings.ContainsAny(r.Reason, "\r\n"):
			return "", shoal.Errorf(shoal.KindInvalid, "the reason is too long, or not one line").WithHint("give a short sentence")
		}
		now := clock()
		c := shoal.Cordon{Owner: shoal.CordonOperator, Reason: fmt.Sprintf("drained by %s", by), Since: now}
		if r.Reason != "" {
			c.Reason += ": " + r.Reason
		}
		sentence := fmt.Sprintf("machine %s of pool %s takes nobody new: %s", m.ID, m.Pool, c.Reason)
		if r.Deadline > 0 {
			c.Deadline = now.Add(time.Duration(r.Deadline)).Truncate(time.Second)
			sentence += fmt.Sprintf("; it will be deleted when it is empty, and in %s at the latest", r.Deadline)
		}
		*m = cordon(*m, c)
		return sentence, nil
	})
	if err != nil {
		return shoal.Machine{}, fmt.Errorf("cannot drain machine %s: %w", id, err)
	}
	for _, c := range m.Cordons {
		if c.Owner == shoal.CordonOperator && c.Deadline.IsZero() { // of a deadline the next pass tells
			e.tell(id, fmt.Sprintf("shoal: this machine, %s, was %s. It takes nobody new; you can stay.", id, c.Reason))
		}
	}
	return m, nil
}

// Undrain takes the operator's cordon back. Without one it does nothing.
func (e *Engine) Undrain(ctx context.Context, by access.Subject, id shoal.MachineID) (shoal.Machine, error) {
	if err := access.Check(by, access.Drain, access.Object{Kind: shoal.ObjectMachine, Name: string(id)}); err != nil {
		return shoal.Machine{}, err
	}
	changed := false
	m, err := e.amend(ctx, id, func(_ *store.Tx, m *shoal.Machine) (string, error) {
		if changed = false; m.Wanted != shoal.WantRun {
			return "", shoal.Errorf(shoal.KindConflict, "it is %s%s", m.State, because(m.Reason))
		}
		before := len(m.Cordons)
		end, _ := m.Ends()
		if *m = uncordon(*m, shoal.CordonOperator); len(m.Cordons) == before {
			return "", nil
		}
		changed = end.IsZero() // of one that was to end the next pass tells
		return fmt.Sprintf("machine %s of pool %s takes people again: undrained by %s", m.ID, m.Pool, by), nil
	})
	if err != nil {
		return shoal.Machine{}, fmt.Errorf("cannot undrain machine %s: %w", id, err)
	}
	if changed && len(m.Cordons) == 0 {
		e.tell(id, fmt.Sprintf("shoal: this machine, %s, stays after all.", id))
	}
	return m, nil
}

// DeleteMachine deletes a machine with its disk. KindConflict if somebody is on it, or it is not known
// whether, unless forced: then sessions end and tasks are lost and start again elsewhere.
func (e *Engine) DeleteMachine(ctx context.Context, by access.Subject, id shoal.MachineID, force bool) error {
	if err := access.Check(by, access.Delete, access.Object{Kind: shoal.ObjectMachine, Name: string(id)}); err != nil {
		return err
	}
	_, err := e.amend(ctx, id, func(tx *store.Tx, m *shoal.Machine) (string, error) {
		if m.State == shoal.MachineGone || m.Wanted == shoal.WantDelete {
			return "", nil
		}
		sessions, err := tx.LiveSessionsOn(id)
		if err != nil {
			return "", err
		}
		tasks, err := tx.LiveAttemptsOn(id)
		if err != nil {
			return "", err
		}
		if n := len(sessions) + len(tasks); n > 0 && !force {
			return "", shoal.Errorf(shoal.KindConflict, "%s and %s are on it", count(len(sessions), "session"), count(len(tasks), "task")).
				WithHint("`shoal machine drain %s` keeps new ones off; --force ends them", id)
		}
		if m.State == shoal.MachineReady && !force && !e.linked(id) {
			return "", shoal.Errorf(shoal.KindConflict, "its agent is not heard from, so it is not known who is on it").
				WithHint("--force deletes it all the same")
		}
		m.Wanted, m.Reason = shoal.WantDelete, fmt.Sprintf("deleted by %s", by)
		if m.State == shoal.MachineReady || m.State == shoal.MachineBooting {
			m.State, m.Since = shoal.MachineStopping, clock()
			return "", nil
		}
		return fmt.Sprintf("machine %s of pool %s is to be deleted: %s", m.ID, m.Pool, m.Reason), nil
	})
	if err != nil {
		return fmt.Errorf("cannot delete machine %s: %w", id, err)
	}
	if force {
		e.tell(id, fmt.Sprintf("shoal: this machine, %s, is deleted now, by %s. Log in again to be placed on another one.", id, by))
	}
	e.Wake()
	return nil
}

func (e *Engine) tell(id shoal.MachineID, text string) {
	if e.cfg.Tell != nil {
		e.cfg.Tell(id, text)
	}
}

func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
