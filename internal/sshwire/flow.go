package sshwire

import (
	"io"
	"sync"
	"sync/atomic"

	"golang.org/x/crypto/ssh"
)

// smallBuffer is what every stream holds that waits for data.
const smallBuffer = 1 << 10

// flow moves one stream of bytes. Its counter is even while it waits for data
// and odd while it has some in hand.
type flow struct {
	count  atomic.Uint64
	passed chan struct{} // all that will ever be passed on has been
	done   chan struct{} // nothing more is read
	moved  func(n int)   // may be nil
}

func newFlow() *flow { return &flow{passed: make(chan struct{}), done: make(chan struct{})} }

// run moves all that comes from r to w until either ends.
func (f *flow) run(r io.Reader, w io.Writer) {
	defer close(f.done)
	f.move(r, w, make([]byte, smallBuffer))
	close(f.passed)
}

// runOut is run for output, which is thrown away when nobody takes it any more: a
// program that cannot write does not read what was sent to it either.
func (f *flow) runOut(r io.Reader, w io.Writer) {
	defer close(f.done)
	small := make([]byte, smallBuffer)
	f.move(r, w, small)
	close(f.passed)
	for {
		if _, err := r.Read(small); err != nil {
			return
		}
	}
}

func (f *flow) move(r io.Reader, w io.Writer, small []byte) {
	for {
		n, err := r.Read(small)
		f.count.Add(1)
		f.tell(n)
		if n > 0 {
			if _, werr := w.Write(small[:n]); werr != nil {
				return
			}
		}
		if err != nil {
			return
		}
		if n == len(small) && !f.burst(r, w) {
			return
		}
		f.count.Add(1)
	}
}

func (f *flow) tell(n int) {
	if f.moved != nil && n > 0 {
		f.moved(n)
	}
}

// burst moves data by full packets until little comes at a time. It reports whether the
// stream goes on.
func (f *flow) burst(r io.Reader, w io.Writer) bool {
	big := shared.packets.Get().(*[]byte)
	defer shared.packets.Put(big)
	for moved := 0; ; {
		f.count.Add(1)
		n, err := r.Read(*big)
		f.count.Add(1)
		f.tell(n)
		if n > 0 {
			if _, werr := w.Write((*big)[:n]); werr != nil {
				return false
			}
		}
		if before := moved; before < keelFrom {
			if moved += n; moved >= keelFrom {
				shared.keel.lower()
				defer shared.keel.raise()
			}
		}
		if err != nil {
			return false
		}
		if n < smallBuffer {
			return true
		}
	}
}

// waiting reports whether the flow has ended or waits for data, and its counter.
func (f *flow) waiting() (bool, uint64) {
	select {
	case <-f.passed:
		return true, f.count.Load() | 1
	default:
		n := f.count.Load()
		return n%2 == 0, n
	}
}

// passedAll reports whether nothing more will be passed on.
func (f *flow) passedAll() bool {
	select {
	case <-f.passed:
		return true
	default:
		return false
	}
}

// voice writes to a channel's extended data, which x/crypto/ssh lets only one goroutine do
// at a time: what the machine sends there and what we have to say take turns.
type voice struct {
	mu sync.Mutex
	ch ssh.Channel
	// closed: the end of data has been sent
	closed bool
}

func (v *voice) Write(p []byte) (int, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.closed {
		return 0, io.EOF
	}
	return v.ch.Stderr().Write(p)
}

func (v *voice) closeWrite() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.closed {
		v.closed = true
		v.ch.CloseWrite()
	}
}
