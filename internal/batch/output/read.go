package output

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
)

// chunk is how much of an output is in memory for each reader.
const chunk = 32 << 10

// Source says how the attempts at a task stand.
type Source interface {
	// Look says how an attempt stands, numbered from 1.
	Look(ctx context.Context, number int) (View, error)
	// Listen returns a channel that is closed at the task's next news, and what to call when done
	// with it. Take it, look, then wait.
	Listen() (<-chan struct{}, func())
	// Stopped is closed when there will be no news any more.
	Stopped() <-chan struct{}
}

// View is how an attempt stands.
type View struct {
	Number int // of the attempt; 0 if there has been no such attempt
	Placed bool
	Live   bool
	Size   int64 // of the stream that is read
	Over   bool  // there will be no further attempt
}

// Request says what is to be read.
type Request struct {
	Task   shoal.TaskRef
	Rank   int
	Stream Stream
	Offset int64
	Follow bool // until the task is over, else what there is
}

// Piece is what a reader is handed: bytes, which are valid until the next, or that some are not kept.
type Piece struct {
	Offset  int64 // of the first byte
	Data    []byte
	Missing int64 // so many bytes from Offset on are not there
}

// Notice is what a person reads in place of what is missing.
func (p Piece) Notice() []byte { return api.OutputNotice(p.Missing) }

// Read hands the output of a task to w, from an offset on.
//
// A task that ran more than once has the output of all its attempts, one after the other, with a
// line between them that says so; in stderr only before an attempt that wrote there, so that who
// shows both streams says it once. An offset counts from the first byte of the first attempt and
// means the same byte for ever, so a reader that was cut off goes on where it was. Bytes that are not
// kept count as if they were.
func (s *Store) Read(ctx context.Context, q Request, source Source, w func(Piece) error) (err error) {
	r := &reader{store: s, Request: q, source: source, skip: q.Offset, w: w}
	for number, more := 1, true; more && err == nil; number++ {
		more, err = r.attempt(ctx, number)
	}
	return err
}

// reader reads the output of one task.
type reader struct {
	Request
	store   *Store
	source  Source
	skip    int64 // bytes before what is wanted
	w       func(Piece) error
	refused error // by w
	walker  walker
	buf     []byte
}

// attempt hands over what an attempt wrote; false if that is the end.
func (r *reader) attempt(ctx context.Context, number int) (more bool, err error) {
	p := progress{number: number, announced: number == 1}
	for {
		rung, done := r.source.Listen()
		more, over, err := r.step(ctx, &p)
		if over || err != nil || !r.Follow {
			done()
			return more && over, err
		}
		select {
		case <-rung:
		case <-ctx.Done():
			err = shoal.Errorf(shoal.KindCancelled, "stopped reading the output of task %s: %w", r.Task, context.Cause(ctx))
		case <-r.source.Stopped():
			err = shoal.Errorf(shoal.KindUnavailable, "the server is stopping").WithHint("try again in a moment")
		}
		done()
		if err != nil {
			return false, err
		}
	}
}

// progress is how far an attempt's output was handed over.
type progress struct {
	number    int
	announced bool // the line before it
	begun     bool
	at        int64
}

// step hands over what there is of an attempt now. over: no more of it will come; more: another
// attempt may.
func (r *reader) step(ctx context.Context, p *progress) (more, over bool, err error) {
	v, err := r.source.Look(ctx, p.number)
	if err != nil {
		return false, false, err
	}
	if v.Number == 0 {
		return false, v.Over, nil
	}
	if !p.announced && v.Placed {
		if r.Stream == Stderr && v.Size == 0 {
			return !v.Live && !v.Over, !v.Live, nil
		}
		if err := r.emit(fmt.Appendf(nil, "\n--- attempt %d of task %s ---\n", p.number, r.Task)); err != nil {
			return false, false, err
		}
	}
	p.announced = true
	if !p.begun {
		p.at, r.skip, p.begun = r.skip, 0, true
	}
	if p.at, err = r.copy(v, p.at); err != nil {
		return false, false, err
	}
	if v.Live {
		return false, false, nil
	}
	r.skip = max(0, p.at-v.Size)
	return !v.Over, true, nil
}

// emit hands over bytes that are in no file.
func (r *reader) emit(data []byte) error {
	n := min(r.skip, int64(len(data)))
	r.skip -= n
	return r.hand(data[n:], 0)
}

// hand gives bytes, or news of some that are missing, to whoever reads.
func (r *reader) hand(data []byte, missing int64) error {
	if len(data) == 0 && missing == 0 {
		return nil
	}
	p := Piece{Offset: r.Offset, Data: data, Missing: missing}
	r.Offset += int64(len(data)) + missing
	r.refused = r.w(p)
	return r.refused
}

// copy hands over what there is of an attempt from an offset on, and returns where it stopped.
func (r *reader) copy(v View, at int64) (int64, error) {
	ref := shoal.AttemptRef{TaskRef: r.Task, Attempt: v.Number}
	if at < v.Size {
		var err error
		if at, err = r.unpack(keyOf(ref, r.Rank, r.Stream), v.Size, at); err != nil {
			return at, r.failed(at, v.Size, err)
		}
	}
	if at < v.Size {
		var err error
		if at, err = r.copyFile(r.store.file(ref, r.Rank, r.Stream), v.Size, at); err != nil {
			return at, r.failed(at, v.Size, err)
		}
	}
	return at, nil
}

// failed makes an error of one that is about files.
func (r *reader) failed(at, size int64, err error) error {
	if r.refused != nil {
		return r.refused
	}
	return shoal.Errorf(shoal.KindInternal, "cannot read the output of task %s beyond byte %d of %d: %w", r.Task, at, size, err)
}

// unpack hands over what of a stream is in the job's log.
func (r *reader) unpack(k key, size, at int64) (int64, error) {
	l, err := r.store.acquire(r.Task.Job, false)
	if err != nil || l == nil {
		return at, err
	}
	defer r.store.release(l)
	if r.walker.key != k {
		r.walker.path = nil
	}
	r.walker.log, r.walker.key = l, k
	for at < size {
		data, err := r.walker.read(at)
		if err == io.EOF {
			return at, nil
		}
		if to := r.walker.behind; errors.Is(err, fs.ErrInvalid) && to > at {
			data, err = nil, r.hand(nil, min(to, size)-at)
			at = min(to, size)
		}
		if err == nil {
			data = data[:min(int64(len(data)), size-at)]
			at += int64(len(data))
			err = r.hand(data, 0)
		}
		if err != nil {
			return at, err
		}
	}
	return at, nil
}

// copyFile hands over what of a stream is in a file of its own, as far as that was not let go. What
// somebody took away, or the host's end before it was on disk, is missing, and no reason to ask again.
func (r *reader) copyFile(name string, size, at int64) (int64, error) {
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return size, r.hand(nil, size-at)
	}
	if err != nil {
		return at, err
	}
	defer f.Close()
	if r.buf == nil {
		r.buf = make([]byte, chunk)
	}
	for at < size {
		n, err := f.ReadAt(r.buf[:min(int64(len(r.buf)), size-at)], at)
		if n == 0 && err == io.EOF {
			return size, r.hand(nil, size-at)
		}
		if n == 0 && err != nil {
			return at, err
		}
		g, err := readGap(name) // after it was read: what was let go meanwhile is zeros
		if err != nil {
			return at, err
		}
		data := r.buf[:n]
		if g.has(at) {
			missing := min(g.to, size) - at
			data, at = nil, at+missing
			if err := r.hand(nil, missing); err != nil {
				return at, err
			}
		} else if at < g.from && g.from < at+int64(n) {
			data = data[:g.from-at]
		}
		at += int64(len(data))
		if err := r.hand(data, 0); err != nil {
			return at, err
		}
	}
	return at, nil
}
