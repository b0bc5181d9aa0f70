package gpu

import (
	"context"
	"sync"
	"time"
)

// Watch keeps what nvidia-smi said last. It asks in the background, when somebody wants to know, and never twice at a time.
// Its methods may be called concurrently.
type Watch struct {
	tool  Tool
	every time.Duration

	mu    sync.Mutex
	said  []Said
	err   error
	at    time.Time
	busy  bool
	ready chan struct{} // closed when the question under way is answered
}

// NewWatch makes a Watch that asks every so often at most.
func NewWatch(tool Tool, every time.Duration) *Watch { return &Watch{tool: tool, every: every} }

// Latest is what was said last, and why there is nothing new. It does not wait.
func (w *Watch) Latest() ([]Said, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ask()
	return w.said, w.err
}

// First waits until something was said, or could not be, or ctx ends.
func (w *Watch) First(ctx context.Context) ([]Said, error) {
	w.mu.Lock()
	w.ask()
	ready, known := w.ready, !w.at.IsZero()
	w.mu.Unlock()
	if !known && ready != nil {
		select {
		case <-ready:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.said, w.err
}

// ask asks in the background if it is time to. The mutex is held.
func (w *Watch) ask() {
	if w.busy || !w.at.IsZero() && time.Since(w.at) < w.every {
		return
	}
	w.busy, w.ready = true, make(chan struct{})
	ready := w.ready
	go func() {
		defer close(ready)
		said, err := w.tool.Ask(context.Background())
		w.mu.Lock()
		defer w.mu.Unlock()
		w.busy, w.at, w.err = false, time.Now(), err
		w.said = said // what is not known any more is not told
	}()
}
