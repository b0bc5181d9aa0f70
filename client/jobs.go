package client

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
)

// Submit submits a job. With a key, the same for each try at one job, it is submitted once however
// often it is sent.
func (c *Client) Submit(ctx context.Context, spec shoal.JobSpec, key string) (j shoal.Job, err error) {
	err = c.do(ctx, call{method: http.MethodPost, path: "/jobs", body: spec, key: key}, &j)
	return j, err
}

// JobQuery selects jobs; zero fields select all that the caller may see.
type JobQuery struct {
	User       shoal.UserName
	Pool       shoal.PoolName
	Name       string
	State      shoal.JobState
	Label      string // KEY=VALUE
	ExternalID string
	Limit      int // at most so many, the newest; 0: all
}

// Jobs lists jobs, newest first.
func (c *Client) Jobs(ctx context.Context, q JobQuery) ([]shoal.Job, error) {
	v := query("user", string(q.User), "pool", string(q.Pool), "name", q.Name, "state", string(q.State), "label", q.Label, "externalId", q.ExternalID)
	return list[shoal.Job](ctx, c, "/jobs", v, q.Limit)
}

// SubmitBatch submits up to api.MaxBatch jobs, each of which is taken or refused by itself. With a key it is
// done once however often it is sent; jobs with an externalId are anyway.
func (c *Client) SubmitBatch(ctx context.Context, req api.BatchRequest, key string) (r api.BatchResult, err error) {
	err = c.do(ctx, call{method: http.MethodPost, path: "/jobs:batch", body: req, key: key}, &r)
	return r, err
}

// JobStatus asks about many jobs in short. Of those with a label it reads all pages; Rev of the result is
// then to be given with the next question.
func (c *Client) JobStatus(ctx context.Context, req api.StatusRequest) (all api.StatusResult, err error) {
	for {
		var page api.StatusResult
		if err := c.repeat(ctx, call{method: http.MethodPost, path: "/jobs:status", body: req}, &page); err != nil {
			return all, err
		}
		all.Items, all.Rev = append(all.Items, page.Items...), page.Rev
		if page.Next == "" || page.Next == req.Cursor {
			return all, nil
		}
		req.Cursor = page.Next
	}
}

// CancelJobs asks for the end of many jobs. It does not wait for that.
func (c *Client) CancelJobs(ctx context.Context, req api.CancelRequest) (r api.CancelResult, err error) {
	err = c.repeat(ctx, call{method: http.MethodPost, path: "/jobs:cancel", body: req}, &r)
	return r, err
}

// Job reads one job.
func (c *Client) Job(ctx context.Context, id shoal.JobID) (shoal.Job, error) {
	return get[shoal.Job](ctx, c, pathOf("jobs", string(id)), nil)
}

// Tasks lists the latest attempts of a job's tasks from an index on, at most limit; 0 means all.
func (c *Client) Tasks(ctx context.Context, id shoal.JobID, from, limit int) ([]shoal.Attempt, error) {
	return list[shoal.Attempt](ctx, c, pathOf("jobs", string(id), "tasks"), query("from", number(from)), limit)
}

// Attempts lists all attempts of a task that the server still knows, oldest first.
func (c *Client) Attempts(ctx context.Context, ref shoal.TaskRef) ([]shoal.Attempt, error) {
	return list[shoal.Attempt](ctx, c, pathOf("jobs", string(ref.Job), "tasks", strconv.Itoa(ref.Index), "attempts"), nil, 0)
}

// CancelJob asks for a job's end. It does not wait for that.
func (c *Client) CancelJob(ctx context.Context, id shoal.JobID) (shoal.Job, error) {
	return post[shoal.Job](ctx, c, pathOf("jobs", string(id), "cancel"), nil)
}

// WaitJob waits until a job has ended, also over restarts of the server.
func (c *Client) WaitJob(ctx context.Context, id shoal.JobID) (api.Wait, error) {
	p := c.patient(c.patience)
	for {
		asked := time.Now()
		var w api.Wait
		err := c.once(ctx, call{method: http.MethodGet, path: pathOf("jobs", string(id), "wait")}, &w)
		switch {
		case err != nil && !p.again(ctx, err):
			return w, err
		case err != nil:
			continue
		case w.Job.State.Ended():
			return w, nil
		}
		p.reset()
		// The server answers after a while without an end. Should one answer at once, it is not pressed.
		if time.Since(asked) < time.Second {
			select {
			case <-time.After(time.Second):
			case <-ctx.Done():
				return w, c.broken(ctx, ctx.Err())
			}
		}
	}
}
