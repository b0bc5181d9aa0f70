package usage

import (
	"fmt"
	"slices"
	"time"

	"github.com/shoal-pool/shoal"
)

// warnAt is the part of a budget at which it is warned.
const warnAt = 0.8

// Standing is how a budget stands: of a user, of a group, or of a pool, whose budget is its ceiling of a month.
type Standing struct {
	Kind     shoal.ObjectKind
	Name     string
	Spent    float64
	Limit    float64
	Currency string
	Stop     bool // nothing new once it is spent
	Until    time.Time
}

// Warned reports whether most of it is spent.
func (s Standing) Warned() bool { return s.Spent >= warnAt*s.Limit }

// Over reports whether all of it is spent.
func (s Standing) Over() bool { return s.Spent >= s.Limit }

// Whose is whose budget it is, in words.
func (s Standing) Whose() string {
	switch s.Kind {
	case shoal.ObjectUser:
		return "user " + s.Name
	case shoal.ObjectGroup:
		return "group " + s.Name
	}
	return "pool " + s.Name
}

// Sentence says how it stands.
func (s Standing) Sentence() string {
	return fmt.Sprintf("%s has spent %s of the %s %s of %s", s.Whose(), Money(s.Spent), Exact(s.Limit), s.Currency, s.Until.AddDate(0, 0, -1).Format("January 2006"))
}

// Month is the calendar month (UTC) of a time.
func Month(now time.Time) (since, until time.Time) {
	y, m, _ := now.UTC().Date()
	since = time.Date(y, m, 1, 0, 0, 0, 0, time.UTC)
	return since, since.AddDate(0, 1, 0)
}

// Objects are those that may have budgets.
type Objects struct {
	Users  []shoal.User
	Groups []shoal.Group
	Pools  []shoal.Pool
}

// Budgets are the budgets there are, with nothing spent, by kind and name. until is the end of the month.
func (o Objects) Budgets(until time.Time) (all []Standing) {
	add := func(kind shoal.ObjectKind, name string, b shoal.Budget) {
		if b.PerMonth > 0 {
			all = append(all, Standing{Kind: kind, Name: name, Limit: b.PerMonth, Currency: b.Currency, Stop: b.Stop, Until: until})
		}
	}
	for _, g := range o.Groups {
		add(shoal.ObjectGroup, string(g.Name), g.Budget)
	}
	for _, p := range o.Pools {
		add(shoal.ObjectPool, string(p.Name), shoal.Budget{PerMonth: p.Scale.Cost.PerMonth, Currency: p.Price.Currency})
	}
	for _, u := range o.Users {
		add(shoal.ObjectUser, string(u.Name), u.Budget)
	}
	return all
}

// by says by which rows of a bill a standing's kind is counted.
func (s Standing) by() By {
	switch s.Kind {
	case shoal.ObjectUser:
		return ByUser
	case shoal.ObjectGroup:
		return ByGroup
	}
	return ByPool
}

// Stand puts into standings what bills say of the month. What was spent in another currency than a budget's does not
// count against it.
func Stand(all []Standing, bills ...Table) {
	for i := range all {
		s := &all[i]
		for _, t := range bills {
			if t.By != s.by() {
				continue
			}
			for _, r := range t.Rows {
				if r.Key == s.Name && r.Currency == s.Currency {
					s.Spent += r.Cost
				}
			}
		}
	}
}

// Refuse returns why a user may begin nothing new; nil if she may. groups are hers.
func Refuse(all []Standing, user shoal.UserName, groups []shoal.GroupName) error {
	for _, s := range all {
		if !s.Stop || !s.Over() {
			continue
		}
		if s.Kind == shoal.ObjectUser && s.Name == string(user) || s.Kind == shoal.ObjectGroup && slices.Contains(groups, shoal.GroupName(s.Name)) {
			return shoal.Errorf(shoal.KindExhausted, "nothing new begins for user %s: %s", user, s.Sentence()).
				WithHint("what runs goes on; ask whoever administers Shoal for a larger budget of %s, or wait until %s", s.Whose(), s.Until.Format("2 January"))
		}
	}
	return nil
}
