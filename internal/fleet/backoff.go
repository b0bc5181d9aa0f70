package fleet

import (
	"fmt"
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

// Backoff says whether a pool has to wait for its next machine, because its machines failed one after
// another. Recent are machines of the pool, those gone included, in any order.
func Backoff(recent []shoal.Machine) (Hold, bool) {
	var worked time.Time // when one last worked
	for _, m := range recent {
		if !m.ReadyAt.IsZero() && !crashed(m) && m.ReadyAt.After(worked) {
			worked = m.ReadyAt
		}
	}
	failures := 0
	var latest shoal.Machine
	for _, m := range recent {
		if !crashed(m) || failedAt(m).Before(worked) {
			continue
		}
		if failures++; failures == 1 || failedAt(m).After(failedAt(latest)) {
			latest = m
		}
	}
	if failures == 0 {
		return Hold{}, false
	}
	why := "the last machine failed: " + latest.Reason
	if failures > 1 {
		why = fmt.Sprintf("%d machines in a row failed, the last one: %s", failures, latest.Reason)
	}
	return Hold{Until: failedAt(latest).Add(delay(failures)), Reason: why, Single: failures > 1}, true
}

// crashed reports whether a machine failed before it had worked for a while.
func crashed(m shoal.Machine) bool {
	return HasFailed(m) && (m.ReadyAt.IsZero() || failedAt(m).Sub(m.ReadyAt) < steady)
}

func failedAt(m shoal.Machine) time.Time {
	for _, c := range m.Cordons {
		if c.Owner == shoal.CordonHealth {
			return c.Since
		}
	}
	return m.Since
}
