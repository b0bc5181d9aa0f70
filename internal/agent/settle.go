package agent

import (
	"context"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
)

// Times of settling and booting.
const (
	filesTime   = 30 * time.Second // for homes and group directories, on all mounts at once
	retryFirst  = time.Second
	retryLast   = time.Minute
	bootTime    = 2 * time.Minute        // for accounts, mounts and the login; setup has its own
	quietBoot   = 250 * time.Millisecond // a boot that goes on as usual says nothing before
	accountStep = "its accounts are made"
	filesStep   = "its mounts and the login are tried"
	desktopStep = "its remote desktops are started"
)

// settle boots the machine, and then puts into effect what is wanted, whenever that changes.
func (a *Agent) settle(ctx context.Context) error {
	retry := time.NewTimer(0)
	retry.Stop()
	defer retry.Stop()
	pause := retryFirst
	said := ""
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-a.kick:
		case <-retry.C:
		}
		a.mu.Lock()
		booted := a.want.booted
		a.mu.Unlock()
		if !booted {
			if err := a.boot(ctx); err != nil {
				return err
			}
			continue
		}
		unmade, err := a.apply(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err == nil {
			if pause, said = retryFirst, ""; unmade > 0 {
				retry.Reset(retryLast) // somebody may mend it meanwhile
			}
			continue
		}
		if text := err.Error(); text != said {
			said = text
			a.cfg.Log.Warn("accounts are not in effect; trying again", "error", err)
		}
		retry.Reset(pause)
		pause = min(2*pause, retryLast)
	}
}

// apply puts the newest accounts into effect.
func (a *Agent) apply(ctx context.Context) (unmade int, err error) {
	a.mu.Lock()
	accounts, mounts, seq := a.want.accounts, a.want.snapshot.Mounts, a.want.seq
	a.mu.Unlock()
	err = a.cfg.Host.Accounts(accounts, mounts)
	if err == nil {
		short, cancel := context.WithTimeout(ctx, filesTime)
		unmade, err = a.cfg.Host.Files(short, accounts, mounts, false)
		cancel()
		a.unmade(unmade)
	}
	a.tried(accounts, seq, err)
	return unmade, err
}

// unmade has the load sent, in which it is what cannot be made, when that is another than before.
func (a *Agent) unmade(n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if n != a.out.unmade {
		a.out.unmade, a.out.snapshot = n, true
	}
}

// tried records an attempt, and wakes who waits for it.
func (a *Agent) tried(accounts api.Accounts, seq int, err error) {
	a.mu.Lock()
	a.want.tried = seq
	close(a.want.attempt)
	a.want.attempt = make(chan struct{})
	if err == nil {
		a.out.rev = accounts.Rev
	}
	a.mu.Unlock()
	poke(a.wake)
}

// boot makes the machine ready. It reports failure and returns nil then: the control plane decides what
// becomes of the machine. It returns an error only when ctx has ended.
func (a *Agent) boot(ctx context.Context) error {
	a.mu.Lock()
	setup := a.want.snapshot.Setup
	a.mu.Unlock()
	if setup != nil && setup.Command != "" {
		a.progress("its setup command runs")
		if log, err := a.cfg.Host.Setup(ctx, *setup); err != nil {
			return a.bootFailed(ctx, api.BootReport{Error: err.Error(), Log: log})
		}
		if err := a.cfg.Host.Joined(""); err != nil { // setup may have installed sshd
			return a.bootFailed(ctx, api.BootReport{Error: err.Error()})
		}
	}
	short, cancel := context.WithTimeout(ctx, bootTime)
	defer cancel()
	for {
		a.progress(accountStep)
		a.mu.Lock()
		accounts, mounts, seq := a.want.accounts, a.want.snapshot.Mounts, a.want.seq
		a.mu.Unlock()
		unmade := 0
		err := a.cfg.Host.Accounts(accounts, mounts)
		if err == nil {
			a.progress(filesStep)
			try, cancel := context.WithTimeout(short, filesTime)
			unmade, err = a.cfg.Host.Files(try, accounts, mounts, true)
			cancel()
		}
		if err == nil {
			err = a.desktop(short)
		}
		if err == nil {
			err = a.cfg.Host.MarkBooted()
		}
		if err == nil {
			if a.unmade(unmade); unmade > 0 {
				poke(a.kick) // and is tried again from time to time
			}
			return a.ready(accounts, seq)
		}
		if short.Err() != nil || shoal.KindOf(err) == shoal.KindInvalid { // waiting does not help
			return a.bootFailed(ctx, api.BootReport{Error: err.Error()})
		}
		a.cfg.Log.Warn("the machine is not ready; trying again", "error", err)
		a.progress(err.Error())
		select {
		case <-short.Done():
			return a.bootFailed(ctx, api.BootReport{Error: err.Error()})
		case <-time.After(retryFirst):
		}
	}
}

// desktop sees that people get remote desktops, where the pool has them.
func (a *Agent) desktop(ctx context.Context) error {
	a.mu.Lock()
	order := a.want.snapshot.Desktop
	a.mu.Unlock()
	if order == nil || a.cfg.Desktop == nil {
		return nil
	}
	a.progress(desktopStep)
	try, cancel := context.WithTimeout(ctx, filesTime)
	defer cancel()
	return a.cfg.Desktop.Serve(try, *order)
}

// ready ends the boot. It is told when the snapshot has been handed over, which would undo what is sent to a machine that is ready.
func (a *Agent) ready(accounts api.Accounts, seq int) error {
	a.mu.Lock()
	a.want.booted = true
	if a.want.seq != seq {
		poke(a.kick)
	}
	a.mu.Unlock()
	a.wantApps()
	a.wantProbes()
	if a.wantTasks() != nil {
		a.rejoinNow()
	}
	a.mu.Lock()
	a.out.boot, a.out.notYet = &api.BootReport{Ready: true}, time.Time{}
	a.mu.Unlock()
	a.tried(accounts, seq, nil)
	return nil
}

// progress says what a boot does.
func (a *Agent) progress(what string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.out.boot = &api.BootReport{Progress: what}
	poke(a.wake)
}

func (a *Agent) bootFailed(ctx context.Context, r api.BootReport) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	a.cfg.Log.Error("the boot has failed", "error", r.Error)
	a.mu.Lock()
	a.out.boot, a.out.notYet = &r, time.Time{}
	a.mu.Unlock()
	poke(a.wake)
	// Nothing is tried again: the machine is to be judged as it is.
	<-ctx.Done()
	return ctx.Err()
}
