package translate

import (
	"fmt"
	"slices"
	"strings"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/arm/tree"
)

// autoscales reads the settings that make scale sets larger and smaller.
func (t *translation) autoscales() {
	for _, r := range t.of("microsoft.insights/autoscalesettings") {
		t.deal(r)
		v := r.Body.Get("properties")
		target := v.Get("targetResourceUri").Text()
		if on, ok := v.Get("enabled").AsBool(); ok && !on {
			t.note(v.Get("enabled").At, "%s: it is switched off, so the pool keeps its size", what(r))
			continue
		}
		var chosen *tree.Value
		for _, profile := range v.Get("profiles").Items() {
			if profile.Get("recurrence").Present() || profile.Get("fixedDate").Present() {
				t.note(profile.At, "%s profile %s: sizes by the calendar have no effect in this version of Shoal; it is left out", what(r), profile.Get("name").Show())
				continue
			}
			if chosen == nil {
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
		t.rules(chosen, what(r))
		i := slices.IndexFunc(t.pools, func(p *pool) bool { return slices.Contains(p.ids, tree.Fold(strings.TrimRight(target, "/"))) })
		if i >= 0 {
			p := t.pools[i]
			p.Size, p.places["size"] = size, chosen.At
			t.note(chosen.At, "%s: pool %q has %d to %d machines", what(r), p.Name, size.Min, size.Max)
			continue
		}
		if target == "" {
			t.wrong(r.At, what(r), "", "the autoscale setting has no targetResourceUri")
			continue
		}
		name := shoal.PoolName(nameOf(lastOf(target), "pool"))
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

// rules tells what becomes of the rules by which the old services changed the size.
func (t *translation) rules(profile *tree.Value, title string) {
	for i, r := range profile.Get("rules").Items() {
		trigger, action := r.Get("metricTrigger"), r.Get("scaleAction")
		words := fmt.Sprintf("%s %s %s over %s → %s %s", trigger.Get("metricName").Text(), operator(trigger.Get("operator").Text()), number(trigger.Get("threshold")),
			trigger.Get("timeWindow").Text(), strings.ToLower(action.Get("direction").Text()), number(action.Get("value")))
		if i == 0 {
			t.note(r.At, "%s: a pool grows when logins or tasks wait and shrinks when machines are idle for scale.idle, so its rules are left out", title)
		}
		t.note(r.At, "%s: left out: %s", title, tree.Clip(words, 200))
	}
}

func number(v *tree.Value) string {
	if v.Present() {
		return v.Text()
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
