package batch

import (
	"context"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/access"
	"github.com/shoal-pool/shoal/internal/batch/outcome"
	"github.com/shoal-pool/shoal/internal/batch/output"
	"github.com/shoal-pool/shoal/internal/store"
)

// Output hands a task's output to w, from an offset on; see output.Store.Read. With follow it waits
// for what is still to come, and returns when the task is over and every byte was handed over; else
// it returns at the end of what there is. An index of -1 means the only task of a job that has one.
func (b *Batch) Output(ctx context.Context, by access.Subject, q output.Request, w func(output.Piece) error) error {
	if q.Offset < 0 {
		return shoal.Errorf(shoal.KindInvalid, "cannot read output from offset %d", q.Offset)
	}
	err := b.cfg.Store.View(ctx, func(tx *store.Tx) error {
		j, err := visible(tx, by, access.Output, q.Task.Job)
		if err != nil {
			return err
		}
		if most := max(j.Spec.Nodes.Max, 1); q.Rank < 0 || q.Rank >= most {
			return shoal.Errorf(shoal.KindNotFound, "a task of job %s has no node %d", j.ID, q.Rank).WithHint("its nodes go from 0 to %d", most-1)
		}
		q.Task, err = taskOf(j, q.Task)
		return err
	})
	if err != nil {
		return err
	}
	return b.book.Output().Read(ctx, q, &watched{b: b, Request: q}, w)
}

// taskOf completes and checks the name of a task.
func taskOf(j shoal.Job, ref shoal.TaskRef) (shoal.TaskRef, error) {
	array, err := shoal.ParseArray(j.Spec.Array)
	if err != nil {
		return ref, err
	}
	if ref.Index < 0 {
		if array.Len() != 1 {
			return ref, shoal.Errorf(shoal.KindInvalid, "job %s has %s: which one?", j.ID, outcome.Tasks(array.Len())).
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

// watched is a task whose output is read.
type watched struct {
	b *Batch
	output.Request
}

// Look says how an attempt of the task stands.
func (w *watched) Look(ctx context.Context, number int) (output.View, error) {
	if a, kept, live := w.b.book.Live(w.Task); live && a.Attempt == number {
		return output.View{Number: number, Placed: true, Live: true, Size: kept.Size(w.Rank, w.Stream)}, nil
	}
	var v output.View
	err := w.b.cfg.Store.View(ctx, func(tx *store.Tx) error {
		j, err := tx.Jobs().Get(w.Task.Job)
		if err != nil {
			return err
		}
		history, err := tx.History(w.Task)
		if err != nil {
			return err
		}
		v = output.View{Over: j.State.Ended()}
		for _, a := range history {
			switch {
			case a.Attempt == number:
				v.Number, v.Placed, v.Live = number, a.Machine != "", !a.State.Ended()
				v.Size = w.size(a)
				v.Over = v.Over || a.State.Ended() && !outcome.Repeats(j, a)
			case a.Attempt > number:
				v.Over = false
			}
		}
		return nil
	})
	if v.Live { // stored, and not yet live in memory
		v.Size, v.Over = 0, false
	}
	return v, err
}

// size is how long the stream of an attempt that has ended is.
func (w *watched) size(a shoal.Attempt) int64 {
	if w.Rank == 0 {
		return []int64{a.StdoutBytes, a.StderrBytes}[w.Stream]
	}
	if w.Rank >= len(a.Members) {
		return 0 // this attempt had fewer
	}
	m := a.Members[w.Rank]
	return []int64{m.StdoutBytes, m.StderrBytes}[w.Stream]
}

// Listen waits for news of the task.
func (w *watched) Listen() (<-chan struct{}, func()) { return w.b.book.ListenTask(w.Task) }

// Stopped is closed when Run has ended.
func (w *watched) Stopped() <-chan struct{} { return w.b.book.Stopped() }
