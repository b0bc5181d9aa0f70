package launch

import (
	"encoding/json"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
)

// The launchers. No name means each.
const (
	each = "each"
	head = "head"
	mpi  = "mpi"
)

// The dialects.
const (
	batchAI = "batchai"
	slurm   = "slurm"
)

// Task is an attempt that is to be run.
type Task struct {
	Job      shoal.Job
	Attempt  shoal.Attempt // of it, the reference, Memory and Release count
	Position int           // of its index among the job's tasks
	Item     shoal.Item    // what the task works on, of a job that has items
	Pool     shoal.Pool    // of its machines: Mounts and Home count
	Nodes    []Node        // by rank; one at least
	// Secrets are the values of those that the job names, by the variables that get them.
	Secrets map[string]string
	Refused string // why it cannot start; empty: it can
	// SSH is the key pair of an attempt of several nodes: Key and Authorized. It must be the same each time.
	SSH *api.TaskSSH
}

// Node is a machine that takes part.
type Node struct {
	Machine shoal.MachineID
	Address string          // host:port of its sshd
	HostKey string          // authorized_keys form
	Has     shoal.Resources // all that the machine has
	GPUs    []int           // numbers of those that are the attempt's
}

// NodeOf is a machine as a node.
func NodeOf(m shoal.Machine, gpus []int) Node {
	return Node{Machine: m.ID, Address: m.Address, HostKey: m.HostKey, Has: m.Resources, GPUs: gpus}
}

// host is the node's address alone.
func (n Node) host() string {
	if i := strings.LastIndexByte(n.Address, ':'); i > 0 {
		return strings.Trim(n.Address[:i], "[]")
	}
	return n.Address
}

func (n Node) port() string {
	if i := strings.LastIndexByte(n.Address, ':'); i > 0 {
		return n.Address[i+1:]
	}
	return "22"
}

// Order is what the node of a rank is to do. Hold is the caller's.
func Order(t Task, rank int) api.TaskOrder {
	v := newView(t, rank)
	s := v.spec
	o := api.TaskOrder{Ref: t.Attempt.AttemptRef, User: t.Job.User, Rank: rank, Workdir: v.workdir, Prepare: s.Prepare, Resources: v.resources,
		TimeLimit: s.TimeLimit, GPUs: v.node.GPUs, Container: s.Container, Idempotent: s.Idempotent, Refused: t.Refused, Outputs: v.outputs(), Env: v.environment()}
	o.Signal, o.SignalAhead = signal(s.Signal)
	o.Command = v.command()
	v.secrets(&o)
	if t.Attempt.Release {
		o.Release, o.Prepare, o.Outputs, o.Command = true, "", nil, s.Release
		return o
	}
	o.Stdout, o.Stderr = v.file(s.Stdout), v.file(s.Stderr)
	if !v.gang() {
		if v.hosted() {
			setFile(&o, "hostfile", v.hostfile(" slots="))
		}
		return o
	}
	if t.SSH != nil {
		ssh := *t.SSH
		ssh.Nodes = nil
		for _, n := range t.Nodes {
			ssh.Nodes = append(ssh.Nodes, api.NodeReach{Name: n.Machine, Address: n.Address, HostKey: n.HostKey})
		}
		o.SSH = &ssh
	}
	o.Idle = rank > 0 && v.launcher() != each
	for name, text := range v.files(o.Env, o.Command) {
		setFile(&o, name, text)
	}
	switch {
	case o.Idle:
		o.Command, o.Stdout, o.Stderr = "", "", ""
	case v.launcher() == mpi:
		o.Command = v.mpirun()
	case v.parts():
		o.Command = "exec " + v.at("ranks")
	}
	return o
}

// OutputDir is the directory of one of a job's outputs: below the one that was named, so that no two jobs
// share it, unless they are to. All tasks of an array do.
func OutputDir(j shoal.Job, name string) string {
	o := j.Spec.Outputs[name]
	at := expand(o.Path, j.Spec.Dialect, j.Spec.Env)
	if o.Reuse {
		return path.Clean(at)
	}
	return path.Join(at, string(j.ID))
}

// SharedScratch is the directory in which all tasks of a job, on whatever machine, may keep what does not outlive it.
func SharedScratch(home string, job shoal.JobID) string {
	return path.Join(home, ".shoal", "scratch", string(job))
}

// view is a Task from one of its nodes.
type view struct {
	Task
	spec      shoal.JobSpec
	task      shoal.TaskSpec // of a job of different commands
	fields    fields         // of the item
	rank      int
	node      Node
	resources shoal.Resources
	workdir   string
	slots     []int // processes on each node
}

func newView(t Task, rank int) *view {
	v := &view{Task: t, spec: t.Job.Spec, rank: rank, node: t.Nodes[rank], resources: t.Job.Spec.Resources}
	if t.Attempt.Memory > 0 {
		v.resources.Memory = t.Attempt.Memory
	}
	if !t.Attempt.Release {
		if t.Item != nil {
			v.fields = parseItem(t.Item)
		}
		if p := t.Position; p >= 0 && p < len(v.spec.Tasks) {
			v.task = v.spec.Tasks[p]
		}
	}
	v.workdir = v.text(v.spec.Workdir)
	v.slots = v.spread()
	return v
}

func (v *view) launcher() string {
	if v.spec.Launcher == "" || v.Attempt.Release {
		return each
	}
	return v.spec.Launcher
}

// gang reports whether the attempt needs files to find its nodes or processes.
func (v *view) gang() bool { return len(v.Nodes) > 1 || v.launcher() == mpi || v.parts() }

// hosted reports whether the attempt has a hostfile. One that is alone needs it only where its command looks for it.
func (v *view) hosted() bool {
	return v.gang() || !v.Attempt.Release && (strings.Contains(v.command(), "SHOAL_HOSTFILE") || v.spec.Dialect == batchAI)
}

// parts reports whether a node itself starts several processes.
func (v *view) parts() bool { return v.launcher() == each && v.spec.Processes > len(v.Nodes) }

// command is the user's own.
func (v *view) command() string {
	if v.task.Command != "" {
		return v.fields.fill(v.task.Command)
	}
	return v.fields.fill(v.spec.Command)
}

// text is a path or value of the job for this task.
func (v *view) text(s string) string {
	if s == "" {
		return ""
	}
	return expand(v.fields.fill(s), v.spec.Dialect, v.spec.Env)
}

// spread says how many processes each node has.
func (v *view) spread() []int {
	n := len(v.Nodes)
	slots := make([]int, n)
	for i := range slots {
		switch p := v.spec.Processes; {
		case v.launcher() == mpi && p > 0, v.parts():
			slots[i] = p / n
			if i < p%n {
				slots[i]++
			}
		case v.launcher() == mpi:
			slots[i] = v.processors(v.Nodes[i])
		default:
			slots[i] = 1
		}
	}
	return slots
}

// room is for how many processes a node has places. Where the command itself starts them these are as many as were asked for
// by Slurm's options, or one for each processor.
func (v *view) room(node int) int {
	switch {
	case v.spec.Dialect == slurm:
		if all, n := v.count("SLURM_NTASKS", 0), len(v.Nodes); all > 0 {
			return (all + n - 1 - node) / n
		}
	case v.launcher() == head || !v.gang():
		return v.processors(v.Nodes[node])
	}
	return v.slots[node]
}

// shared is the job's shared scratch directory.
func (v *view) shared() string { return SharedScratch(v.Pool.SharedOf(v.Job.User), v.Job.ID) }

// processors is how many whole processors the task has on a node, and one at least.
func (v *view) processors(n Node) int {
	have := v.spec.Resources.CPUs
	if have == 0 {
		have = n.Has.CPUs
	}
	return max(int(have/1000), 1)
}

// processes is how many there are on all nodes, and on those before this one.
func (v *view) processes() (all, before int) {
	for i, n := range v.slots {
		all += n
		if i < v.rank {
			before += n
		}
	}
	return all, before
}

// outputs are the directories to be made. To make one costs a process, so the shared scratch directory of a job is among
// them only where somebody is likely to look.
func (v *view) outputs() []string {
	var dirs []string
	for _, name := range slices.Sorted(maps.Keys(v.spec.Outputs)) {
		dirs = append(dirs, OutputDir(v.Job, name))
	}
	named := strings.Contains(v.command()+v.spec.Prepare, "SHOAL_JOB_SCRATCH")
	for _, value := range v.spec.Env {
		named = named || strings.Contains(value, "SHOAL_JOB_SCRATCH")
	}
	if len(v.Nodes) > 1 || v.spec.Dialect == batchAI || named {
		dirs = append(dirs, v.shared())
	}
	if v.spec.Dialect == batchAI {
		for _, f := range []string{v.spec.Stdout, v.spec.Stderr} {
			if dir := path.Dir(v.file(f)); f != "" && dir != "." && !slices.Contains(dirs, dir) {
				dirs = append(dirs, dir)
			}
		}
	}
	return dirs
}

// defaultAhead is how long before the end a signal is sent that says no time.
const defaultAhead = time.Minute

// signal splits "USR1@60s".
func signal(s string) (name string, ahead shoal.Duration) {
	if s == "" {
		return "", 0
	}
	name, at, _ := strings.Cut(s, "@")
	ahead, err := shoal.ParseDuration(at)
	if err != nil || ahead <= 0 {
		ahead = shoal.Duration(defaultAhead)
	}
	return strings.TrimPrefix(strings.ToUpper(name), "SIG"), ahead
}

// compact is JSON without blanks, or the text as it is where it is none.
func compact(raw json.RawMessage) string {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if enc.Encode(raw) != nil {
		return string(raw)
	}
	return strings.TrimSuffix(b.String(), "\n")
}
