// Package after says what may begin, by how what it waits for stands.
package after

import (
	"fmt"

	"github.com/shoal-pool/shoal"
)

// Verdict is what is known of something that waits.
type Verdict int

// The verdicts.
const (
	Wait  Verdict = iota // for something that has not ended
	Ready                // it may begin
	Never                // something ended otherwise than was waited for
)

// Of is the verdict of one dependency on something in a state.
func Of(d shoal.Dependency, s shoal.JobState) Verdict {
	switch {
	case !s.Ended():
		return Wait
	case d.Met(s):
		return Ready
	}
	return Never
}

// And is the verdict of two things together.
func (v Verdict) And(o Verdict) Verdict {
	switch {
	case v == Never || o == Never:
		return Never
	case v == Wait || o == Wait:
		return Wait
	}
	return Ready
}

// Unmet says that something ended otherwise than was waited for.
func Unmet(d shoal.Dependency, what, how string) string {
	if d.Condition == shoal.AfterFailed {
		return fmt.Sprintf("%s, which had to fail first, %s", what, how)
	}
	return fmt.Sprintf("%s, which had to succeed first, %s", what, how)
}

// Lost reports whether a job is taken although it will never begin, since err says that what it waits for has ended otherwise. It
// is cancelled at once, as if that had ended a moment later: sbatch takes such jobs, and what calls it relies on that.
func Lost(s shoal.JobSpec, err error) bool {
	return s.Dialect == "slurm" && shoal.KindOf(err) == shoal.KindConflict
}

// Gated reports whether a job's tasks become ready one by one.
func Gated(s shoal.JobSpec) bool {
	for _, t := range s.Tasks {
		if len(t.After) > 0 {
			return true
		}
	}
	for _, d := range s.After {
		if d.Task == shoal.Corresponding {
			return true
		}
	}
	return false
}

// Before are the places in the list of the tasks that must succeed before another.
func Before(tasks []shoal.TaskSpec, p int) []int {
	if len(tasks) == 0 {
		return nil
	}
	var all []int
	for _, name := range tasks[p].After {
		if i := place(tasks, name); i >= 0 {
			all = append(all, i)
		}
	}
	return all
}

// Behind are the places of the tasks that wait for another.
func Behind(tasks []shoal.TaskSpec, p int) []int {
	if len(tasks) == 0 {
		return nil
	}
	var all []int
	for i, t := range tasks {
		for _, name := range t.After {
			if name == tasks[p].Name {
				all = append(all, i)
				break
			}
		}
	}
	return all
}

func place(tasks []shoal.TaskSpec, name string) int {
	for i, t := range tasks {
		if t.Name == name {
			return i
		}
	}
	return -1
}
