package fleet

import (
	"fmt"
	"slices"
	"time"

	"github.com/shoal-pool/shoal"
)

// steady is how long a machine must have been ready to count as one that works.
const steady = time.Minute

// delay is how long a pool waits for its next machine after so many failures in a row. The first is
// short, for it may have been bad luck; the longest keeps a login that waits from waiting in vain for long.
func delay(failures int) time.Duration {
	delays := []time.Duration{0, time.Second, 5 * time.Second, 15 * time.Second, 30 * time.Second, time.Minute}
	if failures < len(delays) {
		return delays[failures]
	}
	return 2 * time.Minute
}

// stopped is how long a pool waits after too many failures: whoever must mend what is wrong says when it is mended, or
// changes the pool, and what mends itself is found out all the same.
const stopped = 30 * time.Minute

// Failures are machines of a pool that failed one after another.
type Failures struct {
	N    int
	At   time.Time // when the last one did
	Last shoal.Machine
}

// FailuresOf counts what failed since a machine last worked. Recent are machines of a pool, those gone included, in any
// order. What is on record for a time that is still to come says nothing: the clock was put back since.
func FailuresOf(recent []shoal.Machine, now time.Time) (f Failures) {
	recent = slices.DeleteFunc(slices.Clone(recent), func(m shoal.Machine) bool { return m.Since.After(now) })
	var worked time.Time // when one last worked
	for _, m := range recent {
		if !m.ReadyAt.IsZero() && !crashed(m) && m.ReadyAt.After(worked) {
			worked = m.ReadyAt
		}
	}
	for _, m := range recent {
		at := FailedAt(m)
		if !crashed(m) || at.Before(worked) {
			continue
		}
		if f.N++; f.N == 1 || at.After(f.At) {
			f.At, f.Last = at, m
		}
	}
	return f
}

// Backoff says whether the pool has to wait for its next machine. After so many failures as it has tries it waits for
// long; 0: never.
func (f Failures) Backoff(tries int) (Hold, bool) {
	switch {
	case f.N == 0:
		return Hold{}, false
	case tries > 0 && f.N >= tries:
		return Hold{Until: f.At.Add(stopped), Single: true, Stopped: true,
			Reason: fmt.Sprintf("no more are made, since %d machines in a row failed, the last one: %s", f.N, f.Last.Reason)}, true
	case f.N > 1:
		return Hold{Until: f.At.Add(delay(f.N)), Single: true, Reason: fmt.Sprintf("%d machines in a row failed, the last one: %s", f.N, f.Last.Reason)}, true
	}
	return Hold{Until: f.At.Add(delay(f.N)), Reason: "the last machine failed: " + f.Last.Reason}, true
}

// crashed reports whether a machine failed before it had worked for a while.
func crashed(m shoal.Machine) bool {
	return HasFailed(m) && (m.ReadyAt.IsZero() || FailedAt(m).Sub(m.ReadyAt) < steady)
}

// FailedAt is when a machine failed.
func FailedAt(m shoal.Machine) time.Time {
	for _, c := range m.Cordons {
		if c.Owner == shoal.CordonHealth {
			return c.Since
		}
	}
	return m.Since
}
