// Package wrap decorates providers: what every call of any provider should have is
// written once, around the seam, and not in each provider.
package wrap

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/provider"
)

// Around does something around a call. Op is the method's name in lower case.
type Around func(ctx context.Context, op string, call func(context.Context) error) error

// With returns p with every call but Capabilities made through the arounds, the first outermost.
// It can check pools and users if p can; else those checks succeed.
func With(p provider.Provider, arounds ...Around) provider.Provider {
	return &wrapped{p, arounds}
}

type wrapped struct {
	inner   provider.Provider
	arounds []Around
}

var _ interface {
	provider.Provider
	provider.Checker
	provider.UserChecker
} = (*wrapped)(nil)

func (w *wrapped) do(ctx context.Context, op string, call func(context.Context) error) error {
	for i := len(w.arounds) - 1; i >= 0; i-- {
		around, inner := w.arounds[i], call
		call = func(ctx context.Context) error { return around(ctx, op, inner) }
	}
	return call(ctx)
}

func (w *wrapped) Capabilities() provider.Capabilities { return w.inner.Capabilities() }

func (w *wrapped) Observe(ctx context.Context) (o provider.Observation, err error) {
	err = w.do(ctx, "observe", func(ctx context.Context) error {
		var err error
		o, err = w.inner.Observe(ctx)
		return err
	})
	if err != nil {
		return provider.Observation{}, err
	}
	return o, nil
}

func (w *wrapped) Create(ctx context.Context, spec provider.MachineSpec) error {
	return w.do(ctx, "create", func(ctx context.Context) error { return w.inner.Create(ctx, spec) })
}

func (w *wrapped) Start(ctx context.Context, spec provider.MachineSpec) error {
	return w.do(ctx, "start", func(ctx context.Context) error { return w.inner.Start(ctx, spec) })
}

func (w *wrapped) Stop(ctx context.Context, id shoal.MachineID) error {
	return w.do(ctx, "stop", func(ctx context.Context) error { return w.inner.Stop(ctx, id) })
}

func (w *wrapped) Delete(ctx context.Context, id shoal.MachineID) error {
	return w.do(ctx, "delete", func(ctx context.Context) error { return w.inner.Delete(ctx, id) })
}

func (w *wrapped) Check(ctx context.Context, pool shoal.Pool, shares []shoal.Share) error {
	c, ok := w.inner.(provider.Checker)
	if !ok {
		return nil
	}
	return w.do(ctx, "check", func(ctx context.Context) error { return c.Check(ctx, pool, shares) })
}

func (w *wrapped) CheckUser(ctx context.Context, user shoal.User) error {
	c, ok := w.inner.(provider.UserChecker)
	if !ok {
		return nil
	}
	return w.do(ctx, "checkuser", func(ctx context.Context) error { return c.CheckUser(ctx, user) })
}

// Timeout bounds every call. One that exceeds the bound has failed for now: the error is transient.
func Timeout(d time.Duration) Around {
	return func(ctx context.Context, op string, call func(context.Context) error) error {
		inner, cancel := context.WithTimeout(ctx, d)
		defer cancel()
		err := call(inner)
		if err != nil && ctx.Err() == nil && errors.Is(inner.Err(), context.DeadlineExceeded) {
			return provider.Errorf(provider.Transient, "cannot %s within %s: %w", op, d, err)
		}
		return err
	}
}

// Retry repeats a call that failed for now, at most tries times in all, waiting first at first and twice as long each
// time after, or until the provider said that it makes sense. Longer waits are for the control loop, which
// comes back anyway: an error whose time is beyond the last wait is returned at once.
func Retry(tries int, first time.Duration) Around {
	return func(ctx context.Context, _ string, call func(context.Context) error) error {
		wait := first
		for try := 1; ; try++ {
			err := call(ctx)
			if err == nil || try >= tries || !transient(err) {
				return err
			}
			pause := wait
			if e, ok := errors.AsType[*provider.Error](err); ok && !e.Until.IsZero() {
				pause = max(pause, time.Until(e.Until))
			}
			if pause > first<<tries {
				return err
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("%w (after %d tries)", err, try)
			case <-time.After(pause):
			}
			wait *= 2
		}
	}
}

// transient reports whether trying again may help; an error without a type may.
func transient(err error) bool {
	e, ok := errors.AsType[*provider.Error](err)
	return !ok || e.Code == provider.Transient
}
