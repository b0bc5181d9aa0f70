package submit

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/cli/flags"
)

// Flags are a job's own flags, on the command line and in the head of a batch script.
type Flags struct {
	Job         shoal.JobSpec
	Items       Items
	env         []string
	secrets     []string
	labels      []string
	inputs      []string
	outputs     []string
	retryOn     []string
	retryMemory string
	preemptible bool
	container   string
}

// Bind adds the flags to a command.
func (o *Flags) Bind(cmd *cobra.Command) {
	f := cmd.Flags()
	j := &o.Job
	f.StringVarP((*string)(&j.Pool), "pool", "p", "", "the `POOL` to run on")
	f.StringVar(&j.Name, "name", "", "a `NAME` to find the job by")
	j.Nodes = shoal.Fixed(1)
	f.Var(flags.Nodes{Value: &j.Nodes}, "nodes", "on `N` machines at once, or on any number of a range: 2-4")
	f.StringVar(&j.Launcher, "launcher", "each", "where the command runs: on each node, on the head only, or by mpi")
	f.IntVar(&j.Processes, "processes", 0, "start `N` processes on all nodes together")
	f.Var(flags.Array{Value: &j.Array, MaxRunning: &j.MaxRunning}, "array", "a task for each index of `RANGE`: 1-100, 0-9:3, 1,4,7-9; 1-100%5: five at a time")
	f.IntVar(&j.MaxRunning, "max-running", 0, "run at most `N` tasks at a time")
	f.IntVar(&j.MaxFails, "max-fails", 0, "cancel the rest when `N` tasks have failed")
	f.Var(flags.CPUs{Value: &j.Resources.CPUs}, "cpus", "processors of each task (1)")
	f.Var(flags.Bytes{Value: &j.Resources.Memory}, "memory", "memory of each task (512MiB)")
	f.IntVar(&j.Resources.GPUs, "gpus", 0, "GPUs of each task")
	f.Var(flags.Duration{Value: &j.TimeLimit}, "time-limit", "end a task after this time")
	f.StringVar(&j.Signal, "signal", "", "send a task `SIGNAL` ahead of its time limit: USR1@60s")
	f.StringVar(&j.Priority, "priority", "normal", "low, normal or high")
	f.Var(flags.After{Value: &j.After}, "after", "start after `JOB` (number or name) succeeded; JOB:any, JOB:failed: after another end; JOB/*: each task after that of its index; may be repeated")
	f.StringArrayVarP(&o.env, "env", "e", nil, "set a variable, `K=V`; K alone takes yours; may be repeated")
	f.StringArrayVar(&o.secrets, "secret", nil, "give the task a secret as variable and file, `K=NAME`; NAME alone: in K is NAME in capitals; may be repeated")
	f.StringVar(&j.Workdir, "workdir", "", "the `DIR` to run in")
	o.bindAgain(cmd)
	o.Items.Bind(cmd)
}

// bindAgain adds what says how tasks are tried again, found, prepared and written about.
func (o *Flags) bindAgain(cmd *cobra.Command) {
	f := cmd.Flags()
	j := &o.Job
	f.IntVar(&j.Retries, "retries", 0, "try a failed task `N` more times")
	f.StringSliceVar(&o.retryOn, "retry-on", nil, "only after these `CAUSES`: exit, signal, oom, timeLimit, setupFailed")
	f.StringVar(&o.retryMemory, "retry-memory", "", "with so much more memory after it ran out of it: 2x")
	f.StringVar(&j.Requeue, "requeue", "", "after the loss of a machine or preemption: always (the default) or never")
	f.BoolVar(&j.Idempotent, "idempotent", false, "two tries may overlap: start again at once when a machine falls silent")
	f.StringVar(&j.OnNodeLoss, "on-node-loss", "", "of several nodes, when one is lost: restart (the default) or continue")
	f.BoolVar(&o.preemptible, "preemptible", true, "give way to logins and urgent jobs; false: never use what they are entitled to")
	f.StringVar(&j.Prepare, "prepare", "", "run `CMD` on each machine before the first task there")
	f.StringVar(&j.Release, "release", "", "run `CMD` at the end on each machine that ran a task")
	f.StringVar(&o.container, "container", "", "run in the container `IMAGE`")
	f.StringVar(&j.Stdout, "stdout", "", "copy the output to `FILE`: %j is the job, %a the index, %n the node, %x the name")
	f.StringVar(&j.Stderr, "stderr", "", "copy the standard error to `FILE`")
	f.StringArrayVar(&o.inputs, "input", nil, "a directory to read, `NAME=DIR`: the task sees SHOAL_INPUT_NAME; may be repeated")
	f.StringArrayVar(&o.outputs, "output-dir", nil, "a directory for results, `NAME=DIR`: the task sees SHOAL_OUTPUT_NAME; may be repeated")
	f.StringArrayVarP(&o.labels, "label", "l", nil, "a label, `K=V`, to find the job by; may be repeated")
	f.StringVar(&j.ExternalID, "external-id", "", "your own `ID` for the job: a second job of the same is not made")
}

// Spec is the job that the flags describe, but for its command and its items.
func (o *Flags) Spec(getenv func(string) string) (j shoal.JobSpec, err error) {
	j = o.Job
	if j.Env, err = environment(o.env, getenv); err != nil {
		return j, err
	}
	if j.Secrets, err = secrets(o.secrets); err != nil {
		return j, err
	}
	if j.Labels, err = pairs("label", o.labels); err != nil {
		return j, err
	}
	if j.Inputs, err = pairs("input", o.inputs); err != nil {
		return j, err
	}
	outputs, err := pairs("output-dir", o.outputs)
	if err != nil {
		return j, err
	}
	for name, dir := range outputs {
		if j.Outputs == nil {
			j.Outputs = map[string]shoal.OutputDir{}
		}
		j.Outputs[name] = shoal.OutputDir{Path: dir}
	}
	if o.container != "" {
		j.Container = &shoal.Container{Image: o.container}
	}
	if !o.preemptible {
		no := false
		j.Preemptible = &no
	}
	if len(o.retryOn) > 0 || o.retryMemory != "" {
		j.Retry = &shoal.Retry{}
		for _, c := range o.retryOn {
			j.Retry.On = append(j.Retry.On, shoal.Cause(strings.TrimSpace(c)))
		}
		if o.retryMemory != "" {
			if j.Retry.Memory, err = shoal.ParseFactor(o.retryMemory); err != nil {
				return j, err
			}
		}
	}
	return j, nil
}

// environment reads K=V, and K, which takes the value from here.
func environment(list []string, getenv func(string) string) (map[string]string, error) {
	if len(list) == 0 {
		return nil, nil
	}
	env := map[string]string{}
	for _, e := range list {
		key, value, set := strings.Cut(e, "=")
		if key == "" {
			return nil, shoal.Errorf(shoal.KindInvalid, "cannot use --env %q: write K=V", e)
		}
		if !set {
			if value = getenv(key); value == "" {
				return nil, shoal.Errorf(shoal.KindInvalid, "cannot use --env %s: there is no variable %s here to take the value of; write %s=VALUE", key, key, key)
			}
		}
		env[key] = value
	}
	return env, nil
}

// secrets reads K=NAME, and NAME, which becomes a variable of that name: api-key is API_KEY.
func secrets(list []string) (map[string]string, error) {
	full := make([]string, len(list))
	for i, s := range list {
		if full[i] = s; !strings.Contains(s, "=") {
			full[i] = strings.ToUpper(strings.ReplaceAll(s, "-", "_")) + "=" + s
		}
	}
	return pairs("secret", full)
}

// pairs reads K=V.
func pairs(flag string, list []string) (map[string]string, error) {
	var all map[string]string
	for _, p := range list {
		key, value, ok := strings.Cut(p, "=")
		if !ok || key == "" {
			return nil, shoal.Errorf(shoal.KindInvalid, "cannot use --%s %q: write K=V", flag, p)
		}
		if all == nil {
			all = map[string]string{}
		}
		all[key] = value
	}
	return all, nil
}

// TaskArg is what an argument of a command about jobs names: a job, one task, or tasks of some indexes.
type TaskArg struct {
	Job   shoal.JobID
	Tasks string // indexes in the form of an array; empty: the whole job
}

// ParseTasks reads 17, 17/3, 17/1-3,7.
func ParseTasks(s string) (TaskArg, error) {
	job, tasks, found := strings.Cut(s, "/")
	ref, err := shoal.ParseTaskRef(job)
	if err != nil {
		return TaskArg{}, err
	}
	if !found {
		return TaskArg{Job: ref.Job}, nil
	}
	if _, err := shoal.ParseArray(tasks); err != nil || tasks == "" {
		return TaskArg{}, shoal.Errorf(shoal.KindInvalid, "cannot read %q as tasks of job %s", tasks, job).WithHint("write %s/3 or %s/1-3,7", job, job)
	}
	return TaskArg{Job: ref.Job, Tasks: tasks}, nil
}
