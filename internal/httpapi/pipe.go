package httpapi

import (
	"net/http"
	"sync"
	"time"
)

// pipe is an answer that grows. Its header is sent with the first bytes, or once it has been clear for a moment
// that there is no error to tell of instead.
type pipe struct {
	c     *call
	media string
	timer *time.Timer

	mu    sync.Mutex
	begun bool
	over  bool
}

// headerAfter is when a header is sent without anything to follow it yet.
const headerAfter = 250 * time.Millisecond

func newPipe(c *call, media string) *pipe {
	p := &pipe{c: c, media: media}
	p.timer = time.AfterFunc(headerAfter, func() { _ = p.write(nil) }) // an error comes again with the next bytes
	return p
}

// write sends bytes at once. Whoever does not take them for a while is gone.
func (p *pipe) write(data []byte) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.over {
		return nil
	}
	rc := http.NewResponseController(p.c.w)
	_ = rc.SetWriteDeadline(time.Now().Add(writeTime))
	if !p.begun {
		p.begun = true
		p.c.w.Header().Set("Content-Type", p.media)
		p.c.w.Header().Set("Cache-Control", "no-store")
		p.c.w.Header().Set("X-Accel-Buffering", "no") // a proxy must not hold it back
		p.c.w.WriteHeader(http.StatusOK)
	}
	if len(data) > 0 {
		if _, err := p.c.w.Write(data); err != nil {
			return ended(err)
		}
	}
	return ended(rc.Flush())
}

// failed ends the answer with an error: as one, if nothing was sent yet.
func (p *pipe) failed(err error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.over = true
	return err
}

// stop is called before the handler returns.
func (p *pipe) stop() {
	p.timer.Stop()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.over = true
	_ = http.NewResponseController(p.c.w).SetWriteDeadline(time.Time{})
}
