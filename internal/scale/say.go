package scale

import (
	"fmt"
	"slices"
	"strings"

	"github.com/shoal-pool/shoal"
)

// say puts the decision into words.
func (p *plan) say() {
	n := p.need
	add := func(code, format string, args ...any) {
		p.Reasons = append(p.Reasons, shoal.Reason{Code: code, Sentence: fmt.Sprintf(format, args...)})
	}
	switch f := p.Pool.Fixed; {
	case p.Pool.Deleting:
		add("deleting", "the pool is being deleted: its machines go as they become empty")
	case p.fixed && f.Until.IsZero():
		add("fixed", "its size was set to %d by hand, until `shoal pool scale %s --auto`", f.Size, p.Pool.Name)
	case p.fixed:
		add("fixed", "its size was set to %d by hand, until %s", f.Size, f.Until.UTC().Format("2006-01-02 15:04 MST"))
	}
	if p.Waiting > 0 {
		if n.waiting == 0 {
			add("waiting", "%s for a seat, and the machines that run or start have enough", waits(p.Waiting, "login"))
		} else {
			add("waiting", "%s for a seat, %d of them beyond the seats of the machines that run or start", waits(p.Waiting, "login"), n.waiting)
		}
	}
	if total := p.queued(); total > 0 {
		room := ""
		if n.unplaced > 0 {
			room = fmt.Sprintf(", %d of them until others have ended: it may have no machine more", n.unplaced)
		}
		add("queue", "%s%s", waits(total, "task"), room)
	}
	if n.impossible > 0 {
		add("impossible", "%s for more than a machine of the pool has (%s; a machine has %s)", asks(n.impossible, "task"), show(n.largest), show(p.Pool.Machine))
	}
	if n.spare > 0 {
		add("spare", "%s of the %d spare ones are missing", count(n.spare, "seat"), p.Pool.Size.Spare)
	}
	if p.need.rule != "" && p.need.rules > 0 {
		add("rule", "%s", p.need.rule)
	} else if p.Rule != "" {
		add("rule", "%s", p.Rule)
	}
	if p.bounds.Window != "" && !p.fixed {
		add("schedule", "window %q of its schedule holds%s: %d to %s, %s spare", p.bounds.Window, p.bounds.until(p.Pool), p.Pool.Size.Min, count(p.Pool.Size.Max, "machine"), count(p.Pool.Size.Spare, "seat"))
	}
	if p.missing > 0 {
		if what, until := p.overspent(); what != "" {
			add("cost", "its machines have cost what they may in a %s, so there are no new ones before %s", what, clock(p.Pool, until))
		} else if p.now.Before(p.Held.Until) {
			add("capacity", "%s wanted, and the provider has no room before %s: %s", areMore(p.missing), clock(p.Pool, p.Held.Until), p.Held.Reason)
		}
	}
	p.sayRollout()
	if p.Pool.Size.Min > 0 && !p.fixed {
		add("min", "it keeps %s at least", count(p.Pool.Size.Min, "machine"))
	}
	wanted := n.machines()
	if p.fixed {
		wanted = p.limit - len(p.serving)
	}
	if missing := wanted - len(p.Restore) - p.Create - p.missing; wanted > 0 && missing > 0 && !p.Pool.Deleting {
		add("max", "it may have %s at most, so %s wanted and not made", count(p.limit, "machine"), areMore(missing))
	}
	if p.Because.Code == "" {
		p.Because = p.because()
	}
}

// because is the strongest reason to grow.
func (p *plan) because() shoal.Reason {
	n := p.need
	switch {
	case p.fixed && p.Pool.Fixed != nil:
		return shoal.Reason{Code: "fixed", Sentence: fmt.Sprintf("the size of the pool was set to %d", p.Pool.Fixed.Size)}
	case n.waiting > 0 && n.seats >= n.tasks:
		return shoal.Reason{Code: "waiting", Sentence: waits(p.Waiting, "login") + " for a seat"}
	case n.tasks > 0 && n.tasks >= n.seats:
		return shoal.Reason{Code: "queue", Sentence: waits(p.queued(), "task")}
	case n.spare > 0:
		return shoal.Reason{Code: "spare", Sentence: fmt.Sprintf("the pool keeps %s free", count(p.Pool.Size.Spare, "seat"))}
	case n.rules > 0 && n.rule != "":
		return shoal.Reason{Code: "rule", Sentence: n.rule}
	case n.rules > 0:
		return shoal.Reason{Code: "default", Sentence: fmt.Sprintf("the figures that its rules ask for are not known yet, and so the pool has %s at least", count(p.Pool.Size.Default, "machine"))}
	case n.min > 0:
		return shoal.Reason{Code: "min", Sentence: fmt.Sprintf("the pool keeps %s at least", count(p.Pool.Size.Min, "machine"))}
	}
	return shoal.Reason{}
}

// queued is the number of tasks that wait and could run.
func (p *plan) queued() int {
	n := -p.need.impossible
	for _, q := range p.Queue {
		n += q.Tasks
	}
	return n
}

func show(r shoal.Resources) string {
	s := fmt.Sprintf("%s processors and %s", r.CPUs, r.Memory)
	if r.GPUs > 0 {
		s += fmt.Sprintf(" and %s", count(r.GPUs, "GPU"))
	}
	return s
}

func waits(n int, noun string) string {
	if n == 1 {
		return "1 " + noun + " waits"
	}
	return count(n, noun) + " wait"
}

func asks(n int, noun string) string {
	if n == 1 {
		return "1 " + noun + " asks"
	}
	return count(n, noun) + " ask"
}

func areMore(n int) string {
	if n == 1 {
		return "1 more is"
	}
	return fmt.Sprintf("%d more are", n)
}

func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// Sentence says in one line what a decision does.
func Sentence(d Decision) string {
	var parts []string
	say := func(n int, verb string) {
		if n > 0 {
			parts = append(parts, fmt.Sprintf("%s %s", count(n, "machine"), verb))
		}
	}
	say(d.Create, "more")
	say(len(d.Restore), "taken back")
	say(len(d.Cordon)+len(d.Roll), "to take nobody new")
	say(len(d.Retire)+len(d.Force), "to go")
	why := d.Because.Sentence
	switch {
	case len(d.Restore) > 0 && why == "":
		why = map[bool]string{true: "it is wanted again", false: "they are wanted again"}[len(d.Restore) == 1]
	case d.Create == 0 && len(d.Restore) == 0 && len(d.Retire) > 0:
		why = d.Retire[0].Reason.Sentence
	case d.Create == 0 && len(d.Restore) == 0 && len(d.Cordon)+len(d.Roll)+len(d.Force) > 0:
		why = slices.Concat(d.Cordon, d.Force, d.Roll)[0].Reason.Sentence
	}
	if len(parts) == 0 {
		if len(d.Reasons) > 0 {
			return "no change: " + d.Reasons[0].Sentence
		}
		return "no change"
	}
	s := strings.Join(parts, ", ")
	if why != "" {
		s += ": " + why
	}
	return s
}
