package spec

import (
	"fmt"
	"time"
	_ "time/tzdata" // hosts without time zones of their own

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/calendar"
)

// The bounds of rules and schedules.
const (
	maxRules    = 50
	maxWindows  = 200
	maxWindow   = shoal.Duration(12 * time.Hour)
	maxCooldown = shoal.Duration(7 * 24 * time.Hour)
	maxProbe    = 1000
)

// completeScale fills in what rules leave open. Azure's rules took five minutes too.
func completeScale(s *shoal.Scale) {
	for i := range s.Rules {
		r := &s.Rules[i]
		fill(&r.Aggregate, "average")
		if r.To == nil {
			fill(&r.By, shoal.Step{Machines: 1})
		}
		if r.Metric.Measured() {
			fill(&r.Window, shoal.Duration(5*time.Minute))
			fill(&r.Cooldown, shoal.Duration(5*time.Minute))
		}
	}
}

func (c *checks) scale(p shoal.Pool) {
	s := p.Scale
	if s.Idle.After <= 0 {
		c.wrong("scale.idle.after", "write 1s for almost at once, or leave it out for 30m", "it has to be more than 0s")
	}
	if unused := shoal.Duration(s.Idle.UnusedFor()); s.Idle.Warn > unused {
		c.wrong("scale.idle.warn", "", "the warning (%s) would come before the session is unused (%s)", s.Idle.Warn, unused)
	}
	if d := time.Duration(s.Idle.Unused); d != 0 && (d < minIdleEnd || d > maxIdleEnd) {
		c.wrong("scale.idle.unused", "leave it out for 12h", "%s is not between %s and %s", s.Idle.Unused, shoal.Duration(minIdleEnd), shoal.Duration(maxIdleEnd))
	}
	if s.Idle.Unused != 0 && !p.Has(shoal.UseInteractive) {
		c.wrong("scale.idle.unused", "add interactive to uses", "the pool takes no logins, so nothing waits there for anybody")
	}
	c.line("scale.idle.probe", s.Idle.Probe, maxProbe)
	if s.TimeZone != "" {
		if _, err := time.LoadLocation(s.TimeZone); err != nil || s.TimeZone == "Local" {
			c.wrong("scale.timeZone", "write Europe/Berlin, or UTC", "there is no time zone %q", clip(s.TimeZone))
		}
	}
	if len(s.Rules) > maxRules {
		c.wrong("scale.rules", "", "these are more than %d rules", maxRules)
		return
	}
	if len(s.Schedule) > maxWindows {
		c.wrong("scale.schedule", "", "these are more than %d windows", maxWindows)
		return
	}
	for i, r := range s.Rules {
		c.rule(fmt.Sprintf("scale.rules[%d]", i), r, p)
	}
	c.agree(s.Rules)
	for i, w := range s.Schedule {
		c.window(fmt.Sprintf("scale.schedule[%d]", i), w, p)
	}
	c.hidden(s.Schedule)
	c.ceiling(p)
}

// hidden refuses windows that never hold, because others count before them at all of their times.
func (c *checks) hidden(schedule []shoal.Window) {
	var all []calendar.Window
	for _, w := range schedule {
		x, bad := calendar.Read(calendar.Text{Days: w.Days, Dates: w.Dates, From: w.From, To: w.To})
		if len(bad) > 0 || len(w.Days) > 0 && len(w.Dates) > 0 {
			x = calendar.Window{} // that comes first
		}
		all = append(all, x)
	}
	for i, w := range all {
		at, hint := fmt.Sprintf("scale.schedule[%d]", i), "of the same sort the later counts: leave it out, or write it after those that count before it"
		if !w.Covered(all[i+1:]) {
			continue
		}
		others := "later windows count"
		for k := i + 1; k < len(all); k++ {
			if w.Covered(all[k : k+1]) {
				others = fmt.Sprintf("scale.schedule[%d] counts", k)
			}
		}
		c.wrong(at, hint, "it could never hold: %s before it at all of its times", others)
	}
}

func (c *checks) rule(at string, r shoal.Rule, p shoal.Pool) {
	c.oneOf(at+".metric", string(r.Metric), "sessions", "seats", "queue", "cpu", "memory", "gpu")
	c.oneOf(at+".aggregate", r.Aggregate, "average", "min", "max", "last")
	if (r.Metric == shoal.MetricSessions || r.Metric == shoal.MetricSeats) && !p.Has(shoal.UseInteractive) {
		c.wrong(at+".metric", "add interactive to uses", "the pool takes no logins, so it has no sessions")
	}
	if r.Metric == shoal.MetricQueue && !p.Has(shoal.UseBatch) {
		c.wrong(at+".metric", "add batch to uses", "the pool takes no jobs, so no tasks wait")
	}
	if r.Metric == shoal.MetricGPU && p.Machine.GPUs == 0 {
		c.wrong(at+".metric", "", "machines of the pool have no GPUs")
	}
	bound := r.Above
	switch {
	case r.Above == nil && r.Below == nil:
		c.wrong(at, "add `above: 70` to make the pool larger, or `below: 20` to make it smaller", "the rule says neither above nor below")
		return
	case r.Above != nil && r.Below != nil:
		c.wrong(at+".below", "write two rules", "a rule is either for above or for below")
	case r.Above == nil:
		bound = r.Below
	}
	if percent := r.Metric != shoal.MetricSessions && r.Metric != shoal.MetricQueue; !finite(*bound) || *bound < 0 || percent && *bound > 100 || *bound > 1e6 {
		c.wrong(at, "", "%v can never be a bound of %s", *bound, r.Metric)
	}
	if r.To != nil {
		if r.By != (shoal.Step{}) {
			c.wrong(at+".to", "leave one of them out", "a rule changes the size either by a number of machines or to one")
		}
		c.within(at+".to", *r.To, 0, p.Size.Max)
		if r.Above != nil && *r.To == 0 {
			c.wrong(at+".to", "write above for more machines, below for fewer", "no pool is made larger by having 0 machines")
		}
	}
	if r.Window < 0 || r.Window > maxWindow {
		c.wrong(at+".window", "", "%s is not between 0s and %s", r.Window, maxWindow)
	} else if r.Metric.Measured() && r.Window < shoal.Duration(time.Minute) {
		c.wrong(at+".window", "write 5m", "the figures are taken once a minute")
	}
	if r.Cooldown < 0 || r.Cooldown > maxCooldown {
		c.wrong(at+".cooldown", "", "%s is not between 0s and %s", r.Cooldown, maxCooldown)
	}
}

// agree refuses rules of which one would make the pool larger and another smaller at the same time.
func (c *checks) agree(rules []shoal.Rule) {
	for i, low := range rules {
		for k, high := range rules {
			if low.Below != nil && high.Above != nil && low.Metric == high.Metric && *low.Below > *high.Above && low.Aggregate == high.Aggregate && low.Metric.Measured() {
				c.wrong(fmt.Sprintf("scale.rules[%d].below", i), "leave room between the two", "between %v and %v the pool would be made smaller by this rule, and larger by scale.rules[%d]",
					*high.Above, *low.Below, k)
			}
		}
	}
}

func (c *checks) window(at string, w shoal.Window, p shoal.Pool) {
	c.line(at+".name", w.Name, 64)
	switch {
	case len(w.Days) == 0 && len(w.Dates) == 0:
		c.wrong(at, "add `days: [mon-fri]`, or `dates: [2026-12-24/2026-12-26]`", "the window has neither days nor dates")
	case len(w.Days) > 0 && len(w.Dates) > 0:
		c.wrong(at+".dates", "write two windows", "a window is either for days of the week or for dates")
	}
	if len(w.Days) > 7 || len(w.Dates) > 400 {
		c.wrong(at, "", "these are too many days")
		return
	}
	_, bad := calendar.Read(calendar.Text{Days: w.Days, Dates: w.Dates, From: w.From, To: w.To})
	for _, b := range bad {
		c.wrong(at+"."+b.Field, b.Hint, "%s", b.Message)
	}
	if w.Min == nil && w.Max == nil && w.Spare == nil && w.Placement == "" {
		c.wrong(at, "add min, max, spare or placement", "nothing is different in this window")
	}
	low, high, spare := p.Size.Min, p.Size.Max, p.Size.Spare
	for _, f := range []struct {
		name string
		from *int
		to   *int
		most int
	}{{"min", w.Min, &low, maxMachines}, {"max", w.Max, &high, maxMachines}, {"spare", w.Spare, &spare, maxMachines * maxSeats}} {
		if f.from != nil {
			c.within(at+"."+f.name, *f.from, 0, f.most)
			*f.to = *f.from
		}
	}
	if low > high && w.Min != nil {
		c.wrong(at+".min", "", "the least number of machines (%d) is more than the most in this window (%d)", low, high)
	}
	if spare > high*p.Seats && w.Spare != nil {
		c.wrong(at+".spare", "it counts seats", "%d spare seats are more than %d machines of %d seats have", spare, high, p.Seats)
	}
	if w.Placement != "" {
		c.oneOf(at+".placement", string(w.Placement), string(shoal.PlaceSpread), string(shoal.PlacePack), string(shoal.PlaceLeastLoaded))
	}
}

func (c *checks) ceiling(p shoal.Pool) {
	for _, f := range []struct {
		path string
		most float64
	}{{"scale.cost.perDay", p.Scale.Cost.PerDay}, {"scale.cost.perMonth", p.Scale.Cost.PerMonth}} {
		if !finite(f.most) || f.most < 0 || f.most > 1e9 {
			c.wrong(f.path, "", "%v cannot be a cost", f.most)
		}
		if f.most > 0 && p.Price.PerHour == 0 {
			c.wrong(f.path, "add `price: {perHour: 0.40, currency: EUR}`", "the pool has no price, so it never costs anything")
		}
	}
	if d, m := p.Scale.Cost.PerDay, p.Scale.Cost.PerMonth; m > 0 && d > m {
		c.wrong("scale.cost.perDay", "", "it is more than a month may cost")
	}
}
