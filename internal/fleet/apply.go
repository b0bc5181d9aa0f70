package fleet

import (
	"slices"
	"time"

	"github.com/shoal-pool/shoal"
)

// Apply puts an action on record: it returns the machine as it is afterwards. Effects change nothing,
// but for what is known when they begin.
func Apply(m shoal.Machine, a Action, now time.Time) shoal.Machine {
	m.Cordons = slices.Clone(m.Cordons)
	if a.Seen != nil && a.Verb != Gone {
		annotate(&m, a.Seen)
	}
	switch a.Verb {
	case Accept:
		Accepted(&m, now)
	case Note:
		m.Reason = a.Reason
	case Empty:
		move(&m, shoal.MachineStopping, a.Reason, now)
	case Halted:
		move(&m, shoal.MachineStopped, a.Reason, now)
		end(&m, now)
	case Restart:
		move(&m, shoal.MachineBooting, "", now)
		m.Epoch++
		m.Started, m.Stopped, m.Address, m.Health, m.HostKey = now, time.Time{}, "", "", ""
		m.Cordons = slices.DeleteFunc(m.Cordons, func(c shoal.Cordon) bool { return c.Owner != shoal.CordonOperator })
	case Fail:
		Failed(&m, a.Reason, now)
	case Gone:
		reason := a.Reason
		if m.ReadyAt.IsZero() && !HasFailed(m) && m.Wanted != shoal.WantRun {
			reason = "" // nobody needed it any more; it is not one that could not start
		}
		if m.Wanted == shoal.WantRun { // it went by itself
			Failed(&m, a.Reason, now)
		}
		move(&m, shoal.MachineGone, reason, now)
		end(&m, now)
		m.Wanted = shoal.WantDelete
	}
	return m
}

func move(m *shoal.Machine, to shoal.MachineState, reason string, now time.Time) {
	if m.State != to {
		m.State, m.Since = to, now
	}
	m.Reason = reason
}

// end closes the time that is billed.
func end(m *shoal.Machine, now time.Time) {
	if !m.Started.IsZero() && m.Stopped.IsZero() {
		m.Stopped = now
	}
	m.IdleAt, m.Load, m.Ill = time.Time{}, shoal.Load{}, nil
}

// Accepted makes a requested machine one that its provider has.
func Accepted(m *shoal.Machine, now time.Time) {
	if m.State != shoal.MachineRequested {
		return
	}
	move(m, shoal.MachineBooting, "", now)
	m.Started = now
}

// Failed makes a machine one that failed: it will be deleted, and another may take its place.
func Failed(m *shoal.Machine, reason string, now time.Time) {
	move(m, shoal.MachineFailed, reason, now)
	m.Wanted, m.Health = shoal.WantDelete, ""
	m.Cordons = slices.DeleteFunc(m.Cordons, func(c shoal.Cordon) bool { return c.Owner == shoal.CordonHealth })
	m.Cordons = append(m.Cordons, shoal.Cordon{Owner: shoal.CordonHealth, Reason: reason, Since: now})
	m.IdleAt, m.Load = time.Time{}, shoal.Load{} // it is billed until its provider has it no more
}

// HasFailed reports whether a machine failed, also after it is gone.
func HasFailed(m shoal.Machine) bool {
	return (m.State == shoal.MachineFailed || m.State == shoal.MachineGone) &&
		slices.ContainsFunc(m.Cordons, func(c shoal.Cordon) bool { return c.Owner == shoal.CordonHealth && c.Reason == m.Reason })
}
