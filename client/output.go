package client

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
)

// silence is how long a followed output may say nothing, not even that there is nothing: three times
// what the server lets pass.
const silence = 45 * time.Second

// OutputQuery says which output of a task is read.
type OutputQuery struct {
	Stream string // stdout, which is the default, or stderr
	Node   int    // of a task on several nodes, by rank
	Offset int64  // from this byte on
	Follow bool   // until the task has ended; else what there is
}

// Output reads a task's output; an index of -1 means the job's only task. When following it goes on
// over restarts of the server, and io.EOF is the true end. The caller closes it, which also ends a
// Read that waits.
func (c *Client) Output(ctx context.Context, ref shoal.TaskRef, q OutputQuery) (*Output, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	o := &Output{c: c, ctx: ctx, cancel: cancel, ref: ref, query: q, patience: c.patient(c.patience)}
	for {
		err := o.open()
		if err == nil {
			return o, nil
		}
		if !o.patience.again(ctx, err) {
			cancel(err)
			return nil, err
		}
	}
}

// Output is a task's output that is opened again where it broke.
type Output struct {
	c        *Client
	ctx      context.Context
	cancel   context.CancelCauseFunc
	ref      shoal.TaskRef
	query    OutputQuery // with the offset of what is next
	body     io.ReadCloser
	in       *bufio.Reader // nil after a break
	alarm    *time.Timer   // tears a connection down that has died
	left     int64         // bytes of the frame that were not read
	text     []byte        // what stands for bytes that are not kept, to be read first
	patience *patience
	done     error
}

// Offset is that of the next byte, to be given to go on from there.
func (o *Output) Offset() int64 { return o.query.Offset }

func (o *Output) open() error {
	stream := o.query.Stream
	if stream == "" {
		stream = "stdout"
	}
	node := ""
	if o.query.Node > 0 {
		node = strconv.Itoa(o.query.Node)
	}
	ctx, cancel := context.WithCancel(o.ctx)
	var alarm *time.Timer
	if o.query.Follow {
		alarm = time.AfterFunc(silence, cancel)
	}
	resp, err := o.c.send(ctx, call{
		method: http.MethodGet,
		path:   pathOf("jobs", string(o.ref.Job), "tasks", strconv.Itoa(o.ref.Index), "output"),
		query:  query("stream", stream, "node", node, "offset", number(o.query.Offset), "follow", flag(o.query.Follow), "frames", "true"),
	})
	if err != nil {
		if alarm != nil {
			alarm.Stop()
		}
		cancel()
		return err
	}
	o.body, o.in, o.alarm, o.left = closing{resp.Body, cancel}, bufio.NewReaderSize(resp.Body, 64<<10), alarm, 0
	return nil
}

// closing ends a request with its answer's body.
type closing struct {
	io.ReadCloser
	cancel context.CancelFunc
}

func (c closing) Close() error {
	c.cancel()
	return c.ReadCloser.Close()
}

// drop closes the connection, if there is one.
func (o *Output) drop() {
	if o.in == nil {
		return
	}
	if o.alarm != nil {
		o.alarm.Stop()
	}
	_ = o.body.Close() // there is nothing more to read
	o.body, o.in = nil, nil
}

// Read reads what comes. What is not kept is a line that says so.
func (o *Output) Read(p []byte) (int, error) {
	for o.done == nil && len(p) > 0 {
		if n := copy(p, o.text); n > 0 {
			o.text = o.text[n:]
			return n, nil
		}
		if o.in == nil {
			if err := o.open(); err != nil {
				if !o.patience.again(o.ctx, err) {
					return 0, o.end(err)
				}
				continue
			}
		}
		n, err := o.next(p)
		if n > 0 {
			o.patience.reset()
			return n, nil // an error comes again
		}
		if err == nil {
			continue
		}
		if errors.Is(err, errEnd) {
			return 0, o.end(io.EOF)
		}
		o.drop()
		if err = o.c.broken(o.ctx, err); !o.patience.again(o.ctx, err) {
			return 0, o.end(err)
		}
	}
	return 0, o.done
}

var (
	errEnd    = errors.New("the output has ended")
	errClosed = errors.New("it was closed")
)

// next reads bytes of the frame, or the line of the next.
func (o *Output) next(p []byte) (int, error) {
	if o.left > 0 {
		n, err := o.in.Read(p[:min(int64(len(p)), o.left)])
		o.left -= int64(n)
		o.query.Offset += int64(n)
		if n > 0 {
			o.awake()
			err = nil
		}
		return n, err
	}
	line, err := o.in.ReadSlice('\n')
	if err != nil {
		return 0, err
	}
	o.awake()
	f, err := api.ParseOutputLine(string(line[:len(line)-1]))
	if err != nil {
		return 0, err
	}
	o.patience.reset()
	switch f.Kind {
	case api.OutputEnd:
		return 0, errEnd
	case api.OutputData, api.OutputGap:
		if f.Offset != o.query.Offset {
			return 0, shoal.Errorf(shoal.KindUnavailable, "the server sent output from byte %d instead of %d", f.Offset, o.query.Offset)
		}
		if f.Kind == api.OutputData {
			o.left = f.Length
			break
		}
		o.query.Offset += f.Length
		o.text = api.OutputNotice(f.Length)
	}
	return 0, nil
}

// awake puts off the end of a connection that says nothing.
func (o *Output) awake() {
	if o.alarm != nil {
		o.alarm.Reset(silence)
	}
}

func (o *Output) end(err error) error {
	o.done = err
	o.drop()
	return err
}

// Close ends the stream: the end of its context tears the connection down.
func (o *Output) Close() error {
	o.cancel(errClosed)
	return nil
}
