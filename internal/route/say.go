package route

import (
	"fmt"

	"github.com/shoal-pool/shoal"
)

// waiting says what somebody at a position of the line waits for.
func (t *table) waiting(position int) shoal.Reason {
	var requested, booting, full, draining, silent int
	for i := range t.Machines {
		m := &t.Machines[i]
		switch {
		case m.State == shoal.MachineRequested:
			requested++
		case m.State == shoal.MachineBooting:
			booting++
		case m.Accepts() && t.taken[m.ID] < t.seats: // else nobody would wait
			silent++
		case m.Accepts():
			full++
		case m.State == shoal.MachineReady && len(m.Cordons) > 0:
			draining++
		case m.State == shoal.MachineReady:
			silent++
		}
	}
	alive := requested + booting + full + draining + silent
	most := t.most()
	reason := shoal.Reason{Code: "full"}
	line := ""
	if position > 1 {
		line = fmt.Sprintf("; you are %s in line", ordinal(position))
	}
	switch {
	case booting > 0 && full > 0:
		reason.Code = "booting"
		reason.Sentence = fmt.Sprintf("all %s are taken; another machine of pool %s is booting", t.places(full), t.Pool.Name)
	case booting > 0:
		reason.Code = "booting"
		reason.Sentence = t.waking() + ": booting" + t.because()
	case requested > 0 && full > 0:
		reason.Code = "requested"
		reason.Sentence = fmt.Sprintf("all %s are taken; another machine of pool %s is requested", t.places(full), t.Pool.Name)
	case requested > 0:
		reason.Code = "requested"
		reason.Sentence = t.waking() + ": requested"
	case full > 0 && alive >= most:
		line = fmt.Sprintf("; you are %s in line", ordinal(position))
		reason.Sentence = fmt.Sprintf("all %s of pool %s are taken", t.places(full), t.Pool.Name)
		if draining+silent > 0 {
			reason.Sentence += fmt.Sprintf(" and %s take nobody new", count(draining+silent, "other machine"))
		}
		if t.Pool.Fixed != nil {
			reason.Sentence += fmt.Sprintf("; its size was set to %d by hand", most)
		}
	case full > 0:
		reason.Code = "requested"
		reason.Sentence = fmt.Sprintf("all %s of pool %s are taken; another machine is wanted", t.places(full), t.Pool.Name)
	case draining > 0 && alive >= most:
		reason.Code = "draining"
		reason.Sentence = fmt.Sprintf("%s of pool %s: draining, and the pool may have no more", count(draining, "machine"), t.Pool.Name)
	case silent > 0 && alive >= most:
		reason.Code = "silent"
		reason.Sentence = fmt.Sprintf("%s of pool %s: not answering, and the pool may have no more", count(silent, "machine"), t.Pool.Name)
	case silent > 0:
		reason.Code = "requested"
		reason.Sentence = fmt.Sprintf("%s of pool %s: not answering; another machine is wanted", count(silent, "machine"), t.Pool.Name)
	default:
		reason.Code = "requested"
		reason.Sentence = fmt.Sprintf("no machine of pool %s runs; one is wanted", t.Pool.Name)
	}
	reason.Sentence += line
	return reason
}

// waking names what is on its way: the machine, or how many.
func (t *table) waking() string {
	var coming []shoal.MachineID
	for _, m := range t.Machines {
		if m.State == shoal.MachineRequested || m.State == shoal.MachineBooting {
			coming = append(coming, m.ID)
		}
	}
	if len(coming) == 1 {
		return fmt.Sprintf("waking machine %s of pool %s", coming[0], t.Pool.Name)
	}
	return fmt.Sprintf("waking %s of pool %s", count(len(coming), "machine"), t.Pool.Name)
}

// because is what a machine that boots says it waits for, if one does.
func (t *table) because() string {
	for _, m := range t.Machines {
		if m.State == shoal.MachineBooting && m.Reason != "" {
			return "; " + m.Reason
		}
	}
	return ""
}

// booting says how far the machine is that somebody waits for by name.
func (t *table) booting(id shoal.MachineID) shoal.Reason {
	state := shoal.MachineRequested
	if m := t.byID[id]; m != nil {
		state = m.State
	}
	return shoal.Reason{Code: string(state), Sentence: fmt.Sprintf("waking machine %s: %s", id, state)}
}

// places is "8 seats of 4 machines".
func (t *table) places(machines int) string {
	return count(machines*t.seats, "seat") + " of " + count(machines, "machine")
}

func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

func ordinal(n int) string {
	suffix := "th"
	if n%100 < 11 || n%100 > 13 {
		switch n % 10 {
		case 1:
			suffix = "st"
		case 2:
			suffix = "nd"
		case 3:
			suffix = "rd"
		}
	}
	return fmt.Sprintf("%d%s", n, suffix)
}

func because(reason string) string {
	if reason == "" {
		return ""
	}
	return ": " + reason
}
