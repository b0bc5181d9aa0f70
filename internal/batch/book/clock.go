package book

import (
	"context"
	"errors"
	"time"

	"github.com/shoal-pool/shoal/internal/batch/book/outlook"
	"github.com/shoal-pool/shoal/internal/batch/outcome"
)

// fit moves the times of what runs along when the clock was set: its time limit and its bill count the time that passes. By how much is
// stored with it, so that nothing is moved twice. The scheduler's state is made anew.
func (b *Book) fit(ctx context.Context) error {
	if b.cfg.Moved == nil {
		return nil
	}
	moved, err := b.cfg.Moved(ctx)
	if err != nil || moved == b.moved {
		return err
	}
	if _, err = b.update(ctx, func(g *Group) error { return g.move(moved-b.moved, moved) }); err != nil {
		return err
	}
	b.moved, b.ahead = moved, true
	return nil
}

func (g *Group) move(by, inAll time.Duration) error {
	for _, l := range g.lives {
		a := g.Change(&l.attempt)
		r, err := g.Job(a.Job)
		if err = errors.Join(err, outlook.Move(g.Tx, a, by, g.Now)); err != nil {
			return err
		}
		if !r.dirty && !r.State.Ended() {
			g.Touch(r)
			outcome.Move(by, g.Now, &r.Submitted, &r.Since, &r.Started)
		}
	}
	return g.Tx.SetDurationSetting(outlook.MovedSetting, inAll)
}
