package httpapi

import (
	"context"
	"slices"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/access"
	"github.com/shoal-pool/shoal/internal/store"
	"github.com/shoal-pool/shoal/internal/usage"
)

// usageSpan is how far a bill goes back that does not say since when.
const usageSpan = 30 * 24 * time.Hour

func (a *API) usage(c *call) (api.Usage, error) {
	var none api.Usage
	by, err := usage.ParseBy(c.Query("by"))
	if err != nil {
		return none, err
	}
	idle, err := usage.ParseIdle(c.Query("idle"))
	if err != nil {
		return none, err
	}
	since, err := c.Instant("since")
	if err != nil {
		return none, err
	}
	all := access.Everybody(c.By, access.ObjectUsage)
	if !all && by != usage.ByUser && by != usage.ByJob {
		return none, shoal.Errorf(shoal.KindDenied, "%s may not see everybody's usage", c.By).WithHint("one's own can be seen by user and by job")
	}
	in := usage.Input{Idle: idle, Since: since, Until: time.Now().UTC().Truncate(time.Second)}
	if in.Since.IsZero() {
		in.Since = in.Until.Add(-usageSpan)
	}
	bill, hers, err := a.bill(c, in, by)
	if err != nil {
		return none, err
	}
	rows := make([]api.UsageRow, 0, len(bill.Rows))
	for _, r := range bill.Rows {
		rows = append(rows, api.UsageRow(r))
	}
	total := api.UsageRow(bill.Total)
	if !all {
		rows, total = own(rows, hers)
	}
	return api.Usage{By: string(by), Since: bill.Since, Until: bill.Until, Rows: rows, Total: total}, nil
}

// maxBilled is how many attempts are looked at together.
const maxBilled = 200_000

// bill makes a bill of what is on record, with the keys of the rows that are the caller's own.
func (a *API) bill(c *call, in usage.Input, by usage.By) (t usage.Table, hers map[string]bool, err error) {
	err = a.cfg.Store.View(c.Ctx, func(tx *store.Tx) error {
		users, err := tx.Users().List()
		if err != nil {
			return err
		}
		groups, err := tx.Groups().List()
		if err != nil {
			return err
		}
		if in.Intervals, err = tx.IntervalsSince(in.Since); err != nil {
			return err
		}
		if in.Attempts, err = tx.LooseAttemptsSince(in.Since); err != nil {
			return err
		}
		b := &billing{tx: tx, ledger: usage.NewLedger(by, usage.GroupsOf(users, groups), in.Idle), hers: map[string]bool{}}
		if by == usage.ByUser {
			b.hers[string(c.By.User)] = true
		} else {
			b.user = c.By.User
		}
		if err := b.add(c.Ctx, in); err != nil {
			return err
		}
		t, hers = b.ledger.Table(in.Since, in.Until), b.hers
		return nil
	})
	return t, hers, err
}

// billing is a bill in the making.
type billing struct {
	tx     *store.Tx
	ledger *usage.Ledger
	user   shoal.UserName // whose jobs are hers; empty: nobody's
	hers   map[string]bool
}

// add adds an input together with the packed attempts between its bounds: in parts, where they are many.
func (b *billing) add(ctx context.Context, in usage.Input) error {
	if err := ctx.Err(); err != nil {
		return shoal.Errorf(shoal.KindCancelled, "the request was given up: %w", err)
	}
	n, err := b.tx.CountPacked(in.Since, in.Until)
	if err != nil {
		return err
	}
	if span := in.Until.Sub(in.Since); n > maxBilled && span > time.Minute {
		early, late := in, in
		early.Until = in.Since.Add(span / 2)
		late.Since = early.Until
		if err := b.add(ctx, early); err != nil {
			return err
		}
		return b.add(ctx, late)
	}
	packed, err := b.tx.PackedBetween(in.Since, in.Until)
	if err != nil {
		return err
	}
	in.Attempts = append(packed, in.Attempts...)
	for _, a := range in.Attempts {
		if a.User == b.user && b.user != "" {
			b.hers[string(a.Job)] = true
		}
	}
	b.ledger.Add(in)
	return nil
}

// own leaves only some rows of a bill, and sums them.
func own(rows []api.UsageRow, keys map[string]bool) ([]api.UsageRow, api.UsageRow) {
	rows = slices.DeleteFunc(rows, func(r api.UsageRow) bool { return !keys[r.Key] })
	total := api.UsageRow{Key: "total"}
	for i, r := range rows {
		total.MachineSeconds += r.MachineSeconds
		total.SessionSeconds += r.SessionSeconds
		total.TaskSeconds += r.TaskSeconds
		total.IdleSeconds += r.IdleSeconds
		total.Cost += r.Cost
		if i == 0 {
			total.Currency = r.Currency
		}
		if r.Currency != total.Currency {
			total.Currency = "mixed"
		}
	}
	if total.Currency == "mixed" {
		total.Cost = 0
	}
	return rows, total
}

func (a *API) why(c *call) (why api.Why, err error) {
	kind, name := c.Name("kind"), c.Name("name")
	switch kind {
	case "pool":
		if err = access.Check(c.By, access.View, access.Object{Kind: shoal.ObjectPool, Name: name}); err == nil {
			why, err = a.cfg.Engine.WhyPool(c.Ctx, shoal.PoolName(name))
		}
	case "machine":
		if err = access.Check(c.By, access.View, access.Object{Kind: shoal.ObjectMachine, Name: name}); err == nil {
			why, err = a.cfg.Engine.WhyMachine(c.Ctx, shoal.MachineID(name))
		}
	case "session":
		if _, err = a.sessionFor(c, access.View, name); err == nil {
			why, err = a.cfg.Broker.WhySession(c.Ctx, shoal.SessionID(name))
		}
	case "app":
		if _, err = a.appNamed(c, access.View, shoal.AppID(name)); err == nil {
			why, err = a.cfg.Apps.Why(c.Ctx, shoal.AppID(name))
		}
	case "job":
		why, err = a.cfg.Batch.WhyJob(c.Ctx, c.By, shoal.JobID(name))
	case "login":
		if err = access.Check(c.By, access.View, userObject(name)); err == nil {
			why, err = a.cfg.Broker.WhyLogin(c.Ctx, shoal.UserName(name), shoal.PoolName(c.Query("pool")))
		}
	default:
		err = shoal.Errorf(shoal.KindInvalid, "cannot say why of a %q", kind).WithHint("ask of a pool, machine, session, app, job or login")
	}
	if err != nil {
		return api.Why{}, err
	}
	why.Events = slices.DeleteFunc(why.Events, func(e shoal.Event) bool { return !access.SeesEvent(c.By, e) })
	return why, nil
}
