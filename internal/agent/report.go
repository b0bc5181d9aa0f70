package agent

import (
	"context"
	"errors"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
)

// Times of reporting and looking.
const (
	defaultHeartbeat = time.Minute
	afterDoor        = 100 * time.Millisecond // until one who came or went is seen
	lookFirst        = 2 * time.Second        // between looks at a machine with somebody on it, after a change
	lookLast         = 15 * time.Second       // and when nothing changes
	quiet            = 5 * time.Second        // after the last one went, until nobody is looked for
	inputWorth       = 30 * time.Second       // newer input is worth a report
	cpuWorth         = 20                     // so is a change of so many percent
	lastReport       = time.Second            // for what is sent at the end
	busy             = 100 * time.Millisecond // between reports, while tasks come and go
	gather           = 2 * time.Millisecond   // for news of others to go with that of one, then
)

// maxBytes bounds the output of tasks in one report.
const maxBytes = 512 << 10

// watch is what the report loop remembers of its looks. Only that goroutine has it.
type watch struct {
	next     time.Time     // zero: only with the heartbeat
	every    time.Duration // grows while nothing changes
	lastDoor time.Time
	sent     api.Activity // as the control plane knows it
	known    bool         // it was sent at all
	failed   string
}

// report sends what there is to report. What comes while one is under way goes with the next.
func (a *Agent) report(ctx context.Context) error {
	var w watch
	var p pauses
	beat := time.Now() // when the next heartbeat is due
	timer := time.NewTimer(0)
	defer timer.Stop()
	said := ""
	var reported time.Time
	var appsChanged, probesChanged <-chan struct{}
	if a.cfg.Apps != nil {
		appsChanged = a.cfg.Apps.Changed()
	}
	if a.cfg.Probes != nil {
		probesChanged = a.cfg.Probes.Changed()
	}
	var heldChanged <-chan struct{}
	if a.cfg.Site != nil {
		heldChanged = a.cfg.Site.Changed()
	}
	for {
		select {
		case <-ctx.Done():
			a.farewell()
			return ctx.Err()
		case <-a.wake:
		case <-a.cfg.Tasks.Changed():
			if time.Since(reported) < busy {
				time.Sleep(gather)
			}
		case <-appsChanged:
		case <-probesChanged:
		case <-heldChanged:
			a.mu.Lock()
			a.out.snapshot = true
			a.mu.Unlock()
		case <-a.cfg.Door:
			w.door(time.Now())
		case <-timer.C:
		}
		now := time.Now()
		if !now.Before(beat) && a.cfg.Replaced != nil && a.cfg.Replaced() {
			a.cfg.Log.Info("a newer agent takes over")
			a.farewell()
			return ErrReplaced
		}
		if wait := a.notYet(now); wait > 0 || a.control.bearer() == "" {
			if wait <= 0 {
				wait = defaultHeartbeat // link wakes us once it has joined
			}
			timer.Reset(wait)
			continue
		}
		err := a.reportOnce(ctx, &w, now, &beat)
		if ctx.Err() == nil && err != nil {
			if text := err.Error(); text != said {
				said = text
				a.cfg.Log.Warn("cannot report; trying again", "error", err)
			}
			if p.wait(ctx, a.linked) {
				poke(a.wake)
			}
			continue
		}
		p.reset()
		said, reported = "", time.Now()
		timer.Reset(time.Until(w.due(beat)))
	}
}

// notYet is how long there is nothing to say: until it is known what the machine should be, and in the
// first moments of a boot, at whose end one report says all. Whoever ends that sooner wakes the loop.
func (a *Agent) notYet(now time.Time) time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.want.seq == 0 {
		return defaultHeartbeat
	}
	return a.out.notYet.Sub(now)
}

// due is when there is next something to do without anybody saying so.
func (w *watch) due(beat time.Time) time.Time {
	t := beat
	if !w.next.IsZero() && w.next.Before(t) {
		t = w.next
	}
	return t
}

// reportOnce sends one report, if there is anything in it or a heartbeat is due.
func (a *Agent) reportOnce(ctx context.Context, w *watch, now time.Time, beat *time.Time) error {
	due := !now.Before(*beat)
	var r api.Report
	a.mu.Lock()
	all := a.out.snapshot
	a.out.snapshot = false
	if a.out.look {
		a.out.look, w.known, w.next = false, false, now
	}
	looked := a.out.looked
	boot := a.out.boot
	r.Boot = boot
	if a.out.rev != 0 && a.out.rev != a.out.revSent {
		r.Accounts = a.out.rev
	}
	heartbeat := a.reportEvery(time.Duration(a.want.snapshot.Heartbeat))
	have := a.want.snapshot.Resources
	a.mu.Unlock()
	if due || !w.next.IsZero() && !now.Before(w.next) {
		r.Activity = a.look(w, now, due)
	}
	if due || all {
		load := a.cfg.Host.Load(have)
		if a.cfg.Site != nil {
			load.Held = a.cfg.Site.Held()
		}
		r.Load = &load
	}
	if r.Activity != nil && r.Load != nil {
		r.Looked = looked
	}
	var sent func()
	r.Tasks, r.Output, sent = a.cfg.Tasks.Collect(maxBytes)
	appsSent := func() {}
	if a.cfg.Apps != nil {
		r.Apps, appsSent = a.cfg.Apps.Collect()
	}
	probesSent := func() {}
	if a.cfg.Probes != nil {
		r.Endpoints, probesSent = a.cfg.Probes.Collect()
	}
	if r.Boot == nil && r.Accounts == 0 && len(r.Apps)+len(r.Endpoints) == 0 && r.Activity == nil && r.Load == nil && len(r.Tasks) == 0 && len(r.Output) == 0 {
		return nil
	}
	at := a.cfg.Uptime()
	answer, err := a.control.report(ctx, r)
	if err != nil {
		if shoal.KindOf(err) == shoal.KindUnauthenticated {
			a.rejoinNow()
		}
		if r.Activity != nil {
			w.known, w.next = false, now
		}
		if all {
			a.mu.Lock()
			a.out.snapshot = true
			a.mu.Unlock()
		}
		return err
	}
	a.answered(at)
	a.acknowledged(r, boot)
	sent()
	appsSent()
	probesSent()
	if len(answer.Resend) > 0 {
		a.cfg.Tasks.Resend(answer.Resend)
	}
	if r.Activity != nil {
		w.sent, w.known = *r.Activity, true
	}
	if due || all {
		*beat = now.Add(heartbeat)
	}
	if len(r.Output) > 0 { // perhaps not all fitted
		poke(a.wake)
	}
	return nil
}

// acknowledged takes out of the outbox what was in a report.
func (a *Agent) acknowledged(r api.Report, boot *api.BootReport) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if boot != nil && a.out.boot == boot {
		a.out.boot = nil
	}
	if r.Accounts != 0 {
		a.out.revSent = r.Accounts
	}
	if r.Looked == a.out.looked {
		a.out.looked = ""
	}
}

// rejoinNow ends the stream: the token is no longer good for it, or what it says is no longer true.
func (a *Agent) rejoinNow() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.rejoin != nil {
		a.rejoin()
	}
}

// farewell sends what tasks had to report, without waiting long.
func (a *Agent) farewell() {
	ctx, cancel := context.WithTimeout(context.Background(), lastReport)
	defer cancel()
	tasks, output, sent := a.cfg.Tasks.Collect(maxBytes)
	if len(tasks) == 0 && len(output) == 0 || a.control.bearer() == "" {
		return
	}
	if _, err := a.control.report(ctx, api.Report{Tasks: tasks, Output: output}); err == nil {
		sent()
	} else if !errors.Is(err, context.DeadlineExceeded) {
		a.cfg.Log.Warn("the last report was not sent; the next agent will send it", "error", err)
	}
}

// door notes that somebody has come or gone.
func (w *watch) door(now time.Time) {
	w.lastDoor, w.every = now, 0
	if at := now.Add(afterDoor); w.next.IsZero() || at.Before(w.next) {
		w.next = at
	}
}

// look looks at the machine and plans the next look. It returns what is worth a report.
func (a *Agent) look(w *watch, now time.Time, always bool) *api.Activity {
	seen, err := a.cfg.Watcher.Look()
	if err != nil { // unknown is not gone: nothing is said
		if text := err.Error(); text != w.failed {
			w.failed = text
			a.cfg.Log.Warn("cannot see who is on the machine", "error", err)
		}
		w.next = now.Add(lookLast)
		return nil
	}
	w.failed = ""
	news := !w.known || differs(w.sent, seen)
	if news {
		w.every = 0
	}
	w.every = min(max(w.every*3/2, lookFirst), lookLast)
	w.next = now.Add(w.every)
	apps := a.cfg.Apps != nil && a.cfg.Apps.Live() > 0
	if len(seen.Users) == 0 && len(a.cfg.Tasks.Running()) == 0 && !apps && now.Sub(w.lastDoor) > quiet {
		w.next = time.Time{}
	}
	if !news && !always {
		return nil
	}
	return &seen
}

// differs reports whether the difference between two looks is worth a report.
func differs(a, b api.Activity) bool {
	if len(a.Users) != len(b.Users) {
		return true
	}
	for i, x := range a.Users {
		y := b.Users[i]
		if x.User != y.User || x.Connections != y.Connections || len(x.Pins) != len(y.Pins) || (x.InUse == "") != (y.InUse == "") ||
			y.LastInput.Sub(x.LastInput) >= inputWorth || max(x.CPUPercent-y.CPUPercent, y.CPUPercent-x.CPUPercent) >= cpuWorth {
			return true
		}
		for j := range x.Pins {
			if x.Pins[j] != y.Pins[j] {
				return true
			}
		}
	}
	return false
}
