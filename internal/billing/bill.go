package billing

import (
	"context"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/store"
	"github.com/shoal-pool/shoal/internal/usage"
)

// maxBilled is how many attempts are looked at together.
const maxBilled = 200_000

// Bill makes bills of what is on record from since to until, one for each of by. seen, if not nil, is called for each
// attempt that is in them.
func Bill(ctx context.Context, tx *store.Tx, since, until time.Time, idle usage.Idle, seen func(shoal.Attempt), by ...usage.By) ([]usage.Table, error) {
	users, err := tx.Users().List()
	if err != nil {
		return nil, err
	}
	groups, err := tx.Groups().List()
	if err != nil {
		return nil, err
	}
	in := usage.Input{Since: since, Until: until}
	if in.Intervals, err = tx.IntervalsSince(since); err != nil {
		return nil, err
	}
	if in.Attempts, err = tx.LooseAttemptsSince(since); err != nil {
		return nil, err
	}
	m := maker{ctx: ctx, tx: tx, seen: seen}
	of := usage.GroupsOf(users, groups)
	for _, b := range by {
		m.ledgers = append(m.ledgers, usage.NewLedger(b, of, idle))
	}
	if err := m.add(in); err != nil {
		return nil, err
	}
	all := make([]usage.Table, len(by))
	for i, l := range m.ledgers {
		all[i] = l.Table(since, until)
	}
	return all, nil
}

// maker is bills in the making.
type maker struct {
	ctx     context.Context //nolint:containedctx // of one call of Bill
	tx      *store.Tx
	ledgers []*usage.Ledger
	seen    func(shoal.Attempt)
}

// add adds an input together with the packed attempts between its bounds: in parts, where they are many.
func (m *maker) add(in usage.Input) error {
	if err := m.ctx.Err(); err != nil {
		return shoal.Errorf(shoal.KindCancelled, "the bill was given up: %w", err)
	}
	n, err := m.tx.CountPacked(in.Since, in.Until)
	if err != nil {
		return err
	}
	if span := in.Until.Sub(in.Since); n > maxBilled && span > time.Minute {
		early, late := in, in
		early.Until = in.Since.Add(span / 2)
		late.Since = early.Until
		if err := m.add(early); err != nil {
			return err
		}
		return m.add(late)
	}
	packed, err := m.tx.PackedBetween(in.Since, in.Until)
	if err != nil {
		return err
	}
	in.Attempts = append(packed, in.Attempts...)
	if m.seen != nil {
		for _, a := range in.Attempts {
			m.seen(a)
		}
	}
	for _, l := range m.ledgers {
		l.Add(in)
	}
	return nil
}
