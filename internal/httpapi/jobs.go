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
	cursor, limit, err := c.Page()
	if err != nil {
		return api.List[shoal.Job]{}, err
	}
	label, err := store.ParseLabel(c.Query("label"))
	if err != nil {
		return api.List[shoal.Job]{}, err
	}
	f := store.JobFilter{User: shoal.UserName(c.Query("user")), Pool: shoal.PoolName(c.Query("pool")), Name: c.Query("name"), State: shoal.JobState(c.Query("state")),
		Label: label, ExternalID: c.Query("externalId")}
	items, next, err := a.cfg.Batch.Jobs(c.Ctx, c.By, f, cursor, limit)
	return listed(items, next, a.cfg.Store.Rev()), err
}

func (a *API) submit(c *call, spec shoal.JobSpec) (shoal.Job, error) {
	return a.cfg.Batch.Submit(c.Ctx, c.By, spec, c.Req.Header.Get(api.IdempotencyHeader))
}

func job(c *call) shoal.JobID { return shoal.JobID(c.Name("id")) }

func (a *API) job(c *call) (shoal.Job, error) {
	j, err := a.cfg.Batch.Job(c.Ctx, c.By, job(c))
	if err == nil {
		c.Tag(j.Rev)
	}
	return j, err
}

func (a *API) tasks(c *call) (api.List[shoal.Attempt], error) {
	var page api.List[shoal.Attempt]
	cursor, limit, err := c.Page()
	if err != nil {
		return page, err
	}
	from, err := c.Number("from", 0)
	if err != nil {
		return page, err
	}
	if cursor != "" { // the index of the first on the page
		if from, err = strconv.ParseInt(cursor, 10, 32); err != nil || from < 0 {
			return page, shoal.Errorf(shoal.KindInvalid, "cannot read %q as a cursor", cursor).WithHint("a cursor is the `next` of the page before")
		}
	}
	items, err := a.cfg.Batch.Tasks(c.Ctx, c.By, job(c), int(min(from, 1<<31-1)), limit)
	if err != nil {
		return page, err
	}
	next := ""
	if len(items) == limit {
		next = strconv.Itoa(items[limit-1].Index + 1)
	}
	return listed(items, next, a.cfg.Store.Rev()), nil
}

func task(c *call) (shoal.TaskRef, error) {
	index, err := strconv.ParseInt(c.Name("index"), 10, 32)
	if err != nil || index < -1 {
		return shoal.TaskRef{}, shoal.Errorf(shoal.KindInvalid, "cannot read %q as a task's index", c.Name("index")).WithHint("it is a number; -1 means the job's only task")
	}
	return shoal.TaskRef{Job: job(c), Index: int(index)}, nil
}

func (a *API) attempts(c *call) (api.List[shoal.Attempt], error) {
	ref, err := task(c)
	if err != nil {
		return api.List[shoal.Attempt]{}, err
	}
	all, err := a.cfg.Batch.Attempts(c.Ctx, c.By, ref)
	return listed(all, "", a.cfg.Store.Rev()), err
}

func (a *API) cancel(c *call, r api.CancelTasks) (shoal.Job, error) {
	return a.cfg.Batch.CancelTasks(c.Ctx, c.By, job(c), r.Tasks)
}

func (a *API) retry(c *call, r api.RetryRequest) (shoal.Job, error) {
	return a.cfg.Batch.Retry(c.Ctx, c.By, job(c), r)
}

// waitTime is how long a wait is answered at the latest: below what proxies allow.
const waitTime = 50 * time.Second

func (a *API) wait(c *call) (api.Wait, error) {
	ctx, stop := context.WithTimeout(c.Ctx, waitTime)
	defer stop()
	w, err := a.cfg.Batch.Wait(ctx, c.By, job(c))
	if err == nil || ctx.Err() == nil || c.Ctx.Err() != nil {
		return w, err
	}
	j, err := a.cfg.Batch.Job(c.Ctx, c.By, job(c))
	return api.Wait{Job: j}, err
}
