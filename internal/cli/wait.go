package cli

import (
	"context"
	"time"

	"github.com/shoal-pool/shoal/internal/cli/show/term"
)

// How often something that is waited for is looked at: often at first, since most is done soon.
const (
	firstLook = 100 * time.Millisecond
	lastLook  = time.Second
)

// waitUntil looks until look says that it is done, and shows in between what it says.
func (p *program) waitUntil(ctx context.Context, what string, look func(context.Context) (stage string, done bool, err error)) error {
	ctx, stop := p.interruptible(ctx)
	defer stop()
	progress := term.NewProgress(p.Stderr, false)
	defer progress.Clear()
	for pause := firstLook; ; pause = min(pause*3/2, lastLook) {
		stage, done, err := look(ctx)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil || done {
			return err
		}
		if progress.Live() {
			progress.Show("%s: %s", what, stage)
		} else {
			progress.Note("%s: %s", what, stage)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
