package client

import (
	"context"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
)

// CancelTasks asks for the end of some of a job's tasks, by their indexes: "1-3,7". It does not wait for that.
func (c *Client) CancelTasks(ctx context.Context, id shoal.JobID, tasks string) (shoal.Job, error) {
	return post[shoal.Job](ctx, c, pathOf("jobs", string(id), "cancel"), api.CancelTasks{Tasks: tasks})
}

// Retry starts tasks of a job that has ended again: those of the given indexes, or with none all that
// did not succeed.
func (c *Client) Retry(ctx context.Context, id shoal.JobID, tasks string) (shoal.Job, error) {
	return post[shoal.Job](ctx, c, pathOf("jobs", string(id), "retry"), api.RetryRequest{Tasks: tasks})
}
