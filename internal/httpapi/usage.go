package httpapi

import (
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
	by, err := usage.ParseBy(c.query("by"))
	if err != nil {
		return none, err
	}
	since, err := c.instant("since")
	if err != nil {
		return none, err
	}
	all := access.Everybody(c.by, access.ObjectUsage)
	if !all && by != usage.ByUser && by != usage.ByJob {
		return none, shoal.Errorf(shoal.KindDenied, "%s may not see everybody's usage", c.by).WithHint("one's own can be seen by user and by job")
	}
	in := usage.Input{Since: since, Until: time.Now().UTC().Truncate(time.Second)}
	if in.Since.IsZero() {
		in.Since = in.Until.Add(-usageSpan)
	}
	if err := a.usageInput(c, &in); err != nil {
		return none, err
	}
	bill := usage.Bill(in, by)
	rows := make([]api.UsageRow, 0, len(bill.Rows))
	for _, r := range bill.Rows {
		rows = append(rows, api.UsageRow(r))
	}
	total := api.UsageRow(bill.Total)
	if !all {
		rows, total = own(rows, mine(by, c.by.User, in.Attempts))
	}
	return api.Usage{By: string(by), Since: bill.Since, Until: bill.Until, Rows: rows, Total: total}, nil
}

// usageInput reads what a bill is made of.
func (a *API) usageInput(c *call, in *usage.Input) error {
	return a.cfg.Store.View(c.ctx, func(tx *store.Tx) error {
		var users []shoal.User
		var groups []shoal.Group
		var err error
		if in.Intervals, err = tx.IntervalsSince(in.Since); err != nil {
			return err
		}
		if in.Attempts, err = tx.AttemptsSince(in.Since); err != nil {
			return err
		}
		if users, err = tx.Users().List(); err != nil {
			return err
		}
		if groups, err = tx.Groups().List(); err != nil {
			return err
		}
		in.Groups = usage.GroupsOf(users, groups)
		return nil
	})
}

// mine are the keys of the rows that are a user's own.
func mine(by usage.By, user shoal.UserName, attempts []shoal.Attempt) map[string]bool {
	if by == usage.ByUser {
		return map[string]bool{string(user): true}
	}
	keys := map[string]bool{}
	for _, t := range attempts {
		if t.User == user {
			keys[string(t.Job)] = true
		}
	}
	return keys
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
	kind, name := c.name("kind"), c.name("name")
	switch kind {
	case "pool":
		if err = access.Check(c.by, access.View, access.Object{Kind: shoal.ObjectPool, Name: name}); err == nil {
			why, err = a.cfg.Engine.WhyPool(c.ctx, shoal.PoolName(name))
		}
	case "machine":
		if err = access.Check(c.by, access.View, access.Object{Kind: shoal.ObjectMachine, Name: name}); err == nil {
			why, err = a.cfg.Engine.WhyMachine(c.ctx, shoal.MachineID(name))
		}
	case "session":
		if _, err = a.sessionFor(c, access.View, name); err == nil {
			why, err = a.cfg.Broker.WhySession(c.ctx, shoal.SessionID(name))
		}
	case "job":
		why, err = a.cfg.Batch.WhyJob(c.ctx, c.by, shoal.JobID(name))
	case "login":
		if err = access.Check(c.by, access.View, userObject(name)); err == nil {
			why, err = a.cfg.Broker.WhyLogin(c.ctx, shoal.UserName(name), shoal.PoolName(c.query("pool")))
		}
	default:
		err = shoal.Errorf(shoal.KindInvalid, "cannot say why of a %q", kind).WithHint("ask of a pool, machine, session, job or login")
	}
	if err != nil {
		return api.Why{}, err
	}
	why.Events = slices.DeleteFunc(why.Events, func(e shoal.Event) bool { return !access.SeesEvent(c.by, e) })
	return why, nil
}
