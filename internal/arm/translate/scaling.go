package translate

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/arm/tree"
	"github.com/shoal-pool/shoal/internal/spec/naming"
)

// autoscales reads the settings that make scale sets larger and smaller.
func (t *translation) autoscales() {
	for _, r := range t.of("microsoft.insights/autoscalesettings") {
		t.deal(r)
		v := r.Body.Get("properties")
		target := v.Get("targetResourceUri").Tell()
		if on, ok := v.Get("enabled").AsBool(); ok && !on {
			t.note(v.Get("enabled").At, "%s: it is switched off, so the pool keeps its size", what(r))
			continue
		}
		var chosen *tree.Value
		for _, profile := range v.Get("profiles").Items() {
			if chosen == nil && (!timed(profile) || isElse(profile)) {
				chosen = profile
			}
		}
		if chosen == nil && v.Get("profiles").Len() > 0 {
			chosen = v.Get("profiles").Items()[0]
			t.note(chosen.At, "%s: there is no profile for all other times, so the first one counts", what(r))
		}
		if chosen == nil {
			t.wrong(r.At, what(r), "", "the autoscale setting has no profile")
			continue
		}
		size, ok := t.bounds(chosen, what(r))
		if !ok {
			continue
		}
		for _, n := range v.Get("notifications").Items() {
			t.note(n.At, "%s: `shoal events -f` tells what the pool does; the notifications are left out", what(r))
			break
		}
		i := slices.IndexFunc(t.pools, func(p *pool) bool { return slices.Contains(p.ids, tree.Fold(strings.TrimRight(target, "/"))) })
		rules := t.rules(chosen, what(r), target, i >= 0)
		if i >= 0 {
			p := t.pools[i]
			p.Size, p.places["size"] = size, chosen.At
			p.Scale.Rules, p.places["scale"] = rules, chosen.At
			if zone, windows := t.timetable(v.Get("profiles").Items(), what(r)); len(windows) > 0 {
				p.Scale.TimeZone, p.Scale.Schedule = zone, windows
				t.note(v.Get("profiles").At, "%s: its profiles with a time are scale.schedule, by the clock of %s", what(r), zone)
			}
			t.note(chosen.At, "%s: pool %q has %d to %d machines", what(r), p.Name, size.Min, size.Max)
			continue
		}
		if target == "" {
			t.wrong(r.At, what(r), "", "the autoscale setting has no targetResourceUri")
			continue
		}
		if slices.ContainsFunc(v.Get("profiles").Items(), timed) {
			t.note(v.Get("profiles").At, "%s: sizes by the calendar are left out, since the pool is one of before; write them as scale.schedule in its document", what(r))
		}
		name := shoal.PoolName(naming.Of(naming.Last(target), "pool"))
		t.out.Changes = append(t.out.Changes, Change{Pool: name, Size: &size, At: chosen.At})
		t.note(chosen.At, "%s: pool %q of before gets %d to %d machines", what(r), name, size.Min, size.Max)
	}
}

// bounds reads a profile's capacity.
func (t *translation) bounds(profile *tree.Value, title string) (shoal.Size, bool) {
	c := profile.Get("capacity")
	low, _, ok1 := t.count(c.Get("minimum"), title+" capacity.minimum")
	high, at, ok2 := t.count(c.Get("maximum"), title+" capacity.maximum")
	if !ok1 || !ok2 {
		if !c.Get("minimum").Present() || !c.Get("maximum").Present() {
			t.wrong(profile.At, title, "", "the profile has no capacity with a minimum and a maximum")
		}
		return shoal.Size{}, false
	}
	if low > high {
		t.wrong(at, title, "", "the least number of machines (%d) is more than the most (%d)", low, high)
		return shoal.Size{}, false
	}
	if d, dAt, ok := t.count(c.Get("default"), title+" capacity.default"); ok && d != low {
		t.note(dAt, "%s: default %d: the pool always knows what is asked of it, so the size for when that is not known is left out", title, d)
	}
	return shoal.Size{Min: low, Max: high}, true
}

// rules makes ours of the rules by which the old services changed the size, and tells which are left out.
func (t *translation) rules(profile *tree.Value, title, target string, known bool) (rules []shoal.Rule) {
	for _, r := range profile.Get("rules").Items() {
		trigger, action := r.Get("metricTrigger"), r.Get("scaleAction")
		words := fmt.Sprintf("%s %s %s over %s → %s %s", trigger.Get("metricName").Tell(), operator(trigger.Get("operator").Tell()), number(trigger.Get("threshold")),
			trigger.Get("timeWindow").Tell(), strings.ToLower(action.Get("direction").Tell()), amount(action))
		rule, why := ruleOf(trigger, action)
		if of := trigger.Get("metricResourceUri").Tell(); of != "" && !strings.EqualFold(naming.Last(of), naming.Last(target)) {
			why = "it measures something else than the pool, " + tree.Clip(naming.Last(of), 60)
		}
		switch {
		case why == "" && known:
			rules = append(rules, rule)
			t.note(r.At, "%s: %s: a rule of scale.rules; machines with people on them are drained, not ended", title, tree.Clip(words, 200))
		case why == "":
			t.note(r.At, "%s: left out, since the pool is one of before: %s", title, tree.Clip(words, 200))
		default:
			t.note(r.At, "%s: left out (%s): %s", title, why, tree.Clip(words, 200))
		}
	}
	return rules
}

// ruleOf reads one rule, or says why it has no equal here.
func ruleOf(trigger, action *tree.Value) (r shoal.Rule, why string) {
	if name := trigger.Get("metricName").Tell(); !strings.EqualFold(name, "Percentage CPU") && !strings.EqualFold(name, `\Processor(_Total)\% Processor Time`) {
		return r, "a pool knows sessions, seats, queue, cpu, memory and gpu"
	}
	r.Metric = shoal.MetricCPU
	bound, ok := trigger.Get("threshold").AsFloat()
	value, counted := action.Get("value").AsInt()
	grows := strings.EqualFold(action.Get("direction").Tell(), "Increase")
	operator := strings.ToLower(trigger.Get("operator").Tell())
	switch {
	case !ok || bound < 0 || bound > 100 || !counted || value < 0 || value > 10_000:
		return r, "its numbers make no sense"
	case strings.HasPrefix(operator, "greaterthan") && grows:
		r.Above = &bound
	case strings.HasPrefix(operator, "lessthan") && strings.EqualFold(action.Get("direction").Tell(), "Decrease"):
		r.Below = &bound
	default:
		return r, "above a bound a pool grows, and below one it shrinks"
	}
	switch kind := strings.ToLower(action.Get("type").Tell()); {
	case kind == "exactcount":
		to := int(value)
		r.To = &to
	case value == 0:
		return r, "it changes nothing"
	case kind == "percentchangecount":
		r.By = shoal.Step{Percent: int(value)}
	default:
		r.By = shoal.Step{Machines: int(value)}
	}
	switch strings.ToLower(trigger.Get("timeAggregation").Tell()) {
	case "", "average":
		r.Aggregate = "average"
	case "minimum":
		r.Aggregate = "min"
	case "maximum":
		r.Aggregate = "max"
	case "last":
		r.Aggregate = "last"
	default:
		return r, "sums and counts over time are not kept"
	}
	r.Window, r.Cooldown = span(trigger.Get("timeWindow").Tell()), span(action.Get("cooldown").Tell())
	return r, ""
}

// span reads PT5M, PT1H or P1D. What it cannot read is 0: the default.
func span(s string) shoal.Duration {
	s = strings.ToUpper(s)
	if rest, ok := strings.CutPrefix(s, "PT"); ok {
		if d, err := time.ParseDuration(strings.ToLower(rest)); err == nil {
			return shoal.Duration(d)
		}
	}
	if days, ok := strings.CutSuffix(strings.TrimPrefix(s, "P"), "D"); ok {
		if n, err := strconv.Atoi(days); err == nil && n >= 0 && n <= 7 {
			return shoal.Duration(time.Duration(n) * 24 * time.Hour)
		}
	}
	return 0
}

// amount is by how much an action changes the number of machines, or to what.
func amount(action *tree.Value) string {
	n := number(action.Get("value"))
	switch strings.ToLower(action.Get("type").Tell()) {
	case "percentchangecount":
		return n + "%"
	case "exactcount":
		return "to " + n
	}
	return n
}

func number(v *tree.Value) string {
	if v.Present() {
		return v.Tell()
	}
	return "?"
}

func operator(s string) string {
	for _, o := range [][2]string{{"GreaterThanOrEqual", "≥"}, {"LessThanOrEqual", "≤"}, {"GreaterThan", ">"}, {"LessThan", "<"}, {"NotEquals", "≠"}, {"Equals", "="}} {
		if strings.EqualFold(s, o[0]) {
			return o[1]
		}
	}
	return tree.Clip(s, 20)
}
