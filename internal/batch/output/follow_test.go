package output

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/shoal-pool/shoal"
)

// growing is a task that writes while it is read.
type growing struct {
	attempt *Attempt
	over    atomic.Bool
	mu      sync.Mutex
	news    chan struct{}
}

func (g *growing) Look(_ context.Context, number int) (View, error) {
	if number > 1 {
		return View{Over: true}, nil
	}
	over := g.over.Load() // before the size, which does not change any more then
	return View{Number: 1, Placed: true, Live: !over, Size: g.attempt.Size(0, Stdout), Over: over}, nil
}

func (g *growing) Listen() (<-chan struct{}, func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.news, func() {}
}

func (g *growing) ring() {
	g.mu.Lock()
	defer g.mu.Unlock()
	close(g.news)
	g.news = make(chan struct{})
}

func (*growing) Stopped() <-chan struct{} { return nil }

// byteAt is what the task writes at an offset: never zero, which is what is read of a gap.
func byteAt(offset int64) byte { return byte(offset*7%251) + 1 }

// Whoever follows a task that writes more than is kept, fast or slowly, with one connection or many, gets
// each byte once, at its offset, or is told that it is missing; never what stands in a gap.
func TestFollowOverGaps(t *testing.T) {
	for _, packed := range []bool{false, true} {
		w := newWorld(t)
		w.cap = MinCap
		w.open()
		r := ref("1", 0, 1)
		g := &growing{attempt: w.store.Attempt(r, packed), news: make(chan struct{})}
		size := int64(2 << 20)
		if testing.Short() {
			size = 512 << 10
		}
		var all sync.WaitGroup
		for reader := range 4 {
			all.Go(func() {
				at, missing := int64(0), int64(0)
				for more := true; more; {
					pieces, stop := 0, context.Canceled
					err := w.store.Read(t.Context(), Request{Task: shoal.TaskRef{Job: "1"}, Offset: at, Follow: true}, g, func(p Piece) error {
						if p.Offset != at {
							t.Errorf("a piece at %d, not %d", p.Offset, at)
						}
						for i, b := range p.Data {
							if b != byteAt(at+int64(i)) {
								t.Errorf("at %d there is %d", at+int64(i), b)
								return stop
							}
						}
						at += int64(len(p.Data)) + p.Missing
						missing += p.Missing
						if pieces++; pieces > 10*reader && reader > 0 { // cut off now and then
							return stop
						}
						return nil
					})
					if more = err == stop && !t.Failed(); err != nil && err != stop {
						t.Error(err)
					}
				}
				if at != size || missing > size-w.cap {
					t.Errorf("it ended at %d of %d, without %d", at, size, missing)
				}
			})
		}
		for have := int64(0); have < size; {
			data := make([]byte, min(size-have, 1+w.rand.Int64N(9000)))
			for i := range data {
				data[i] = byteAt(have + int64(i))
			}
			if whole, err := g.attempt.Add(0, Stdout, have, data); err != nil || !whole {
				t.Fatal(whole, err)
			}
			have += int64(len(data))
			g.ring()
		}
		g.over.Store(true)
		g.ring()
		all.Wait()
	}
}
