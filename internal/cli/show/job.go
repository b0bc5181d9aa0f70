package show

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/cli/show/term"
)

// Jobs writes jobs.
func Jobs(w io.Writer, format string, jobs []shoal.Job) error {
	return list(w, format, jobs, []string{"ID", "NAME", "USER", "POOL", "STATE", "DONE", "TIME", "SUBMITTED", "REASON"}, func(j shoal.Job) []string {
		return []string{string(j.ID), term.Short(Or(j.Spec.Name, j.Spec.Command), 24), string(j.User), string(j.Spec.Pool), string(j.State),
			done(j), took(j.Started, j.Ended), Ago(j.Submitted), j.Reason}
	})
}

// Job writes one job.
func Job(w io.Writer, format string, j shoal.Job) error { return one(w, format, j, jobFields) }

func done(j shoal.Job) string {
	c := j.Counts
	return fmt.Sprintf("%d/%d", c.Succeeded+c.Failed+c.Cancelled+c.TimedOut, c.Total())
}

// Tasks writes the tasks of a job as a table.
func Tasks(w io.Writer, tasks []shoal.Attempt) error {
	rows := make([][]string, 0, len(tasks))
	for _, t := range tasks {
		var exit string
		if t.State.Ended() && (t.Cause == shoal.CauseExit || t.Cause == shoal.CauseSignal || t.ExitCode != 0) {
			exit = strconv.Itoa(t.ExitCode)
		}
		rows = append(rows, []string{strconv.Itoa(t.Index), string(t.State), strconv.Itoa(t.Attempt), string(t.Machine), exit,
			took(t.Started, t.Ended), Only(t.MaxMemory > 0, t.MaxMemory.String()), t.Reason})
	}
	return term.Table(w, []string{"TASK", "STATE", "ATTEMPT", "MACHINE", "EXIT", "TIME", "MEMORY", "REASON"}, rows)
}

func jobFields(j shoal.Job) []term.Field {
	s := j.Spec
	var env, after []string
	for _, d := range s.After {
		after = append(after, d.String())
	}
	for k, v := range s.Env {
		env = append(env, k+"="+v)
	}
	slices.Sort(env)
	var limit, retries string
	if s.TimeLimit > 0 {
		limit = s.TimeLimit.String()
	}
	if s.Retries > 0 {
		retries = strconv.Itoa(s.Retries)
	}
	return []term.Field{{"Job", string(j.ID)}, {"Name", s.Name}, {"User", string(j.User)}, {"Pool", string(s.Pool)},
		{"State", string(j.State) + ", " + Ago(j.Since)}, {"Reason", j.Reason}, {"Tasks", Counts(j.Counts)}, {"Array", s.Array},
		{"Command", s.Command}, {"Directory", Or(s.Workdir, "the home directory")}, {"Each task", resources(s.Resources)},
		{"Time limit", limit}, {"Retries", retries}, {"After", strings.Join(after, ", ")}, {"Priority", s.Priority}, {"Environment", strings.Join(env, "\n")},
		{"Submitted", when(j.Submitted)}, {"Started", when(j.Started)}, {"Ended", when(j.Ended)}, {"Took", took(j.Started, j.Ended)}}
}

// Counts says how far the tasks are: "3 of 8 done, 2 running, 3 queued".
func Counts(c shoal.Counts) string {
	done := c.Succeeded + c.Failed + c.Cancelled + c.TimedOut
	parts := []string{fmt.Sprintf("%d of %d done", done, c.Total())}
	for _, s := range []struct {
		n    int
		word string
	}{{c.Failed, "failed"}, {c.TimedOut, "timed out"}, {c.Cancelled, "cancelled"}, {c.Running + c.Starting, "running"}, {c.Queued, "queued"}} {
		if s.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", s.n, s.word))
		}
	}
	return strings.Join(parts, ", ")
}
