package wrap_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/provider"
	"github.com/shoal-pool/shoal/provider/wrap"
)

// scripted answers every call with the next of its errors, after a time.
type scripted struct {
	provider.Provider
	errs  []error
	takes time.Duration
	calls int
}

func (s *scripted) Delete(ctx context.Context, _ shoal.MachineID) error {
	s.calls++
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(s.takes):
	}
	if s.calls > len(s.errs) {
		return nil
	}
	return s.errs[s.calls-1]
}

func (s *scripted) CheckUser(context.Context, shoal.User) error {
	return errors.New("she is known here")
}

func TestTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := wrap.With(&scripted{takes: time.Hour}, wrap.Timeout(time.Minute))
		start := time.Now()
		err, ok := errors.AsType[*provider.Error](p.Delete(t.Context(), "m-1"))
		if !ok || err.Code != provider.Transient || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		if time.Since(start) != time.Minute {
			t.Errorf("it took %s", time.Since(start))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := p.Delete(ctx, "m-1"); err != context.DeadlineExceeded {
			t.Errorf("the caller's own deadline became %v", err)
		}
	})
}

func TestRetry(t *testing.T) {
	now := provider.Errorf(provider.Transient, "not now")
	never := provider.Errorf(provider.Denied, "never")
	for name, c := range map[string]struct {
		errs  []error
		calls int
		takes time.Duration
		want  error
	}{
		"at once":              {nil, 1, 0, nil},
		"third time":           {[]error{now, errors.New("of no type")}, 3, 3 * time.Second, nil},
		"never":                {[]error{now, never}, 2, time.Second, never},
		"gives up":             {[]error{now, now, now, now, now}, 4, 7 * time.Second, now},
		"waits as told":        {[]error{&provider.Error{Code: provider.Transient, Until: at(5 * time.Second)}}, 2, 5 * time.Second, nil},
		"is told to wait long": {[]error{&provider.Error{Code: provider.Transient, Msg: "long", Until: at(time.Hour)}}, 1, 0, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &scripted{errs: c.errs}
				start := time.Now()
				err := wrap.With(s, wrap.Retry(4, time.Second)).Delete(t.Context(), "m-1")
				if name != "is told to wait long" && !errors.Is(err, c.want) || err == nil && c.want != nil {
					t.Errorf("got %v, want %v", err, c.want)
				}
				if s.calls != c.calls || time.Since(start) != c.takes {
					t.Errorf("%d calls in %s, want %d in %s", s.calls, time.Since(start), c.calls, c.takes)
				}
			})
		})
	}
}

// at is a time after a bubble's beginning.
func at(d time.Duration) time.Time { return time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC).Add(d) }

func TestKeepsChecks(t *testing.T) {
	p := wrap.With(&scripted{}, wrap.Timeout(time.Minute))
	if err := p.(provider.UserChecker).CheckUser(t.Context(), shoal.User{}); err == nil || !strings.Contains(err.Error(), "known") {
		t.Errorf("got %v", err)
	}
	if err := p.(provider.Checker).Check(t.Context(), shoal.Pool{}, nil); err != nil {
		t.Errorf("a provider that cannot check refuses: %v", err)
	}
}
