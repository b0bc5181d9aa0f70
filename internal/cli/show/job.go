package show

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

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

// JobAndTasks writes a job with tasks of it; with nodes, those of the first as well. Attempts are all of the first's, if there are several.
func JobAndTasks(w io.Writer, format string, j shoal.Job, tasks, attempts []shoal.Attempt, nodes bool) error {
	if format != Table {
		return Data(w, format, struct {
			shoal.Job
			Tasks    []shoal.Attempt `json:"tasks"`
			Attempts []shoal.Attempt `json:"attempts,omitempty"`
		}{j, slices.Concat([]shoal.Attempt{}, tasks), attempts})
	}
	if err := Job(w, format, j); err != nil || len(tasks) == 0 {
		return err
	}
	fmt.Fprintln(w)
	if err := Tasks(w, j.Spec.Tasks, tasks); err != nil {
		return err
	}
	if t := tasks[0]; len(t.Members) > 1 && nodes {
		fmt.Fprintln(w)
		if err := Nodes(w, t); err != nil {
			return err
		}
	}
	if len(attempts) < 2 {
		return nil
	}
	fmt.Fprintf(w, "\nWhat was tried of task %s:\n", tasks[0].TaskRef)
	return Tasks(w, nil, attempts)
}

// Tasks writes the tasks of a job as a table, with the names that the job gives them.
func Tasks(w io.Writer, named []shoal.TaskSpec, tasks []shoal.Attempt) error {
	header := []string{"TASK", "STATE", "ATTEMPT", "MACHINE", "EXIT", "CAUSE", "TIME", "CPU", "MEMORY", "REASON"}
	if len(named) > 0 {
		header = slices.Insert(header, 1, "NAME")
	}
	rows := make([][]string, 0, len(tasks))
	for _, t := range tasks {
		var exit, cpu string
		if t.State.Ended() && (t.Cause == shoal.CauseExit || t.Cause == shoal.CauseSignal || t.ExitCode != 0) {
			exit = strconv.Itoa(t.ExitCode)
		}
		if t.CPUTime > 0 {
			cpu = term.Span(time.Duration(t.CPUTime))
		}
		row := []string{t.TaskRef.String(), string(t.State), strconv.Itoa(t.Attempt), machines(t), exit, cause(t),
			took(t.Started, t.Ended), cpu, Only(t.MaxMemory > 0, t.MaxMemory.String()), t.Reason}
		if len(named) > 0 {
			name := ""
			if t.Index >= 0 && t.Index < len(named) {
				name = named[t.Index].Name
			}
			row = slices.Insert(row, 1, name)
		}
		rows = append(rows, row)
	}
	return term.Table(w, header, rows)
}

// Nodes writes the nodes of an attempt that has several, by rank.
func Nodes(w io.Writer, t shoal.Attempt) error {
	rows := make([][]string, 0, len(t.Members))
	for rank, m := range t.Members {
		var exit string
		if m.State.Ended() && (m.Cause == shoal.CauseExit || m.ExitCode != 0) {
			exit = strconv.Itoa(m.ExitCode)
		}
		rows = append(rows, []string{strconv.Itoa(rank), string(m.Machine), string(m.State), exit, Only(m.MaxMemory > 0, m.MaxMemory.String()), m.Reason})
	}
	return term.Table(w, []string{"NODE", "MACHINE", "STATE", "EXIT", "MEMORY", "REASON"}, rows)
}

// cause is why an attempt ended, where its exit code does not say all.
func cause(t shoal.Attempt) string {
	if t.Cause == shoal.CauseExit {
		return ""
	}
	return string(t.Cause)
}

// machines are those of an attempt: the first, and how many more.
func machines(t shoal.Attempt) string {
	if n := len(t.Members); n > 1 {
		return fmt.Sprintf("%s +%d", t.Machine, n-1)
	}
	return string(t.Machine)
}

func jobFields(j shoal.Job) []term.Field {
	s := j.Spec
	var after []string
	for _, d := range s.After {
		after = append(after, d.String())
	}
	var limit string
	if s.TimeLimit > 0 {
		limit = s.TimeLimit.String() + Only(s.Signal != "", ", signal "+s.Signal)
	}
	starts := ""
	if !j.Promised.IsZero() && j.State == shoal.JobQueued {
		starts = "at " + j.Promised.Local().Format("2006-01-02 15:04:05") + " at the latest"
	}
	fields := []term.Field{{"Job", string(j.ID)}, {"Name", s.Name}, {"Own ID", s.ExternalID}, {"User", string(j.User)}, {"Pool", string(s.Pool)},
		{"State", string(j.State) + ", " + Ago(j.Since)}, {"Reason", j.Reason}, {"Starts", starts}, {"Tasks", Counts(j.Counts)}, {"Array", s.Array},
		{"Items", Only(j.Items > 0, strconv.Itoa(j.Items))}, {"At a time", Only(s.MaxRunning > 0, strconv.Itoa(s.MaxRunning))}, {"Gives up", Only(s.MaxFails > 0, "after "+Many(s.MaxFails, "failure"))}}
	fields = append(fields, whatRuns(s)...)
	return append(fields, term.Field{"Directory", Or(s.Workdir, "the home directory")}, term.Field{"Each task", resources(s.Resources) + Only(s.Nodes.Several(), " on each of "+s.Nodes.String()+" nodes")},
		term.Field{"Launcher", Only(s.Launcher != "each", s.Launcher)}, term.Field{"Time limit", limit}, term.Field{"Retries", retries(s)}, term.Field{"Losses", losses(s)},
		term.Field{"After", strings.Join(after, ", ")}, term.Field{"Priority", s.Priority}, term.Field{"Shared", Only(s.Share == "group", "with the group")},
		term.Field{"Labels", assignments(s.Labels)}, term.Field{"Environment", assignments(s.Env)},
		term.Field{"Submitted", when(j.Submitted)}, term.Field{"Started", when(j.Started)}, term.Field{"Ended", when(j.Ended)}, term.Field{"Took", took(j.Started, j.Ended)})
}

// shownCommands bounds how many commands of a job of different ones are shown.
const shownCommands = 20

// whatRuns is the command, or those of the tasks, and what goes with it.
func whatRuns(s shoal.JobSpec) []term.Field {
	command := s.Command
	for i, t := range s.Tasks {
		if i == shownCommands {
			command += fmt.Sprintf("and %d more", len(s.Tasks)-i)
			break
		}
		command += fmt.Sprintf("%s: %s%s\n", t.Name, term.Short(t.Command, 60), Only(len(t.After) > 0, " (after "+strings.Join(t.After, ", ")+")"))
	}
	var image string
	if s.Container != nil {
		image = s.Container.Image
	}
	return []term.Field{{"Command", strings.TrimSuffix(command, "\n")}, {"Container", image}, {"Prepare", s.Prepare}, {"Release", s.Release}}
}

// retries says what is tried again.
func retries(s shoal.JobSpec) string {
	if s.Retries == 0 {
		return ""
	}
	out := strconv.Itoa(s.Retries)
	if s.Retry != nil {
		out += Only(len(s.Retry.On) > 0, " after "+Words(s.Retry.On)) + Only(s.Retry.Memory > 0, ", with "+s.Retry.Memory.String()+" the memory after oom")
	}
	return out
}

// losses says what follows the loss of a machine where that is not the usual.
func losses(s shoal.JobSpec) string {
	var parts []string
	for _, p := range []struct {
		is   bool
		text string
	}{{s.Requeue == "never", "not tried again"}, {s.Idempotent, "tried again at once"}, {s.OnNodeLoss == "continue", "the other nodes go on"},
		{!s.GivesWay(), "never preempted"}} {
		if p.is {
			parts = append(parts, p.text)
		}
	}
	return strings.Join(parts, ", ")
}

// assignments are K=V, a line for each.
func assignments(m map[string]string) string {
	var all []string
	for k, v := range m {
		all = append(all, k+"="+v)
	}
	slices.Sort(all)
	return strings.Join(all, "\n")
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
