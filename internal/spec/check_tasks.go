package spec

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/shoal-pool/shoal"
)

// The bounds of what a job consists of.
const (
	maxItems     = 1_000_000
	maxItemBytes = 32 << 20 // of all items: the job is one request to the server
	maxTasks     = 10_000
	maxNodesEach = 1000
	maxProcesses = 100_000
	maxAfter     = 1000
	maxLabels    = 64
	maxLimit     = shoal.Duration(365 * 24 * time.Hour)
)

var (
	labelKey   = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._/-]{0,61}[A-Za-z0-9])?$`)
	sharePlace = regexp.MustCompile(`^([a-z][a-z0-9-]{0,31}):(/.*)$`)
	signalForm = regexp.MustCompile(`^(SIG)?([A-Z0-9]+)(@(.+))?$`)
)

// signals are those that a task can be sent ahead of its time limit.
var signals = strings.Fields("HUP INT QUIT USR1 USR2 TERM CONT ALRM WINCH")

// work checks what the job runs: a command, once, for an array or for items, or tasks of different commands.
func (c *checks) work(j shoal.JobSpec) {
	if len(j.Tasks) > 0 {
		c.tasks(j)
		return
	}
	if strings.TrimSpace(j.Command) == "" {
		c.wrong("command", "", "the job has no command")
	}
	c.text("command", j.Command, maxCommand)
	array, err := shoal.ParseArray(j.Array)
	if err != nil {
		c.wrong("array", shoal.HintOf(err), "%s", err)
	}
	if len(j.Items) == 0 {
		return
	}
	total := 0
	for _, i := range j.Items {
		total += len(i) + 1
	}
	switch {
	case len(j.Items) > maxItems:
		c.wrong("items", "divide them among several jobs", "there are %d items, more than %d", len(j.Items), maxItems)
	case total > maxItemBytes:
		c.wrong("items", "put them into files, and let each task read its own", "the items have %s, more than %s", shoal.Bytes(total), shoal.Bytes(maxItemBytes))
	case j.Array != "" && err == nil && array.Len() != len(j.Items):
		c.wrong("array", "leave it out", "the array has %d indexes, and there are %d items", array.Len(), len(j.Items))
	}
}

// tasks checks a job of different commands.
func (c *checks) tasks(j shoal.JobSpec) {
	for _, f := range []struct {
		path string
		used bool
	}{{"command", j.Command != ""}, {"array", j.Array != ""}, {"items", len(j.Items) > 0}} {
		if f.used {
			c.wrong(f.path, "leave it out", "a job has either tasks or %s", f.path)
		}
	}
	if len(j.Tasks) > maxTasks {
		c.wrong("tasks", "", "there are more than %d tasks", maxTasks)
		return
	}
	place := map[string]int{}
	for i, t := range j.Tasks {
		at := fmt.Sprintf("tasks[%d]", i)
		if !jobName.MatchString(t.Name) {
			c.wrong(at+".name", "use letters, digits, ., _ and -, at most 63", "%q cannot be the name of a task", clip(t.Name))
		} else if first, twice := place[t.Name]; twice {
			c.wrong(at+".name", "", "task %q is there twice, first as tasks[%d]", t.Name, first)
		} else {
			place[t.Name] = i
		}
		if strings.TrimSpace(t.Command) == "" {
			c.wrong(at+".command", "", "the task has no command")
		}
		c.text(at+".command", t.Command, maxCommand)
		c.variables(at+".env", t.Env)
	}
	known := true
	for i, t := range j.Tasks {
		for k, name := range t.After {
			if _, ok := place[name]; !ok {
				c.wrong(fmt.Sprintf("tasks[%d].after[%d]", i, k), suggest(name, namesIn(j.Tasks)), "there is no task %q", clip(name))
				known = false
			}
		}
	}
	if known {
		c.acyclic(j.Tasks, place)
	}
}

// namesIn lists names to suggest from, not too many.
func namesIn(tasks []shoal.TaskSpec) []string {
	const shown = 20
	var names []string
	for _, t := range tasks[:min(len(tasks), shown)] {
		names = append(names, t.Name)
	}
	return names
}

// acyclic refuses tasks that wait for each other in a circle. Each round leaves out those that wait for
// nothing that is left.
func (c *checks) acyclic(tasks []shoal.TaskSpec, place map[string]int) {
	waits := make([]int, len(tasks))
	next := make([][]int, len(tasks))
	var free []int
	for i, t := range tasks {
		waits[i] = len(t.After)
		for _, name := range t.After {
			next[place[name]] = append(next[place[name]], i)
		}
		if waits[i] == 0 {
			free = append(free, i)
		}
	}
	done := 0
	for len(free) > 0 {
		i := free[len(free)-1]
		free = free[:len(free)-1]
		done++
		for _, n := range next[i] {
			if waits[n]--; waits[n] == 0 {
				free = append(free, n)
			}
		}
	}
	if done < len(tasks) {
		i := slices.IndexFunc(waits, func(n int) bool { return n > 0 })
		c.wrong(fmt.Sprintf("tasks[%d].after", i), "", "task %q waits, by way of others, for itself", tasks[i].Name)
	}
}

// several checks what concerns many machines or many tasks at a time.
func (c *checks) several(j shoal.JobSpec) {
	c.within("nodes", j.Nodes.Max, 0, maxNodesEach)
	c.oneOf("launcher", j.Launcher, "each", "head", "mpi")
	c.within("processes", j.Processes, 0, maxProcesses)
	if j.Processes > 0 && j.Launcher == "head" {
		c.wrong("processes", "write launcher: mpi", "the launcher head starts one process, on the first node")
	}
	if j.OnNodeLoss != "" {
		c.oneOf("onNodeLoss", j.OnNodeLoss, "restart", "continue")
	}
	c.within("maxRunning", j.MaxRunning, 0, shoal.MaxArray)
	c.within("maxFails", j.MaxFails, 0, shoal.MaxArray)
	if j.Container == nil {
		return
	}
	if j.Container.Image == "" {
		c.wrong("container.image", "", "the container has no image")
	} else if c.line("container.image", j.Container.Image, 1024) && (strings.Contains(j.Container.Image, " ") || j.Container.Image[0] == '-') {
		c.wrong("container.image", "", "%q cannot be an image", clip(j.Container.Image))
	}
	if len(j.Container.Options) > 100 {
		c.wrong("container.options", "", "there are more than 100 options")
	}
	for i, o := range j.Container.Options {
		c.line(fmt.Sprintf("container.options[%d]", i), o, 1024)
	}
}

// again checks limits and second tries.
func (c *checks) again(j shoal.JobSpec) {
	if j.TimeLimit > maxLimit {
		c.wrong("timeLimit", "", "%s is longer than %s", j.TimeLimit, maxLimit)
	}
	c.within("retries", j.Retries, 0, maxRetries)
	if r := j.Retry; r != nil {
		if j.Retries == 0 {
			c.wrong("retry", "add retries: 2, for example", "retry says which failures are tried again, and retries, which is 0, how often")
		}
		for i, cause := range r.On {
			c.oneOf(fmt.Sprintf("retry.on[%d]", i), string(cause), string(shoal.CauseExit), string(shoal.CauseSignal), string(shoal.CauseOOM),
				string(shoal.CauseTimeLimit), string(shoal.CauseSetupFailed))
		}
	}
	if j.Requeue != "" {
		c.oneOf("requeue", j.Requeue, "always", "never")
	}
	if j.Signal == "" {
		return
	}
	parts := signalForm.FindStringSubmatch(j.Signal)
	if parts == nil || !slices.Contains(signals, parts[2]) {
		c.wrong("signal", "write USR1@60s, for example; there are "+strings.Join(signals, ", "), "%q is no signal", clip(j.Signal))
		return
	}
	if parts[4] == "" {
		return
	}
	ahead, err := shoal.ParseDuration(parts[4])
	if err != nil {
		c.wrong("signal", shoal.HintOf(err), "%s", err)
	} else if j.TimeLimit > 0 && ahead >= j.TimeLimit {
		c.wrong("signal", "", "%s ahead of a time limit of %s is before the task begins", ahead, j.TimeLimit)
	}
}

func (c *checks) after(j shoal.JobSpec) {
	if len(j.After) > maxAfter {
		c.wrong("after", "", "there are more than %d jobs to wait for", maxAfter)
		return
	}
	for i, a := range j.After {
		at := fmt.Sprintf("after[%d]", i)
		if !jobName.MatchString(a.Job) {
			c.wrong(at, "give the number or the name of a job", "%q cannot be a job", clip(a.Job))
		}
		if a.Condition != "" {
			c.oneOf(at, string(a.Condition), string(shoal.AfterOK), string(shoal.AfterAny), string(shoal.AfterFailed))
		}
		if a.Task != "" {
			c.oneOf(at, a.Task, shoal.Corresponding)
		}
	}
}

// identity checks what jobs are found by, and whose variables they see.
func (c *checks) identity(j shoal.JobSpec) {
	c.labels(j.Labels)
	if c.line("externalId", j.ExternalID, 256) && strings.TrimSpace(j.ExternalID) != j.ExternalID {
		c.wrong("externalId", "", "it begins or ends with a space")
	}
	if j.Dialect != "" {
		c.oneOf("dialect", j.Dialect, "batchai", "slurm")
	}
}

// CheckLabels returns what is wrong with labels.
func CheckLabels(labels map[string]string) []shoal.Mistake {
	var c checks
	c.labels(labels)
	return c.mistakes
}

func (c *checks) labels(labels map[string]string) {
	if len(labels) > maxLabels {
		c.wrong("labels", "", "there are more than %d labels", maxLabels)
	}
	for key, value := range labels {
		at := join("labels", key)
		if !labelKey.MatchString(key) {
			c.wrong(at, "use letters, digits, ., _, - and /, at most 63", "%q cannot be a label", clip(key))
		}
		c.line(at, value, 256)
	}
}

func (c *checks) environment(j shoal.JobSpec) {
	c.variables("env", j.Env)
	for key, dir := range j.Inputs {
		c.directory(join("inputs", key), key, dir)
	}
	for key, dir := range j.Outputs {
		c.directory(join("outputs", key), key, dir.Path)
	}
	for key, secret := range j.Secrets {
		c.secret(key, secret)
		if _, twice := j.Env[key]; twice {
			c.wrong(join("secrets", key), "leave one of them out", "variable %s is in env as well", clip(key))
		}
	}
	c.output("stdout", j.Stdout)
	c.output("stderr", j.Stderr)
}

func (c *checks) variables(path string, env map[string]string) {
	if len(env) > maxEnv {
		c.wrong(path, "", "there are more than %d variables", maxEnv)
	}
	for key, value := range env {
		at := join(path, key)
		switch {
		case !variable.MatchString(key):
			c.wrong(at, "use letters, digits and _", "%q cannot be a variable", clip(key))
		case strings.HasPrefix(key, "SHOAL_"):
			c.wrong(at, "choose another name", "variables that begin with SHOAL_ are set by Shoal")
		}
		c.text(at, value, maxCommand)
	}
}

func (c *checks) directory(at, key, dir string) {
	if !variable.MatchString(key) {
		c.wrong(at, "use letters, digits and _", "%q cannot be part of a variable", clip(key))
	}
	c.place(at, dir)
}

// place checks a directory of a machine: an absolute path, or one of a share wherever that is mounted.
func (c *checks) place(at, dir string) bool {
	if m := sharePlace.FindStringSubmatch(dir); m != nil {
		return c.absolute(at, m[2])
	}
	return c.absolute(at, dir)
}

// output checks a file that gets a copy of what a task writes.
func (c *checks) output(at, file string) {
	if !c.line(at, file, 1024) {
		return
	}
	for i := 0; i < len(file); i++ {
		if file[i] != '%' {
			continue
		}
		if i++; i == len(file) || !strings.ContainsRune("jaxn%", rune(file[i])) {
			c.wrong(at, "there are %j, %a, %n, %x and %%", "%q holds a %% that stands for nothing", clip(file))
			return
		}
	}
}
