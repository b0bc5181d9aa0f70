package slurm

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/client"
)

// scancel ends jobs. One that has ended already is no error, as in Slurm.
func (c *command) scancel(ctx context.Context, args []string) error {
	f := c.flags()
	var users, names, pools, states []string
	f.StringArrayVarP(&users, "user", "u", nil, "")
	f.StringArrayVarP(&names, "name", "n", nil, "")
	f.StringArrayVar(&names, "jobname", nil, "")
	f.StringArrayVarP(&pools, "partition", "p", nil, "")
	f.StringArrayVarP(&states, "state", "t", nil, "")
	signal := f.StringP("signal", "s", "", "")
	me := f.Bool("me", false, "")
	quiet := f.BoolP("quiet", "Q", false, "")
	for _, name := range []string{"batch/b", "full/f", "interactive/i", "verbose/v", "hurry/H", "ctld"} {
		full, short, _ := strings.Cut(name, "/")
		f.BoolP(full, short, false, "")
	}
	for _, name := range []string{"account/A", "qos/q", "nodelist/w", "clusters/M"} {
		full, short, _ := strings.Cut(name, "/")
		f.StringP(full, short, "", "")
	}
	if err := f.Parse(unabbreviated(f, args)); err != nil {
		return badOption(err)
	}
	switch name := strings.TrimPrefix(strings.ToUpper(*signal), "SIG"); name {
	case "", "KILL", "TERM", "INT", "9", "15", "2":
	default:
		return shoal.Errorf(shoal.KindInvalid, "cannot send %s to a running job", name).WithHint("without --signal the job gets SIGTERM, and SIGKILL after its grace; --signal of sbatch warns ahead of the time limit")
	}
	s := selection{users: words(users...), names: words(names...), pools: words(pools...), states: words(states...)}
	to, err := c.Connect()
	if err != nil {
		return err
	}
	if *me {
		user, err := c.user(ctx, to)
		if err != nil {
			return err
		}
		s.users = append(s.users, string(user))
	}
	var ids []string
	for _, a := range f.Args() {
		ids = append(ids, words(a)...)
	}
	if len(ids) == 0 {
		if len(s.users)+len(s.names)+len(s.pools)+len(s.states) == 0 {
			return shoal.Errorf(shoal.KindInvalid, "No job identification provided")
		}
		if ids, err = c.chosen(ctx, to, s, len(s.states) > 0); err != nil {
			return err
		}
	}
	failed := false
	for _, id := range ids {
		if err := c.cancelOne(ctx, to, id); err != nil {
			failed = true
			if !*quiet {
				c.note("error: Kill job error on job id %s: %v", id, err)
			}
		}
	}
	if failed {
		return exitCode(1)
	}
	return nil
}

// chosen are the active jobs of a selection; with tasks those of an array one by one, as 12_3 and 12_[4-9]: others of it are in
// states that nobody asked for.
func (c *command) chosen(ctx context.Context, to *client.Client, s selection, tasks bool) ([]string, error) {
	found, err := c.find(ctx, to, s)
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, r := range found {
		id := string(r.job.ID)
		if tasks && array(r.job) {
			id += "_" + r.indexes()
		}
		if len(ids) == 0 || ids[len(ids)-1] != id {
			ids = append(ids, id)
		}
	}
	return ids, nil
}

// cancelOne ends a job, or with 12_3 and 12_[3-5] tasks of an array.
func (c *command) cancelOne(ctx context.Context, to *client.Client, id string) error {
	job, tasks, some := strings.Cut(id, "_")
	if some {
		_, err := to.CancelTasks(ctx, shoal.JobID(job), strings.Trim(tasks, "[]"))
		return err
	}
	_, err := to.CancelJob(ctx, shoal.JobID(job))
	return err
}

// scontrol answers `show job`, `show jobid`, `show hostnames` and `show hostlist`.
func (c *command) scontrol(ctx context.Context, args []string) error {
	f := c.flags()
	oneLine := f.BoolP("oneliner", "o", false, "")
	f.CountP("details", "d", "")
	f.BoolP("all", "a", false, "")
	f.BoolP("quiet", "Q", false, "")
	f.BoolP("verbose", "v", false, "")
	if err := f.Parse(unabbreviated(f, args)); err != nil {
		return badOption(err)
	}
	words := f.Args()
	usage := shoal.Errorf(shoal.KindInvalid, "cannot do `scontrol %s`", strings.Join(words, " ")).
		WithHint("there are `scontrol show job [ID]`, `show partition [POOL]`, `show node [MACHINE]`, `show hostnames LIST`, `show hostlist NAMES` and `requeue ID`")
	switch {
	case len(words) == 2 && words[0] == "requeue":
		return c.requeue(ctx, words[1])
	case len(words) < 2 || words[0] != "show":
		return usage
	}
	what, of := strings.ToLower(words[1]), words[2:]
	if kind, id, joined := strings.Cut(what, "="); joined {
		what, of = kind, append([]string{id}, of...)
	}
	switch what {
	case "job", "jobs", "jobid":
		return c.showJobs(ctx, of, *oneLine)
	case "partition", "partitions":
		return c.showPartitions(ctx, of, *oneLine)
	case "node", "nodes":
		return c.showNodes(ctx, of, *oneLine)
	case "hostname", "hostnames":
		list := c.Getenv("SLURM_JOB_NODELIST")
		if len(of) > 0 {
			list = strings.Join(of, ",")
		}
		for _, host := range strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == ' ' || r == '\n' }) {
			c.say("%s", host)
		}
		return nil
	case "hostlist", "hostlistsorted":
		c.say("%s", strings.Join(of, ","))
		return nil
	}
	return usage
}

// requeue starts an ended job again.
func (c *command) requeue(ctx context.Context, id string) error {
	to, err := c.Connect()
	if err != nil {
		return err
	}
	job, tasks, _ := strings.Cut(id, "_")
	_, err = to.Retry(ctx, shoal.JobID(job), strings.Trim(tasks, "[]"))
	return err
}

func (c *command) showJobs(ctx context.Context, ids []string, oneLine bool) error {
	to, err := c.Connect()
	if err != nil {
		return err
	}
	s := selection{history: len(ids) > 0}
	for _, id := range ids {
		s.ids = append(s.ids, words(id)...)
	}
	found, err := c.find(ctx, to, s)
	if err != nil {
		return err
	}
	if len(found) == 0 && len(ids) > 0 {
		return shoal.Errorf(shoal.KindNotFound, "slurm_load_jobs error: Invalid job id specified")
	}
	if len(found) == 0 {
		c.say("No jobs in the system")
	}
	for _, r := range found {
		c.record(c.details(r), oneLine)
	}
	return nil
}

// details are what `scontrol show job` says, in its order.
func (c *command) details(r row) []string {
	s := r.job.Spec
	id := string(r.job.ID)
	head := "JobId=" + id
	if _, index, ok := strings.Cut(r.id, "_"); ok {
		head += fmt.Sprintf(" ArrayJobId=%s ArrayTaskId=%s", id, strings.Trim(index, "[]"))
	}
	state, _ := stateOf(r.state, r.cause())
	reason := r.reason()
	if r.state == shoal.JobQueued && r.job.Reason != "" {
		reason += " ReasonText=" + strconv.Quote(r.job.Reason)
	}
	restarts := 0
	if r.task != nil {
		restarts = max(r.task.Attempt-1, 0)
	}
	requeue := 1
	if s.Requeue == "never" {
		requeue = 0
	}
	resolve := strings.NewReplacer("%j", id, "%x", s.Name, "%n", "0", "%a", indexOf(r)).Replace
	lines := []string{
		fmt.Sprintf("%s JobName=%s", head, s.Name),
		fmt.Sprintf("UserId=%s GroupId=%s MCS_label=N/A", r.job.User, r.job.User),
		fmt.Sprintf("Priority=%d Nice=0 Account=%s QOS=%s", rank(s.Priority), or(s.Labels["account"], "(null)"), or(s.Labels["qos"], "normal")),
		fmt.Sprintf("JobState=%s Reason=%s Dependency=%s", state, reason, or(dependencyOf(s.After), "(null)")),
		fmt.Sprintf("Requeue=%d Restarts=%d BatchFlag=1 Reboot=0 ExitCode=%s", requeue, restarts, r.exit()),
		fmt.Sprintf("RunTime=%s TimeLimit=%s TimeMin=N/A", elapsed(r.took(c.Now()), false), slurmLimit(s.TimeLimit)),
		fmt.Sprintf("SubmitTime=%s EligibleTime=%s", stamp(r.job.Submitted, "Unknown"), stamp(r.job.Submitted, "Unknown")),
		fmt.Sprintf("StartTime=%s EndTime=%s Deadline=N/A", stamp(earliest(r.started(), r.job.Promised), "Unknown"), stamp(r.ended(), "Unknown")),
		fmt.Sprintf("Partition=%s AllocNode:Sid=shoal:0", s.Pool),
		fmt.Sprintf("NodeList=%s", or(r.machine, "(null)")),
		fmt.Sprintf("BatchHost=%s", or(first(r.machine), "(null)")),
		fmt.Sprintf("NumNodes=%d NumCPUs=%d NumTasks=%s CPUs/Task=%s", r.nodes(), r.cpus(), or(s.Env["SLURM_NTASKS"], "1"), or(s.Env["SLURM_CPUS_PER_TASK"], "1")),
		fmt.Sprintf("MinMemoryNode=%s", megabytes(s.Resources.Memory)),
	}
	if s.Resources.GPUs > 0 {
		lines = append(lines, fmt.Sprintf("TresPerNode=gres:gpu:%d", s.Resources.GPUs))
	}
	return append(lines,
		"Command=(null)",
		"WorkDir="+s.Workdir,
		"StdErr="+or(resolve(s.Stderr), "(null)"),
		"StdIn=/dev/null",
		"StdOut="+or(resolve(s.Stdout), "(null)"))
}

func indexOf(r row) string {
	if r.task != nil {
		return strconv.Itoa(r.task.Index)
	}
	return "%a"
}

func slurmLimit(d shoal.Duration) string {
	if d == 0 {
		return "UNLIMITED"
	}
	return elapsed(time.Duration(d), false)
}

// earliest is the first of two times that is known.
func earliest(a, b time.Time) time.Time {
	if a.IsZero() {
		return b
	}
	return a
}

// record writes what scontrol says of one thing.
func (c *command) record(lines []string, oneLine bool) {
	if oneLine {
		c.say("%s", strings.Join(lines, " "))
		return
	}
	c.say("%s\n", strings.Join(lines, "\n   "))
}
