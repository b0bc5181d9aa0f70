package gateway

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// When a person who waits hears something.
const (
	firstWord = 700 * time.Millisecond // sooner it would only flicker
	everyWord = 10 * time.Second
	breath    = 250 * time.Millisecond // between two words, so that changes in a row become one
)

// Hold runs login and keeps the person who waits informed through say: first after 0.7 s,
// then on every change that login reports to its progress, and at least every 10 s.
// No word is said any more when Hold returns. Progress may be called by any goroutine, and after that too.
func Hold(ctx context.Context, say func(string), login func(ctx context.Context, progress func(string)) error) error {
	h := &hold{started: time.Now(), changed: make(chan struct{}, 1), text: "a place is being looked for"}
	over := make(chan struct{})
	var talking sync.WaitGroup
	talking.Go(func() { h.talk(over, say) })
	defer talking.Wait()
	defer close(over)
	return login(ctx, h.progress)
}

type hold struct {
	started time.Time
	changed chan struct{}

	mu   sync.Mutex
	text string
}

func (h *hold) progress(text string) {
	h.mu.Lock()
	same := text == h.text
	h.text = text
	h.mu.Unlock()
	if same {
		return
	}
	select {
	case h.changed <- struct{}{}:
	default:
	}
}

func (h *hold) talk(over <-chan struct{}, say func(string)) {
	next := time.NewTimer(firstWord)
	defer next.Stop()
	select {
	case <-over:
		return
	case <-next.C:
	}
	said := ""
	for {
		select {
		case <-h.changed: // is said now
		default:
		}
		h.mu.Lock()
		text := h.text
		h.mu.Unlock()
		if text == said {
			say(fmt.Sprintf("%s (%s)", text, time.Since(h.started).Round(time.Second)))
		} else {
			say(text)
		}
		said = text
		next.Reset(breath)
		select {
		case <-over:
			return
		case <-next.C:
		}
		next.Reset(everyWord - breath)
		select {
		case <-over:
			return
		case <-h.changed:
		case <-next.C:
		}
	}
}
