package batch

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/access"
	"github.com/shoal-pool/shoal/internal/store"
)

// chunk is how much of an output is in memory for each reader.
const chunk = 32 << 10

// Output hands a task's output to w, from an offset on. With follow it waits for what is still to
// come, and returns when the task is over and every byte was handed over; else it returns at the
// end of what there is. An index of -1 means the only task of a job that has one.
//
// A task that ran more than once has the output of all its attempts, one after the other, with a
// line between them that says so; in stderr only before an attempt that wrote there, so that who
// shows both streams says it once. An offset counts from the first byte of the first attempt and
// means the same byte for ever, so a reader that was cut off goes on where it was.
func (b *Batch) Output(ctx context.Context, by access.Subject, ref shoal.TaskRef, stream string, offset int64, follow bool, w func([]byte) error) error {
	n, ok := streamOf(stream)
	if !ok {
		return shoal.Errorf(shoal.KindInvalid, "a task has no output %q", stream).WithHint("it has stdout and stderr")
	}
	if offset < 0 {
		return shoal.Errorf(shoal.KindInvalid, "cannot read output from offset %d", offset)
	}
	err := b.cfg.Store.View(ctx, func(tx *store.Tx) error {
		j, err := visible(tx, by, access.Output, ref.Job)
		if err != nil {
			return err
		}
		ref, err = taskOf(j, ref)
		return err
	})
	if err != nil {
		return err
	}
	r := &reader{b: b, ref: ref, stream: n, follow: follow, skip: offset, w: w}
	for number, more := 1, true; more && err == nil; number++ {
		more, err = r.attempt(ctx, number)
	}
	return err
}

// taskOf completes and checks the name of a task.
func taskOf(j shoal.Job, ref shoal.TaskRef) (shoal.TaskRef, error) {
	array, err := shoal.ParseArray(j.Spec.Array)
	if err != nil {
		return ref, err
	}
	if ref.Index < 0 {
		if array.Len() != 1 {
			return ref, shoal.Errorf(shoal.KindInvalid, "job %s has %s: which one?", j.ID, tasks(array.Len())).
				WithHint("name one by its index, from %d to %d", array.Index(0), array.Index(array.Len()-1))
		}
		ref.Index = array.Index(0)
	}
	if _, ok := array.Position(ref.Index); !ok {
		return ref, shoal.Errorf(shoal.KindNotFound, "job %s has no task %d", j.ID, ref.Index).
			WithHint("its indexes go from %d to %d", array.Index(0), array.Index(array.Len()-1))
	}
	return ref, nil
}

// reader reads the output of one task.
type reader struct {
	b      *Batch
	ref    shoal.TaskRef
	stream int
	follow bool
	skip   int64 // bytes before what is wanted
	w      func([]byte) error
	buf    []byte
}

// view is how an attempt stands.
type view struct {
	attempt shoal.Attempt // Attempt is 0 if there has been no such attempt
	live    bool
	size    int64
	over    bool // there will be no further attempt
}

// look says how an attempt of the task stands.
func (r *reader) look(ctx context.Context, number int) (view, error) {
	r.b.mu.Lock()
	if l := r.b.live[r.ref]; l != nil && l.attempt.Attempt == number {
		v := view{attempt: l.attempt, live: true, size: l.output.size(r.stream)}
		r.b.mu.Unlock()
		return v, nil
	}
	r.b.mu.Unlock()
	var v view
	err := r.b.cfg.Store.View(ctx, func(tx *store.Tx) error {
		j, err := tx.Jobs().Get(r.ref.Job)
		if err != nil {
			return err
		}
		history, err := tx.History(r.ref)
		if err != nil {
			return err
		}
		v = view{over: j.State.Ended()}
		for _, a := range history {
			switch {
			case a.Attempt == number:
				v.attempt = a
				v.over = v.over || a.State.Ended() && !repeats(j, a)
			case a.Attempt > number:
				v.over = false
			}
		}
		return nil
	})
	if err != nil {
		return v, err
	}
	if v.attempt.Attempt > 0 && !v.attempt.State.Ended() { // stored, and not yet live in memory
		v.live = true
		return v, nil
	}
	v.size = []int64{v.attempt.StdoutBytes, v.attempt.StderrBytes}[r.stream]
	return v, nil
}

// attempt hands over what an attempt wrote; false if that is the end.
func (r *reader) attempt(ctx context.Context, number int) (more bool, err error) {
	p := progressOf{number: number, announced: number == 1}
	for {
		rung, done := listen(&r.b.mu, r.b.news, r.ref)
		more, over, err := r.step(ctx, &p)
		if over || err != nil || !r.follow {
			done()
			return more && over, err
		}
		select {
		case <-rung:
		case <-ctx.Done():
			err = shoal.Errorf(shoal.KindCancelled, "stopped reading the output of task %s: %w", r.ref, context.Cause(ctx))
		case <-r.b.stopped:
			err = errStopped()
		}
		done()
		if err != nil {
			return false, err
		}
	}
}

// progressOf is how far an attempt's output was handed over.
type progressOf struct {
	number    int
	announced bool // the line before it
	begun     bool
	at        int64
}

// step hands over what there is of an attempt now. over: no more of it will come; more: another
// attempt may.
func (r *reader) step(ctx context.Context, p *progressOf) (more, over bool, err error) {
	v, err := r.look(ctx, p.number)
	if err != nil {
		return false, false, err
	}
	if v.attempt.Attempt == 0 {
		return false, v.over, nil
	}
	if !p.announced && v.attempt.Machine != "" {
		if r.stream == stderr && v.size == 0 {
			return !v.live && !v.over, !v.live, nil
		}
		if err := r.emit(fmt.Appendf(nil, "\n--- attempt %d of task %s ---\n", p.number, r.ref)); err != nil {
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
	if v.live {
		return false, false, nil
	}
	r.skip = max(0, p.at-v.size)
	return !v.over, true, nil
}

// emit hands over bytes that are in no file.
func (r *reader) emit(data []byte) error {
	n := min(r.skip, int64(len(data)))
	r.skip -= n
	if data = data[n:]; len(data) == 0 {
		return nil
	}
	return r.w(data)
}

// copy hands over what there is of an attempt from an offset on, and returns where it stopped.
func (r *reader) copy(v view, at int64) (int64, error) {
	if at >= v.size {
		return at, nil
	}
	f, err := os.Open(outputFile(r.b.cfg.Dir, v.attempt.AttemptRef, r.stream))
	if err != nil {
		return at, shoal.Errorf(shoal.KindInternal, "cannot read the output of task %s: %w", r.ref, err)
	}
	defer f.Close()
	if r.buf == nil {
		r.buf = make([]byte, chunk)
	}
	for at < v.size {
		n, err := f.ReadAt(r.buf[:min(int64(len(r.buf)), v.size-at)], at)
		if n > 0 {
			if err := r.w(r.buf[:n]); err != nil {
				return at, err
			}
			at += int64(n)
		}
		if err != nil && (err != io.EOF || at < v.size) {
			return at, shoal.Errorf(shoal.KindInternal, "cannot read the output of task %s beyond byte %d of %d: %w", r.ref, at, v.size, err)
		}
	}
	return at, nil
}
