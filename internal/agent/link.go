package agent

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	"github.com/shoal-pool/shoal/api"
)

// Between attempts to reach the control plane. The first is short because a server that restarts is back
// in a moment; jitter keeps the agents of a site apart.
const (
	firstPause = 100 * time.Millisecond
	lastPause  = 4 * time.Second
)

// pauses counts how long to wait before the next attempt.
type pauses struct{ next time.Duration }

func (p *pauses) reset() { p.next = 0 }

// wait waits, longer each time, or until something is in sooner. It returns false when ctx has ended.
func (p *pauses) wait(ctx context.Context, sooner <-chan struct{}) bool {
	p.next = min(max(2*p.next, firstPause), lastPause)
	t := time.NewTimer(p.next/2 + rand.N(p.next))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	case <-sooner:
		return true
	}
}

// link joins and keeps the stream.
func (a *Agent) link(ctx context.Context) error {
	key, err := a.cfg.Host.HostKey()
	if err != nil {
		return err
	}
	if a.cfg.Host.Booted() { // this agent may configure sshd otherwise than the former did
		if err := a.cfg.Host.Joined(""); err != nil {
			a.cfg.Log.Error("cannot configure sshd", "error", err)
		}
	}
	var p pauses
	said := "" // an error that lasts is logged once
	for {
		err := a.linkOnce(ctx, key, &p)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if text := err.Error(); text != said {
			said = text
			a.cfg.Log.Warn("not connected to the control plane; trying again", "error", err)
		}
		if !p.wait(ctx, nil) {
			return ctx.Err()
		}
	}
}

// linkOnce joins if need be, and reads the stream until it breaks. A boot that a former process did not finish is
// begun by joining, since that may have died with the token and before sshd was configured.
func (a *Agent) linkOnce(ctx context.Context, key string, p *pauses) error {
	if a.control.bearer() == "" || !a.joined && !a.cfg.Host.Booted() {
		joined, err := a.control.join(ctx, key)
		if err != nil {
			return err
		}
		if err := a.cfg.Host.Joined(joined.HostCertificate); err != nil {
			return err
		}
		a.joined = true
		poke(a.wake)
	}
	gaps, err := a.checkIn(ctx)
	if err != nil {
		return fmt.Errorf("the lease has run out, and no report is answered: %w", err)
	}
	a.gaps = gaps
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	a.mu.Lock()
	a.rejoin = cancel
	a.mu.Unlock()
	body, err := a.control.stream(ctx)
	if err != nil {
		return fmt.Errorf("cannot open the stream: %w", err)
	}
	defer body.Close()
	r := bufio.NewReaderSize(body, 4<<10)
	beat := time.Duration(0)
	for {
		var silence *time.Timer
		if beat > 0 {
			silence = time.AfterFunc(missedBeats*beat, cancel)
		}
		rec, err := readRecord(r)
		if silence != nil {
			silence.Stop()
		}
		if err != nil {
			return fmt.Errorf("the stream broke: %w", err)
		}
		if rec.Snapshot != nil {
			beat = time.Duration(rec.Snapshot.Beat)
		}
		p.reset()
		if err := a.take(ctx, rec); err != nil {
			return err
		}
	}
}

// missedBeats is after how many missing beats of the stream its server is given up: it may be frozen.
const missedBeats = 3

// maxRecord bounds one record: the accounts of a hundred thousand users are 20 MB.
const maxRecord = 64 << 20

// readRecord reads one line. The buffer of a long one is not kept.
func readRecord(r *bufio.Reader) (api.Record, error) {
	var long []byte
	for {
		part, err := r.ReadSlice('\n')
		if err == nil && long == nil {
			return parseRecord(part)
		}
		long = append(long, part...)
		switch {
		case err == nil:
			return parseRecord(long)
		case errors.Is(err, io.EOF) && len(long) > 0:
			return api.Record{}, io.ErrUnexpectedEOF
		case !errors.Is(err, bufio.ErrBufferFull):
			return api.Record{}, err
		case len(long) > maxRecord:
			return api.Record{}, errors.New("a record is longer than any can be")
		}
	}
}

func parseRecord(b []byte) (api.Record, error) {
	var rec api.Record
	if err := json.Unmarshal(b, &rec); err != nil {
		return rec, fmt.Errorf("cannot read a record: %w", err)
	}
	return rec, nil
}

// settleTime is how long the records behind one that changes accounts wait for it: a task's home must exist before the
// task, and a mount that does not answer must not hold up a stop.
const settleTime = 10 * time.Second

// take does what a record says, in the order of the stream. An error ends the stream.
func (a *Agent) take(ctx context.Context, rec api.Record) error {
	switch {
	case rec.Snapshot != nil:
		return a.takeSnapshot(ctx, *rec.Snapshot)
	case rec.Accounts != nil:
		a.mu.Lock()
		a.setAccounts(*rec.Accounts)
		a.mu.Unlock()
		a.settled(ctx)
	case rec.Run != nil:
		if !a.fresh(a.gaps) {
			return errStale
		}
		a.cfg.Tasks.Start(*rec.Run)
	case rec.Stop != nil:
		a.cfg.Tasks.Stop(*rec.Stop)
	case rec.Forget != nil:
		a.cfg.Tasks.Forget(*rec.Forget)
	case rec.App != nil && a.cfg.Apps != nil:
		a.openHub(rec.App.Endpoint)
		a.cfg.Apps.Start(*rec.App)
	case rec.StopApp != nil && a.cfg.Apps != nil:
		a.cfg.Apps.Stop(rec.StopApp.ID)
	case rec.EndDesktop != nil && a.cfg.Desktop != nil:
		if account, _, ok := a.cfg.People.Person(rec.EndDesktop.User); ok {
			if err := a.cfg.Desktop.End(account.UID); err != nil {
				a.cfg.Log.Warn("cannot end a desktop", "user", rec.EndDesktop.User, "error", err)
			}
		}
	case rec.Reach != nil:
		a.comeFor(*rec.Reach)
	case rec.Look != "":
		a.working.Go(func() { a.lookAgain(rec.Look) })
	case rec.EndUnused != nil:
		a.working.Go(func() { a.endUnused(*rec.EndUnused) })
	case rec.Message != nil:
		if err := a.cfg.Watcher.Tell(rec.Message.User, rec.Message.Text); err != nil {
			a.cfg.Log.Warn("cannot write to terminals", "user", rec.Message.User, "error", err)
		}
	}
	return nil
}

// endTime bounds how long ending what a user has takes. A kernel in the midst of writing may hold a process for longer.
const endTime = 20 * time.Second

// endUnused ends what a user has and does not use. What becomes of it is seen by the next look.
func (a *Agent) endUnused(e api.EndUnused) {
	ctx, cancel := context.WithTimeout(context.Background(), endTime)
	defer cancel()
	unused := time.Duration(e.Unused)
	if e.Always {
		unused = -1
	}
	if err := a.cfg.Watcher.End(ctx, e.User, unused); err != nil {
		a.cfg.Log.Info("what a user has is not ended", "user", e.User, "reason", err)
	}
	a.lookAgain("")
}

// lookAgain has the machine looked at at once, its pool's probe asked, and all of that reported.
func (a *Agent) lookAgain(which string) {
	if which != "" && a.cfg.Site != nil {
		a.cfg.Site.Ask(context.Background()) // it is bounded by itself
	}
	a.mu.Lock()
	a.out.look, a.out.snapshot = true, true
	if which != "" {
		a.out.looked = which
	}
	a.mu.Unlock()
	poke(a.wake)
}

// takeSnapshot takes all that the machine should be. The tasks follow the accounts of the people who run them.
func (a *Agent) takeSnapshot(ctx context.Context, s api.Snapshot) error {
	a.takeLease(s.Lease)
	a.cfg.People.setMounts(s.Mounts)
	a.mu.Lock()
	accounts, tasks, apps := s.Accounts, s.Tasks, s.Apps
	s.Accounts, s.Tasks, s.Apps = api.Accounts{}, nil, nil
	a.want.snapshot = s
	a.want.tasks, a.want.gaps, a.want.apps = &tasks, a.gaps, &apps
	a.out.snapshot, a.out.look, a.out.revSent = true, true, 0
	a.setAccounts(accounts)
	booted := a.want.booted
	if !booted && a.out.notYet.IsZero() {
		a.out.notYet = time.Now().Add(quietBoot)
	}
	a.mu.Unlock()
	if a.cfg.Site != nil {
		a.cfg.Site.Want(s.IdleProbe)
	}
	if a.cfg.Notice != nil {
		a.cfg.Notice(s.Notice)
	}
	poke(a.wake)
	poke(a.linked)
	if booted {
		a.settled(ctx)
		a.wantApps()
		a.wantProbes()
		return a.wantTasks()
	}
	return nil
}

// wantTasks hands over the tasks of the newest snapshot, once, unless the lease has run out: then another is needed.
func (a *Agent) wantTasks() error {
	a.handing.Lock()
	defer a.handing.Unlock()
	a.mu.Lock()
	tasks, gaps := a.want.tasks, a.want.gaps
	a.want.tasks = nil
	a.mu.Unlock()
	if tasks == nil {
		return nil
	}
	if len(*tasks) > 0 && !a.fresh(gaps) {
		return errStale
	}
	a.cfg.Tasks.Want(*tasks)
	return nil
}

// wantApps hands over the web apps of the newest snapshot, once. They live under no lease: two of them could run at a
// time without harm.
func (a *Agent) wantApps() {
	a.handing.Lock()
	defer a.handing.Unlock()
	a.mu.Lock()
	apps, doors := a.want.apps, a.want.snapshot.Doors
	a.want.apps = nil
	a.mu.Unlock()
	if apps != nil && a.cfg.Apps != nil {
		for _, o := range *apps {
			a.openHub(o.Endpoint)
		}
		a.cfg.Apps.Want(*apps, doors)
	}
}

// wantProbes has the endpoints asked that the newest snapshot names.
func (a *Agent) wantProbes() {
	a.handing.Lock()
	defer a.handing.Unlock()
	a.mu.Lock()
	all := a.want.snapshot.Probes
	a.mu.Unlock()
	if a.cfg.Probes != nil {
		a.cfg.Probes.Want(all)
	}
}

// setAccounts takes new accounts. The caller holds the lock.
func (a *Agent) setAccounts(accounts api.Accounts) {
	a.want.accounts = accounts
	a.want.seq++
	a.cfg.People.set(accounts)
	poke(a.kick)
}

// settled waits until the accounts that are wanted now were tried to be put into effect, but not for ever.
func (a *Agent) settled(ctx context.Context) {
	t := time.NewTimer(settleTime)
	defer t.Stop()
	a.mu.Lock()
	seq := a.want.seq
	for a.want.booted && a.want.tried < seq {
		attempt := a.want.attempt
		a.mu.Unlock()
		select {
		case <-attempt:
		case <-t.C:
			return
		case <-ctx.Done():
			return
		}
		a.mu.Lock()
	}
	a.mu.Unlock()
}
