package names

import (
	"context"
	"slices"
	"strings"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/client"
)

// Task finds the task that 17, 17/3 or, of a job that lists its tasks, 17/split means. Without a server nothing is asked where
// the words say all.
func Task(ctx context.Context, connect func() (*client.Client, error), arg string) (shoal.TaskRef, error) {
	ref, err := shoal.ParseTaskRef(arg)
	job, name, found := strings.Cut(arg, "/")
	if err == nil || !found {
		return ref, err
	}
	if ref, bad := shoal.ParseTaskRef(job); bad != nil {
		return ref, err
	}
	c, bad := connect()
	if bad != nil {
		return ref, bad
	}
	j, bad := c.Job(ctx, shoal.JobID(job))
	if bad != nil {
		return ref, bad
	}
	i := slices.IndexFunc(j.Spec.Tasks, func(t shoal.TaskSpec) bool { return t.Name == name })
	if i < 0 {
		return ref, err
	}
	return shoal.TaskRef{Job: j.ID, Index: i}, nil
}

// pageOfTasks is how many tasks are asked for at once.
const pageOfTasks = 1000

// Tasks lists the tasks of a job from an index on, those in a state if one is given; at most so many, 0 means all.
func Tasks(ctx context.Context, c *client.Client, from shoal.TaskRef, state shoal.JobState, most int) (all []shoal.Attempt, more bool, err error) {
	next := max(from.Index, 0)
	for {
		page, err := c.Tasks(ctx, from.Job, next, pageOfTasks)
		if err != nil {
			return nil, false, err
		}
		for _, t := range page {
			switch {
			case state != "" && t.State != state:
				continue
			case most > 0 && len(all) == most:
				return all, true, nil
			}
			all = append(all, t)
		}
		if len(page) < pageOfTasks {
			return all, false, nil
		}
		next = page[len(page)-1].Index + 1
	}
}
