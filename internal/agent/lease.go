package agent

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
)

// lease is for how long tasks may run without an answer from the control plane. It is counted from when the report
// that was answered last was sent, which is before the control plane begins to count, so that tasks have
// ended here when it starts others elsewhere. What ends them sits with the tasks, in another process.
//
// When the lease has run out, the control plane may have given the tasks of this machine away; so what it had
// sent before is not acted on. A report must be answered first, and then a new stream says what is to run.
type lease struct {
	mu       sync.Mutex
	length   time.Duration // zero: no lease, or not known yet
	answered time.Duration // by Config.Uptime; meaningful if known
	known    bool
	gaps     int // counts how often it has run out
}

// errStale ends a stream whose orders may not be carried out any more.
var errStale = errors.New("the lease has run out")

// take takes the length that a Snapshot names.
func (a *Agent) takeLease(length shoal.Duration) {
	l := &a.lease
	l.mu.Lock()
	l.length = time.Duration(length)
	until, ok := l.until()
	l.mu.Unlock()
	if ok && a.cfg.Fence != nil {
		a.cfg.Fence.Renew(until)
	}
}

// until is when the lease ends. The caller holds the lock.
func (l *lease) until() (time.Duration, bool) {
	return l.answered + l.length, l.known && l.length > 0
}

// answered notes that a report was answered that was sent at a time. If the lease had run out meanwhile, the stream
// ends with what it says.
func (a *Agent) answered(sent time.Duration) {
	l := &a.lease
	l.mu.Lock()
	gap := l.known && l.length > 0 && sent >= l.answered+l.length
	if gap {
		l.gaps++
	}
	l.answered, l.known = max(l.answered, sent), true
	until, ok := l.until()
	l.mu.Unlock()
	if gap {
		a.rejoinNow()
	}
	if ok && a.cfg.Fence != nil {
		a.cfg.Fence.Renew(until)
	}
}

// fresh reports whether orders of a stream that was opened after so many gaps may be carried out.
func (a *Agent) fresh(gaps int) bool {
	l := &a.lease
	l.mu.Lock()
	defer l.mu.Unlock()
	until, ok := l.until()
	return l.length == 0 || ok && gaps == l.gaps && a.cfg.Uptime() < until
}

// checkIn has a report answered if the lease has run out, or was never begun on a machine that may have tasks, before a
// stream is opened. It returns the number of gaps so far.
func (a *Agent) checkIn(ctx context.Context) (gaps int, err error) {
	l := &a.lease
	l.mu.Lock()
	gaps = l.gaps
	first := !l.known && a.cfg.Host.Booted()
	l.mu.Unlock()
	if !first && a.fresh(gaps) {
		return gaps, nil
	}
	sent := a.cfg.Uptime()
	if _, err := a.control.report(ctx, api.Report{}); err != nil {
		return 0, err
	}
	a.answered(sent)
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.gaps, nil
}

// reportEvery is how often a report must be sent, so that one may be lost and the lease still holds.
func (a *Agent) reportEvery(heartbeat time.Duration) time.Duration {
	a.lease.mu.Lock()
	defer a.lease.mu.Unlock()
	if heartbeat <= 0 {
		heartbeat = defaultHeartbeat
	}
	if a.lease.length > 0 {
		heartbeat = min(heartbeat, a.lease.length/3)
	}
	return heartbeat
}
