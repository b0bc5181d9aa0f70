package httpapi

import (
	"context"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/batch/output"
)

// outputBeat is how often a stream of output in frames says that it is there: idle followers die behind
// proxies.
const outputBeat = 15 * time.Second

// outputRequest reads what of which output is wanted.
func (c *call) outputRequest() (q output.Request, err error) {
	index, err := strconv.ParseInt(c.name("index"), 10, 32)
	if err != nil || index < -1 {
		return q, shoal.Errorf(shoal.KindInvalid, "cannot read %q as a task's index", c.name("index")).WithHint("it is a number; -1 means the job's only task")
	}
	q.Task = shoal.TaskRef{Job: c.job(), Index: int(index)}
	if q.Offset, err = c.number("offset", 0); err != nil {
		return q, err
	}
	node, err := c.number("node", 0)
	if err != nil {
		return q, err
	}
	q.Rank = int(min(node, 1<<30))
	if q.Follow, err = c.flag("follow", false); err != nil {
		return q, err
	}
	name := c.query("stream")
	stream, ok := output.ParseStream(name)
	if !ok && name != "" {
		return q, shoal.Errorf(shoal.KindInvalid, "a task has no output %q", name).WithHint("it has stdout and stderr")
	}
	q.Stream = stream
	return q, nil
}

func (a *API) output(c *call) error {
	q, err := c.outputRequest()
	if err != nil {
		return err
	}
	frames, err := c.flag("frames", false)
	if err != nil {
		return err
	}
	if frames {
		return a.outputFrames(c, q)
	}
	out := newPipe(c, "application/octet-stream")
	defer out.stop()
	ctx, cancel := context.WithCancelCause(c.ctx)
	defer cancel(nil)
	if q.Follow {
		defer c.watch(ctx, cancel)()
	}
	err = a.cfg.Batch.Output(ctx, c.by, q, func(p output.Piece) error {
		if p.Missing > 0 {
			return out.write(p.Notice())
		}
		return out.write(p.Data)
	})
	if err != nil {
		return out.failed(err)
	}
	return out.write(nil) // an empty output is one, too
}

// outputFrames answers with output in frames.
func (a *API) outputFrames(c *call, q output.Request) error {
	out := newPipe(c, api.OutputMedia)
	defer out.stop()
	ctx, cancel := context.WithCancelCause(c.ctx)
	defer cancel(nil)
	var busy sync.Mutex // nothing comes between a line and its bytes
	frame := func(f api.OutputFrame, data []byte) error {
		busy.Lock()
		defer busy.Unlock()
		return out.write(slices.Concat(f.Line(), data))
	}
	if q.Follow {
		defer c.watch(ctx, cancel)()
		defer beat(ctx, func() error { return frame(api.OutputFrame{Kind: api.OutputBeat}, nil) }, cancel)()
	}
	end := q.Offset
	err := a.cfg.Batch.Output(ctx, c.by, q, func(p output.Piece) error {
		end = p.Offset + int64(len(p.Data)) + p.Missing
		if p.Missing > 0 {
			return frame(api.OutputFrame{Kind: api.OutputGap, Offset: p.Offset, Length: p.Missing}, nil)
		}
		return frame(api.OutputFrame{Kind: api.OutputData, Offset: p.Offset, Length: int64(len(p.Data))}, p.Data)
	})
	if err != nil {
		return out.failed(err)
	}
	return frame(api.OutputFrame{Kind: api.OutputEnd, Offset: end}, nil)
}

// beat calls a function every so often until ctx ends, or stop is called, which waits for the last call.
func beat(ctx context.Context, f func() error, failed context.CancelCauseFunc) (stop func()) {
	ctx, end := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(outputBeat)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			if err := f(); err != nil {
				failed(err)
				return
			}
		}
	}()
	return func() { end(); <-done }
}
