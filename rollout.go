package shoal

import "time"

// Rollout says how machines are replaced that are not as their pool or its image is now.
type Rollout struct {
	// Surge is how many machines there may be above size.max while old ones are replaced. Default: 1. See Pool.Surge.
	Surge *int `json:"surge,omitempty"`
	// Deadline is how long after the change an old machine is ended with whoever is there. Default: never, it is
	// replaced when nobody is on it.
	Deadline Duration `json:"deadline,omitempty"`
}

// Repair says how machines are replaced that do not work.
type Repair struct {
	AtOnce int `json:"atOnce,omitempty"` // so many at a time. Default: a tenth of the machines, one at least. See Pool.AtOnce
	// Tries is how many new machines in a row may fail until no more are made. Default: 8. See Pool.Tries.
	Tries int `json:"tries,omitempty"`
}

// AtOnce is how many of so many machines are replaced at a time because they do not work.
func (p Pool) AtOnce(of int) int {
	if p.Repair.AtOnce > 0 {
		return p.Repair.AtOnce
	}
	return max(of/10, 1)
}

// Pause is a rollout that somebody has stopped.
type Pause struct {
	By    string    `json:"by"`
	Since time.Time `json:"since"`
}

// Surge is how many machines there may be above size.max during a rollout.
func (p Pool) Surge() int {
	if p.Rollout.Surge != nil {
		return *p.Rollout.Surge
	}
	return 1
}

// usualTries take a few minutes beside what the machines need to fail.
const usualTries = 8

// Tries is how many new machines in a row may fail until no more are made.
func (p Pool) Tries() int {
	if p.Repair.Tries > 0 {
		return p.Repair.Tries
	}
	return usualTries
}

// Ends says when a machine is ended with whoever is on it, and why; a zero time: that is not planned.
func (m Machine) Ends() (at time.Time, why string) {
	if m.EndsAt.After(at) {
		at, why = m.EndsAt, "its pool was changed"
	}
	for _, c := range m.Cordons {
		if c.Owner == CordonOperator && !c.Deadline.IsZero() && (at.IsZero() || c.Deadline.Before(at)) {
			at, why = c.Deadline, c.Reason
		}
	}
	return at, why
}
