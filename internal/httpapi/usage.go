package httpapi

import (
	"context"
	"slices"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/access"
	"github.com/shoal-pool/shoal/internal/billing"
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
	until := time.Now().UTC().Truncate(time.Second)
	if since.IsZero() {
		since = until.Add(-usageSpan)
	}
	bill, hers, err := a.bill(c, since, until, idle, by)
	if err != nil {
		return none, err
	}
	if !all {
		bill = bill.Only(hers)
	}
	rows := make([]api.UsageRow, 0, len(bill.Rows))
	for _, r := range bill.Rows {
		rows = append(rows, api.UsageRow(r))
	}
	budgets, err := a.budgets(c, all)
	return api.Usage{By: string(by), Since: bill.Since, Until: bill.Until, Rows: rows, Total: api.UsageRow(bill.Total), Budgets: budgets}, err
}

// bill makes a bill of what is on record, with the keys of the rows that are the caller's own.
func (a *API) bill(c *call, since, until time.Time, idle usage.Idle, by usage.By) (t usage.Table, hers map[string]bool, err error) {
	err = a.cfg.Store.View(c.Ctx, func(tx *store.Tx) error {
		hers = map[string]bool{}
		var seen func(shoal.Attempt)
		switch {
		case c.By.User == "":
		case by == usage.ByUser:
			hers[string(c.By.User)] = true
		default:
			seen = func(at shoal.Attempt) {
				if at.User == c.By.User {
					hers[string(at.Job)] = true
				}
			}
		}
		all, err := billing.Bill(c.Ctx, tx, since, until, idle, seen, by)
		if err == nil {
			t = all[0]
		}
		return err
	})
	return t, hers, err
}

// Budgets know how budgets stand.
type Budgets interface {
	Standings(ctx context.Context) ([]usage.Standing, error)
}

// budgets are those that the caller may see: everybody's, or her own and those of her groups.
func (a *API) budgets(c *call, everybody bool) ([]api.BudgetStanding, error) {
	if a.cfg.Budgets == nil {
		return nil, nil
	}
	standings, err := a.cfg.Budgets.Standings(c.Ctx)
	var all []api.BudgetStanding
	for _, s := range standings {
		hers := s.Kind == shoal.ObjectUser && s.Name == string(c.By.User) || s.Kind == shoal.ObjectGroup && slices.Contains(c.By.Groups, shoal.GroupName(s.Name))
		if everybody || hers {
			all = append(all, api.BudgetStanding{Kind: s.Kind, Name: s.Name, Spent: s.Spent, Limit: s.Limit, Currency: s.Currency,
				Stop: s.Stop, Warned: s.Warned(), Over: s.Over(), Until: s.Until, Sentence: s.Sentence()})
		}
	}
	return all, err
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
