package httpapi

import (
	"context"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/store"
)

func (a *API) jobs(c *call) (api.List[shoal.Job], error) {
	cursor, limit, err := c.page()
	if err != nil {
		return api.List[shoal.Job]{}, err
	}
	label, err := store.ParseLabel(c.query("label"))
	if err != nil {
		return api.List[shoal.Job]{}, err
	}
	f := store.JobFilter{User: shoal.UserName(c.query("user")), Pool: shoal.PoolName(c.query("pool")), Name: c.query("name"), State: shoal.JobState(c.query("state")),
		Label: label, ExternalID: c.query("externalId")}
	items, next, err := a.cfg.Batch.Jobs(c.ctx, c.by, f, cursor, limit)
	return listed(items, next, a.cfg.Store.Rev()), err
}

func (a *API) submit(c *call, spec shoal.JobSpec) (shoal.Job, error) {
	return a.cfg.Batch.Submit(c.ctx, c.by, spec, c.req.Header.Get(api.IdempotencyHeader))
}

func (c *call) job() shoal.JobID { return shoal.JobID(c.name("id")) }

func (a *API) job(c *call) (shoal.Job, error) {
	j, err := a.cfg.Batch.Job(c.ctx, c.by, c.job())
	if err == nil {
		c.tag(j.Rev)
	}
	return j, err
}

func (a *API) tasks(c *call) (api.List[shoal.Attempt], error) {
	var page api.List[shoal.Attempt]
	cursor, limit, err := c.page()
	if err != nil {
		return page, err
	}
	from, err := c.number("from", 0)
	if err != nil {
		return page, err
	}
	if cursor != "" { // the index of the first on the page
		if from, err = strconv.ParseInt(cursor, 10, 32); err != nil || from < 0 {
			return page, shoal.Errorf(shoal.KindInvalid, "cannot read %q as a cursor", cursor).WithHint("a cursor is the `next` of the page before")
		}
	}
	items, err := a.cfg.Batch.Tasks(c.ctx, c.by, c.job(), int(min(from, 1<<31-1)), limit)
	if err != nil {
		return page, err
	}
	next := ""
	if len(items) == limit {
		next = strconv.Itoa(items[limit-1].Index + 1)
	}
	return listed(items, next, a.cfg.Store.Rev()), nil
}

func (a *API) cancel(c *call) (shoal.Job, error) { return a.cfg.Batch.Cancel(c.ctx, c.by, c.job()) }

// waitTime is how long a wait is answered at the latest: below what proxies allow.
const waitTime = 50 * time.Second

func (a *API) wait(c *call) (api.Wait, error) {
	ctx, stop := context.WithTimeout(c.ctx, waitTime)
	defer stop()
	w, err := a.cfg.Batch.Wait(ctx, c.by, c.job())
	if err == nil || ctx.Err() == nil || c.ctx.Err() != nil {
		return w, err
	}
	j, err := a.cfg.Batch.Job(c.ctx, c.by, c.job())
	return api.Wait{Job: j}, err
}

func (a *API) output(c *call) error {
	index, err := strconv.ParseInt(c.name("index"), 10, 32)
	if err != nil || index < -1 {
		return shoal.Errorf(shoal.KindInvalid, "cannot read %q as a task's index", c.name("index")).WithHint("it is a number; -1 means the job's only task")
	}
	offset, err := c.number("offset", 0)
	if err != nil {
		return err
	}
	follow, err := c.flag("follow", false)
	if err != nil {
		return err
	}
	stream := c.query("stream")
	if stream == "" {
		stream = "stdout"
	}
	out := newPipe(c, "application/octet-stream")
	defer out.stop()
	ctx, cancel := context.WithCancelCause(c.ctx)
	defer cancel(nil)
	if follow {
		defer c.watch(ctx, cancel)()
	}
	err = a.cfg.Batch.Output(ctx, c.by, shoal.TaskRef{Job: c.job(), Index: int(index)}, stream, offset, follow, out.write)
	if err != nil {
		return out.failed(err)
	}
	return out.write(nil) // an empty output is one, too
}

// pipe is an answer that grows. Its header is sent with the first bytes, or once it has been clear for a moment
// that there is no error to tell of instead.
type pipe struct {
	c     *call
	media string
	timer *time.Timer

	mu    sync.Mutex
	begun bool
	over  bool
}

// headerAfter is when a header is sent without anything to follow it yet.
const headerAfter = 250 * time.Millisecond

func newPipe(c *call, media string) *pipe {
	p := &pipe{c: c, media: media}
	p.timer = time.AfterFunc(headerAfter, func() { _ = p.write(nil) }) // an error comes again with the next bytes
	return p
}

// write sends bytes at once. Whoever does not take them for a while is gone.
func (p *pipe) write(data []byte) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.over {
		return nil
	}
	rc := http.NewResponseController(p.c.w)
	_ = rc.SetWriteDeadline(time.Now().Add(writeTime))
	if !p.begun {
		p.begun = true
		p.c.w.Header().Set("Content-Type", p.media)
		p.c.w.Header().Set("Cache-Control", "no-store")
		p.c.w.Header().Set("X-Accel-Buffering", "no") // a proxy must not hold it back
		p.c.w.WriteHeader(http.StatusOK)
	}
	if len(data) > 0 {
		if _, err := p.c.w.Write(data); err != nil {
			return ended(err)
		}
	}
	return ended(rc.Flush())
}

// failed ends the answer with an error: as one, if nothing was sent yet.
func (p *pipe) failed(err error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.over = true
	return err
}

// stop is called before the handler returns.
func (p *pipe) stop() {
	p.timer.Stop()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.over = true
	_ = http.NewResponseController(p.c.w).SetWriteDeadline(time.Time{})
}
