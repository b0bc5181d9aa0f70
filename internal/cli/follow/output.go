package follow

import (
	"context"
	"io"
	"strconv"
	"strings"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/client"
)

// Only is a job's single task, or the first of several.
func Only(job shoal.Job) shoal.TaskRef {
	digits := job.Spec.Array
	if end := strings.IndexFunc(digits, func(r rune) bool { return r < '0' || r > '9' }); end >= 0 {
		digits = digits[:end]
	}
	index, err := strconv.Atoi(digits)
	if err != nil {
		index = 0 // no array: index 0
	}
	return shoal.TaskRef{Job: job.ID, Index: index}
}

// OnlyTask is the task of a job that has one.
func OnlyTask(ctx context.Context, c *client.Client, id shoal.JobID) (shoal.TaskRef, error) {
	job, err := c.Job(ctx, id)
	if err != nil {
		return shoal.TaskRef{}, err
	}
	if n := job.Counts.Total(); n > 1 {
		return shoal.TaskRef{}, shoal.Errorf(shoal.KindInvalid, "cannot tell which of the %d tasks of job %s is meant", n, id).
			WithHint("name one by its index, as in `shoal job logs %s/%d`", id, Only(job).Index)
	}
	return Only(job), nil
}

// Output copies the output of a task to w: when following until the task is over and all of it is
// there, else what there is. A connection that breaks is taken up where it broke.
func Output(ctx context.Context, c *client.Client, ref shoal.TaskRef, q client.OutputQuery, w io.Writer) error {
	r, err := c.Output(ctx, ref, q)
	if err != nil {
		return err
	}
	defer r.Close()
	_, err = io.Copy(w, r)
	return err
}
