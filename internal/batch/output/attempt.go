package output

import (
	"cmp"
	"slices"
	"strings"
	"sync"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/batch/outcome"
)

// Attempt is how much of a live attempt's streams is kept.
type Attempt struct {
	store  *Store
	ref    shoal.AttemptRef
	packed bool

	writing sync.Mutex // guards what follows; held while a piece is written
	at      map[key]*place
	begun   bool // before the server did: there may be something of it

	mu   sync.Mutex // guards what follows; never held in the file system
	have [][streams]int64
}

// place is where a stream goes on.
type place struct {
	logged bool // in the job's log, else in a file of its own
	writer
	gap gap
}

// Attempt returns the output of an attempt that begins. For one that has begun, call Find. With
// packed its output goes to one file together with that of the job's other tasks.
func (s *Store) Attempt(ref shoal.AttemptRef, packed bool) *Attempt {
	return &Attempt{store: s, ref: ref, packed: packed, at: map[key]*place{}}
}

// Size is how much of a stream of a node there is, counted from the task's first byte to the last that
// came: it does not fall when a part between is not kept.
func (a *Attempt) Size(rank int, stream Stream) int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	if rank < 0 || rank >= len(a.have) {
		return 0
	}
	return a.have[rank][stream]
}

func (a *Attempt) set(rank int, stream Stream, size int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for len(a.have) <= rank {
		a.have = append(a.have, [streams]int64{})
	}
	a.have[rank][stream] = size
}

// Find takes the sizes from what is kept, for so many nodes. What cannot be read now counts as not
// there, and is looked for again when more comes.
func (a *Attempt) Find(nodes int) {
	a.writing.Lock()
	defer a.writing.Unlock()
	a.begun = true
	for rank := range max(nodes, 1) {
		for stream := range streams {
			p, err := a.place(rank, stream)
			if err != nil {
				a.store.log.Error("output: cannot find what is kept of a task", "task", a.ref.String(), "error", err)
				continue
			}
			a.set(rank, stream, p.size)
		}
	}
}

// packs reports whether a stream goes to the job's log. What is no task, and what of a task is not
// the first node's, always does.
func (a *Attempt) packs(rank int) bool { return a.packed || rank > 0 || a.ref.Index < 0 }

// place finds where a stream goes on. a.writing is held.
func (a *Attempt) place(rank int, stream Stream) (*place, error) {
	k := keyOf(a.ref, rank, stream)
	if p := a.at[k]; p != nil {
		return p, nil
	}
	if !a.begun {
		a.at[k] = &place{logged: a.packs(rank)}
		return a.at[k], nil
	}
	name := a.store.file(a.ref, rank, stream)
	size, err := fileSize(name)
	if err != nil {
		return nil, err
	}
	p := &place{logged: size == 0 && a.packs(rank), writer: writer{size: size}}
	if size > 0 {
		p.gap, err = readGap(name)
	} else if p.logged {
		err = a.resume(k, p)
	}
	if err != nil {
		return nil, err
	}
	a.at[k] = p
	return p, nil
}

// resume finds where a stream goes on in the job's log.
func (a *Attempt) resume(k key, p *place) error {
	l, err := a.store.acquire(a.ref.Job, false)
	if err != nil || l == nil {
		return err
	}
	defer a.store.release(l)
	p.writer, err = l.resume(k)
	if err != nil && p.size > 0 { // its last frame is there, and one before it is damaged
		p.logged, err = false, nil
	}
	return err
}

// Add appends a piece as far as it is new. It returns false if there is a gap before it. Once it has
// returned true the piece is kept also if the server is killed. What was written before an error is
// written again: readers read no further than Size.
func (a *Attempt) Add(rank int, stream Stream, offset int64, data []byte) (bool, error) {
	a.writing.Lock()
	defer a.writing.Unlock()
	if offset < 0 || rank < 0 {
		return true, nil
	}
	p, err := a.place(rank, stream)
	if err != nil {
		return false, a.failed(err)
	}
	if offset > p.size {
		return false, nil
	}
	if known := p.size - offset; known < int64(len(data)) {
		err = a.write(rank, stream, p, data[known:])
		a.set(rank, stream, p.size)
	}
	if err != nil {
		return false, a.failed(err)
	}
	return true, nil
}

func (a *Attempt) failed(err error) error {
	return shoal.Errorf(shoal.KindUnavailable, "cannot keep the output of task %s: %w", a.ref, err).
		WithHint("make space on the server's data directory; tasks go on, and their output is kept at their machines until then")
}

// write writes all of data, and moves p on as far as it came.
func (a *Attempt) write(rank int, stream Stream, p *place, data []byte) error {
	if p.logged {
		n, err := a.pack(keyOf(a.ref, rank, stream), p, data)
		if err != nil {
			return err
		}
		data = data[n:]
	}
	if len(data) == 0 {
		return nil
	}
	name := a.store.file(a.ref, rank, stream)
	if err := writeAt(name, data, p.size); err != nil {
		return err
	}
	p.logged = false
	p.size += int64(len(data))
	if g := a.store.gapOf(p.size); g.to > p.gap.to {
		if p.gap.to > 0 {
			g.from = p.gap.from // as it was when the server had another cap
		}
		p.gap = g
		if err := letGo(name, g); err != nil {
			a.store.log.Warn("output: cannot give space back", "file", name, "error", err)
		}
	}
	return nil
}

// pack writes to the job's log what still goes there.
func (a *Attempt) pack(k key, p *place, data []byte) (n int, err error) {
	l, err := a.store.acquire(a.ref.Job, true)
	if err != nil {
		return 0, err
	}
	defer a.store.release(l)
	most := min(maxPack, a.store.cap/2&^4095)
	for n < len(data) && p.size < most {
		part := data[n:min(int64(len(data)), int64(n)+min(maxData, most-p.size))]
		if err := l.append(k, &p.writer, part); err != nil {
			return n, err
		}
		n += len(part)
	}
	return n, nil
}

// Gaps is the output that the end of a node speaks of and that is not there.
func (a *Attempt) Gaps(rank int, r api.TaskReport) []api.Resend {
	var all []api.Resend
	if have := a.Size(rank, Stdout); have < r.StdoutBytes {
		all = append(all, api.Resend{Ref: r.Ref, Stream: "stdout", Offset: have})
	}
	if have := a.Size(rank, Stderr); have < r.StderrBytes {
		all = append(all, api.Resend{Ref: r.Ref, Stream: "stderr", Offset: have})
	}
	return all
}

// Resends leaves one request for each stream.
func Resends(all []api.Resend) []api.Resend {
	slices.SortStableFunc(all, func(a, b api.Resend) int {
		return cmp.Or(outcome.CompareRefs(a.Ref.TaskRef, b.Ref.TaskRef), strings.Compare(a.Stream, b.Stream))
	})
	return slices.CompactFunc(all, func(a, b api.Resend) bool { return a.Ref == b.Ref && a.Stream == b.Stream })
}
