package show

import (
	"fmt"
	"strings"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/cli/show/term"
	"github.com/shoal-pool/shoal/internal/usage"
)

// scaleFields are what makes a pool larger and smaller beside demand.
func scaleFields(o shoal.Pool) []term.Field {
	var windows, rules, cost []string
	for _, w := range o.Scale.Schedule {
		windows = append(windows, window(w))
	}
	for _, r := range o.Scale.Rules {
		rules = append(rules, rule(r))
	}
	for _, c := range []struct {
		most float64
		of   string
	}{{o.Scale.Cost.PerDay, "day"}, {o.Scale.Cost.PerMonth, "month"}} {
		if c.most > 0 {
			cost = append(cost, fmt.Sprintf("%s %s a %s", usage.Exact(c.most), o.Price.Currency, c.of))
		}
	}
	var zone string
	if len(windows)+len(cost) > 0 {
		zone = o.Scale.Zone().String()
	}
	return []term.Field{{"Schedule", strings.Join(windows, "\n")}, {"Rules", strings.Join(rules, "\n")}, {"Ceiling", strings.Join(cost, ", ")}, {"Clock", zone}}
}

// window is "mornings (mon-fri 07:30-10:30): 4 spare".
func window(w shoal.Window) string {
	when := w
	when.Name = ""
	title := when.Title()
	if w.Name != "" {
		title = fmt.Sprintf("%s (%s)", w.Name, title)
	}
	var what []string
	for _, v := range []struct {
		n    *int
		word string
	}{{w.Min, "min"}, {w.Max, "max"}, {w.Spare, "spare"}} {
		if v.n != nil {
			what = append(what, fmt.Sprintf("%s %d", v.word, *v.n))
		}
	}
	if w.Placement != "" {
		what = append(what, string(w.Placement))
	}
	return title + ": " + strings.Join(what, ", ")
}

// rule is "cpu above 75 (average of 5m): 1 more, then not for 10m".
func rule(r shoal.Rule) string {
	bound, verb := r.Below, "fewer"
	text := fmt.Sprintf("%s below ", r.Metric)
	if r.Grows() {
		bound, verb, text = r.Above, "more", fmt.Sprintf("%s above ", r.Metric)
	}
	if bound != nil {
		text += fmt.Sprintf("%g", *bound)
	}
	if r.Window > 0 {
		text += fmt.Sprintf(" (%s of %s)", r.Aggregate, r.Window)
	}
	if r.To != nil {
		text += fmt.Sprintf(": to %s", Many(*r.To, "machine"))
	} else {
		text += fmt.Sprintf(": %s %s", r.By, verb)
	}
	return text + Only(r.Cooldown > 0, ", then not for "+r.Cooldown.String())
}

// budget is "500 EUR a month, then nothing new begins".
func budget(b shoal.Budget) string {
	if b == (shoal.Budget{}) {
		return ""
	}
	return fmt.Sprintf("%s %s a month%s", usage.Exact(b.PerMonth), b.Currency, Only(b.Stop, "; once it is spent nothing new begins"))
}
