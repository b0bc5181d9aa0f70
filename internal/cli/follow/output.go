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
