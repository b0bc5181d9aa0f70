package httpapi

import (
	"context"
	"slices"
	"sync"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/batch/output"
	"github.com/shoal-pool/shoal/internal/httpapi/rest"
)

// outputRequest reads what of which output is wanted.
func outputRequest(c *call) (q output.Request, err error) {
	if q.Task, err = task(c); err != nil {
		return q, err
	}
	if q.Offset, err = c.Number("offset", 0); err != nil {
		return q, err
	}
	node, err := c.Number("node", 0)
	if err != nil {
		return q, err
	}
	q.Rank = int(min(node, 1<<30))
	if q.Follow, err = c.Flag("follow", false); err != nil {
		return q, err
	}
	name := c.Query("stream")
	stream, ok := output.ParseStream(name)
	if !ok && name != "" {
		return q, shoal.Errorf(shoal.KindInvalid, "a task has no output %q", name).WithHint("it has stdout and stderr")
	}
	q.Stream = stream
	return q, nil
}

func (a *API) output(c *call) error {
	q, err := outputRequest(c)
	if err != nil {
		return err
	}
	frames, err := c.Flag("frames", false)
	if err != nil {
		return err
	}
	if frames {
		return a.outputFrames(c, q)
	}
	out := rest.NewPipe(c, "application/octet-stream")
	defer out.Stop()
	ctx, cancel := context.WithCancelCause(c.Ctx)
	defer cancel(nil)
	if q.Follow {
		defer c.Watch(ctx, cancel)()
	}
	err = a.cfg.Batch.Output(ctx, c.By, q, func(p output.Piece) error {
		if p.Missing > 0 {
			return out.Write(p.Notice())
		}
		return out.Write(p.Data)
	})
	if err != nil {
		return out.Failed(err)
	}
	return out.Write(nil) // an empty output is one, too
}

// outputFrames answers with output in frames.
func (a *API) outputFrames(c *call, q output.Request) error {
	out := rest.NewPipe(c, api.OutputMedia)
	defer out.Stop()
	ctx, cancel := context.WithCancelCause(c.Ctx)
	defer cancel(nil)
	var busy sync.Mutex // nothing comes between a line and its bytes
	frame := func(f api.OutputFrame, data []byte) error {
		busy.Lock()
		defer busy.Unlock()
		return out.Write(slices.Concat(f.Line(), data))
	}
	if q.Follow {
		defer c.Watch(ctx, cancel)()
		defer rest.Beat(ctx, func() error { return frame(api.OutputFrame{Kind: api.OutputBeat}, nil) }, cancel)()
	}
	end := q.Offset
	err := a.cfg.Batch.Output(ctx, c.By, q, func(p output.Piece) error {
		end = p.Offset + int64(len(p.Data)) + p.Missing
		if p.Missing > 0 {
			return frame(api.OutputFrame{Kind: api.OutputGap, Offset: p.Offset, Length: p.Missing}, nil)
		}
		return frame(api.OutputFrame{Kind: api.OutputData, Offset: p.Offset, Length: int64(len(p.Data))}, p.Data)
	})
	if err != nil {
		return out.Failed(err)
	}
	return frame(api.OutputFrame{Kind: api.OutputEnd, Offset: end}, nil)
}
