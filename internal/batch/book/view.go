package book

import (
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/batch/bell"
	"github.com/shoal-pool/shoal/internal/batch/output"
	"github.com/shoal-pool/shoal/internal/batch/why"
)

// Output is what tasks have written.
func (b *Book) Output() *output.Store { return b.output }

// Live returns the attempt of a task that is starting or running, and how much of its output is kept;
// false if there is none.
func (b *Book) Live(ref shoal.TaskRef) (shoal.Attempt, *output.Attempt, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	l := b.live[ref]
	if l == nil {
		return shoal.Attempt{}, nil, false
	}
	return l.attempt, l.output, true
}

// ListenTask returns a channel that is closed at the next news of a task, and what to call when done with
// it. Take it, look, then wait.
func (b *Book) ListenTask(ref shoal.TaskRef) (<-chan struct{}, func()) {
	return bell.Listen(&b.mu, b.news, ref)
}

// ListenJob is like ListenTask for the end of a job.
func (b *Book) ListenJob(id shoal.JobID) (<-chan struct{}, func()) {
	return bell.Listen(&b.mu, b.ends, id)
}

// Listeners is how many tasks and jobs somebody listens for.
func (b *Book) Listeners() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.news) + len(b.ends)
}

// Reconsider has Run ask anew whose jobs are held.
func (b *Book) Reconsider() {
	b.stale.Store(true)
	b.wake()
}

// Stopped is closed when Run has ended.
func (b *Book) Stopped() <-chan struct{} { return b.stopped }

// Explain says why tasks of a job wait.
func (b *Book) Explain(id shoal.JobID) why.Wait {
	b.mu.Lock()
	defer b.mu.Unlock()
	var w why.Wait
	w.Explanation, w.Known = b.sched.Explain(id, time.Now())
	if j, ok := b.sched.Job(id); ok && j.Gated {
		w.Gated, w.Ready = true, len(j.Again)
	}
	for t, a := range b.later {
		if t.Job == id {
			w.Delayed++
			if w.Next.IsZero() || a.at.Before(w.Next) {
				w.Next = a.at
			}
		}
	}
	return w
}
