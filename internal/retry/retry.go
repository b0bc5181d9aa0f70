// Package retry is for loops that wait out what fails: it tries pieces of work, and logs the same trouble
// once, however often it comes up.
package retry

import (
	"context"
	"log/slog"
	"time"

	"github.com/shoal-pool/shoal"
)

// Tries are the pieces of work of one loop. They belong to the goroutine that runs it.
type Tries struct {
	log      *slog.Logger
	who      string
	troubles map[string]string // what could not be done, and why
}

// New makes Tries whose troubles are logged as who's.
func New(log *slog.Logger, who string) *Tries {
	return &Tries{log: log, who: who, troubles: map[string]string{}}
}

// Do does one piece of work; false means again later. What is a verb and its object: "read the jobs".
func (t *Tries) Do(ctx context.Context, what string, do func(context.Context) error) bool {
	return t.Done(ctx, what, do(ctx))
}

// Done takes what came of a piece of work that was tried elsewhere. That ctx has ended is no trouble.
func (t *Tries) Done(ctx context.Context, what string, err error) bool {
	switch {
	case err == nil:
		delete(t.troubles, what)
	case ctx.Err() == nil && t.troubles[what] != err.Error():
		t.troubles[what] = err.Error()
		t.log.Log(ctx, shoal.KindOf(err).Meaning().Level, t.who+": cannot "+what+", trying again", "err", err)
	}
	return err == nil
}

// Sleep waits for d, or returns the error of ctx when that ends first.
func Sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
