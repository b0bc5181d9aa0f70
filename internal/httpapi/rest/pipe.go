package rest

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/shoal-pool/shoal"
)

// Pipe is an answer that grows. Its header is sent with the first bytes, or once it has been clear for a moment
// that there is no error to tell of instead.
type Pipe struct {
	c     *Call
	media string
	timer *time.Timer

	mu    sync.Mutex
	begun bool
	over  bool
}

const (
	// watchEvery is how soon a stream ends whose owner has lost her rights.
	watchEvery = 30 * time.Second
	// beatEvery is how often a stream says that it is there: idle followers die behind proxies.
	beatEvery = 15 * time.Second
)

// headerAfter is when a header is sent without anything to follow it yet.
const headerAfter = 250 * time.Millisecond

// NewPipe begins an answer. Stop is to be called whatever comes of it.
func NewPipe(c *Call, media string) *Pipe {
	p := &Pipe{c: c, media: media}
	p.timer = time.AfterFunc(headerAfter, func() { _ = p.Write(nil) }) // an error comes again with the next bytes
	return p
}

// Write sends bytes at once. Whoever does not take them for a while is gone.
func (p *Pipe) Write(data []byte) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.over {
		return nil
	}
	rc := http.NewResponseController(p.c.W)
	_ = rc.SetWriteDeadline(time.Now().Add(WriteTime))
	if !p.begun {
		p.begun = true
		p.c.W.Header().Set("Content-Type", p.media)
		p.c.W.Header().Set("Cache-Control", "no-store")
		p.c.W.Header().Set("X-Accel-Buffering", "no") // a proxy must not hold it back
		p.c.W.WriteHeader(http.StatusOK)
	}
	if len(data) > 0 {
		if _, err := p.c.W.Write(data); err != nil {
			return Ended(err)
		}
	}
	return Ended(rc.Flush())
}

// Failed ends the answer with an error: as one, if nothing was sent yet.
func (p *Pipe) Failed(err error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.over = true
	return err
}

// Stop is called before the handler returns.
func (p *Pipe) Stop() {
	p.timer.Stop()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.over = true
	_ = http.NewResponseController(p.c.W).SetWriteDeadline(time.Time{})
}

// Watch ends a stream with cancel when its caller may no longer ask, or when one of also fails. The
// function it returns ends the watch and waits for its end.
func (c *Call) Watch(ctx context.Context, cancel context.CancelCauseFunc, also ...func() error) (stop func()) {
	done := make(chan struct{})
	ctx, end := context.WithCancel(ctx)
	go func() {
		defer close(done)
		beat := time.NewTicker(watchEvery)
		defer beat.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-beat.C:
			}
			by, err := c.Ask(c.Req)
			kind := shoal.KindOf(err)
			if err == nil && (by.User != c.By.User || by.Rights() != c.By.Rights()) || kind == shoal.KindUnauthenticated || kind == shoal.KindDenied {
				cancel(shoal.Errorf(shoal.KindUnauthenticated, "the caller's rights have changed"))
				return
			}
			for _, f := range also {
				if err := f(); err != nil {
					cancel(err)
					return
				}
			}
		}
	}()
	return func() { end(); <-done }
}

// Beat calls a function every so often until ctx ends, or stop is called, which waits for the last call.
func Beat(ctx context.Context, f func() error, failed context.CancelCauseFunc) (stop func()) {
	ctx, end := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(beatEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			if err := f(); err != nil {
				failed(err)
				return
			}
		}
	}()
	return func() { end(); <-done }
}
