package slurm

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/client"
)

// row is a job or a task of an array as the commands show it.
type row struct {
	job     shoal.Job
	task    *shoal.Attempt // nil: tasks that have not begun
	id      string         // 12, 12_3 or 12_[4-9]
	waiting []int          // of an array those that were started before and wait again; with all from its next on the tasks of this row
	state   shoal.JobState
	machine string
}

func active() []shoal.JobState {
	return []shoal.JobState{shoal.JobQueued, shoal.JobStarting, shoal.JobRunning}
}

// user is who the caller is: of root's own socket, whom the system says.
func (c *command) user(ctx context.Context, to *client.Client) (shoal.UserName, error) {
	me, err := to.Whoami(ctx)
	if err != nil || me.User != "" {
		return me.User, err
	}
	return shoal.UserName(c.Getenv("USER")), nil
}

// maxTasks bounds how many tasks of one array are shown one by one.
const maxTasks = 10_000

// rows are the lines for one job: one for a plain job; for an array one for each task that has begun and one for
// those that have not.
func rows(ctx context.Context, to *client.Client, j shoal.Job) ([]row, error) {
	if j.State == shoal.JobQueued && j.Next == 0 && !array(j) {
		return []row{{job: j, id: string(j.ID), state: j.State}}, nil
	}
	var tasks []shoal.Attempt
	if j.Next > 0 || !array(j) {
		var err error
		if tasks, err = to.Tasks(ctx, j.ID, 0, min(max(j.Next, 1), maxTasks)); err != nil {
			return nil, err
		}
	}
	var all []row
	var waiting []int
	for _, t := range tasks {
		r := row{job: j, task: &t, id: string(j.ID), state: t.State, machine: string(t.Machine)}
		if array(j) {
			r.id = fmt.Sprintf("%s_%d", j.ID, t.Index)
		}
		if len(t.Members) > 1 {
			names := make([]string, len(t.Members))
			for i, m := range t.Members {
				names[i] = string(m.Machine)
			}
			r.machine = strings.Join(names, ",")
		}
		if array(j) && t.Attempt == 0 {
			if t.State == shoal.JobQueued {
				waiting = append(waiting, t.Index)
			}
			continue
		}
		all = append(all, r)
	}
	if !array(j) {
		return all, nil
	}
	if list := rest(j, waiting); list != "" {
		r := row{job: j, id: fmt.Sprintf("%s_[%s]", j.ID, list), state: shoal.JobQueued, waiting: waiting}
		if j.Counts.Queued == 0 {
			r.state = shoal.JobCancelled // they never began, and never will
		}
		all = append(all, r)
	}
	return all, nil
}

// indexes are those of the row's tasks, written as an array is.
func (r row) indexes() string {
	if r.task != nil {
		return strconv.Itoa(r.task.Index)
	}
	a, err := shoal.ParseArray(r.job.Spec.Array)
	if err != nil {
		return ""
	}
	all := slices.Clone(r.waiting)
	for p := r.job.Next; p < a.Len(); p++ {
		all = append(all, a.Index(p))
	}
	return ranges(all)
}

func array(j shoal.Job) bool { return j.Spec.Array != "" || j.Counts.Total() > 1 }

// rest writes the indexes that have not begun: those given, and all from the job's next on.
func rest(j shoal.Job, waiting []int) string {
	a, err := shoal.ParseArray(j.Spec.Array)
	if err != nil {
		return ""
	}
	for p := j.Next; p < a.Len() && len(waiting) < 3; p++ {
		if i := a.Index(p); !slices.Contains(waiting, i) {
			waiting = append(waiting, i)
		}
	}
	switch {
	case len(waiting) == 0:
		return ""
	case len(waiting) == 1:
		return strconv.Itoa(waiting[0])
	}
	list := fmt.Sprintf("%d-%d", waiting[0], a.Index(a.Len()-1))
	if step := waiting[1] - waiting[0]; step > 1 && len(waiting) > 2 && waiting[2]-waiting[1] == step {
		list += ":" + strconv.Itoa(step)
	}
	if n := j.Spec.MaxRunning; n > 0 {
		list += "%" + strconv.Itoa(n)
	}
	return list
}

// started and ended are the row's own times.
func (r row) started() time.Time {
	if r.task != nil {
		return r.task.Started
	}
	return time.Time{}
}

func (r row) ended() time.Time {
	if r.task != nil && r.state.Ended() {
		return r.task.Ended
	}
	if r.state.Ended() {
		return r.job.Ended
	}
	return time.Time{}
}

func (r row) took(now time.Time) time.Duration {
	if r.started().IsZero() {
		return 0
	}
	if end := r.ended(); !end.IsZero() {
		return end.Sub(r.started())
	}
	return now.Sub(r.started())
}

func (r row) cause() shoal.Cause {
	if r.task != nil {
		return r.task.Cause
	}
	return ""
}

// exit is the exit code and the signal that ended it.
func (r row) exit() string {
	switch {
	case r.task == nil || !r.state.Ended():
		return "0:0"
	case r.task.Signal > 0:
		return fmt.Sprintf("0:%d", r.task.Signal)
	}
	return fmt.Sprintf("%d:0", r.task.ExitCode)
}

// nodes is how many machines it has or wants.
func (r row) nodes() int {
	if r.task != nil && len(r.task.Members) > 1 {
		return len(r.task.Members)
	}
	return r.job.Spec.Nodes.Least()
}

func (r row) cpus() int {
	return max(1, int(r.job.Spec.Resources.CPUs+999)/1000) * r.nodes()
}

// tres is what it has, as Slurm writes it: cpu=2,mem=1G,node=1,billing=2.
func (r row) tres() string {
	s := fmt.Sprintf("billing=%d,cpu=%d", r.cpus(), r.cpus())
	if n := r.job.Spec.Resources.GPUs; n > 0 {
		s += fmt.Sprintf(",gres/gpu=%d", n*r.nodes())
	}
	if m := r.job.Spec.Resources.Memory; m > 0 {
		s += ",mem=" + megabytes(m*shoal.Bytes(r.nodes()))
	}
	return s + fmt.Sprintf(",node=%d", r.nodes())
}

func (r row) limit() string {
	if r.job.Spec.TimeLimit == 0 {
		return "UNLIMITED"
	}
	return elapsed(time.Duration(r.job.Spec.TimeLimit), true)
}

// minutes is the time limit in minutes.
func (r row) minutes() string {
	if r.job.Spec.TimeLimit == 0 {
		return "UNLIMITED"
	}
	return strconv.Itoa(int(time.Duration(r.job.Spec.TimeLimit) / time.Minute))
}

// reason is a word as Slurm has it; Shoal's own sentence is what scontrol shows.
func (r row) reason() string {
	switch {
	case r.state != shoal.JobQueued:
		return "None"
	case r.job.Blocked:
		return "Dependency"
	case r.job.Spec.MaxRunning > 0 && r.job.Counts.Starting+r.job.Counts.Running >= r.job.Spec.MaxRunning: // a job of which some run has no reason to wait
		return "JobArrayTaskLimit"
	}
	for _, w := range []struct{ words, reason string }{{"as it wants at a time", "JobArrayTaskLimit"}, {"as one user may", "QOSMaxJobsPerUserLimit"},
		{"as one group may", "AssocGrpJobsLimit"}, {"goes before", "Priority"}, {"go before", "Priority"}, {"before it", "Priority"}} {
		if strings.Contains(r.job.Reason, w.words) {
			return w.reason
		}
	}
	return "Resources"
}

// selection is which jobs are asked for.
type selection struct {
	ids     []string // 12, 12_3
	users   []string
	names   []string
	pools   []string
	account []string
	states  []string
	since   time.Time // ended jobs only from then on
	until   time.Time // submitted until then; zero: whenever
	history bool      // ended ones as well
}

// find reads the jobs of a selection, oldest first.
func (c *command) find(ctx context.Context, to *client.Client, s selection) ([]row, error) {
	var jobs []shoal.Job
	if len(s.ids) > 0 {
		seen := map[string]bool{}
		for _, id := range s.ids {
			number, _, _ := strings.Cut(id, "_")
			if number, _, _ = strings.Cut(number, "."); seen[number] {
				continue
			}
			seen[number] = true
			j, err := to.Job(ctx, shoal.JobID(number))
			if shoal.KindOf(err) == shoal.KindNotFound {
				continue
			}
			if err != nil {
				return nil, err
			}
			jobs = append(jobs, j)
		}
	} else {
		q := client.JobQuery{}
		if len(s.users) == 1 {
			q.User = shoal.UserName(s.users[0])
		}
		if len(s.names) == 1 {
			q.Name = notName.ReplaceAllString(s.names[0], "_")
		}
		states := active()
		if s.history {
			states, q.Limit = []shoal.JobState{""}, 10_000
		}
		for _, q.State = range states {
			some, err := to.Jobs(ctx, q)
			if err != nil {
				return nil, err
			}
			jobs = append(jobs, some...)
		}
	}
	slices.SortFunc(jobs, func(a, b shoal.Job) int { return cmp.Or(cmp.Compare(len(a.ID), len(b.ID)), cmp.Compare(a.ID, b.ID)) })
	var all []row
	for _, j := range jobs {
		if len(s.ids) == 0 && (!matches(s.users, string(j.User)) || !matches(s.pools, string(j.Spec.Pool)) || !matches(s.names, j.Spec.Name) ||
			!matches(s.account, j.Spec.Labels["account"]) || j.State.Ended() && j.Ended.Before(s.since) || !s.until.IsZero() && j.Submitted.After(s.until)) {
			continue
		}
		if !s.history && j.State.Ended() {
			continue
		}
		found, err := rows(ctx, to, j)
		if err != nil {
			return nil, err
		}
		for _, r := range found {
			long, short := stateOf(r.state, r.cause())
			if matches(s.states, long, short) && s.wants(r) && (s.history || !r.state.Ended()) {
				all = append(all, r)
			}
		}
	}
	return all, nil
}

// wants reports whether a row is one of those named by task: 12_3 is that task alone, 12 all of the job.
func (s selection) wants(r row) bool {
	return len(s.ids) == 0 || slices.ContainsFunc(s.ids, func(id string) bool {
		id, _, _ = strings.Cut(id, ".")
		if id == r.id || id == string(r.job.ID) {
			return true
		}
		job, index, _ := strings.Cut(id, "_")
		return job == string(r.job.ID) && r.task == nil && strings.Contains(r.id, "[") && index != "" && later(r, index)
	})
}

// later reports whether an index is among the tasks that have not begun.
func later(r row, index string) bool {
	n, err := strconv.Atoi(index)
	a, bad := shoal.ParseArray(r.job.Spec.Array)
	if err != nil || bad != nil {
		return false
	}
	p, ok := a.Position(n)
	return ok && p >= r.job.Next
}
