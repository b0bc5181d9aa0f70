package httpapi

import (
	"context"
	"strconv"
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

func (a *API) cancel(c *call, r api.CancelTasks) (shoal.Job, error) {
	return a.cfg.Batch.CancelTasks(c.ctx, c.by, c.job(), r.Tasks)
}

func (a *API) retry(c *call, r api.RetryRequest) (shoal.Job, error) {
	return a.cfg.Batch.Retry(c.ctx, c.by, c.job(), r)
}

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
