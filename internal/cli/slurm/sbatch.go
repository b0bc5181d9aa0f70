package slurm

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/client"
)

// sbatch submits a batch script.
func (c *command) sbatch(ctx context.Context, args []string) error {
	var o options
	rest, ignored, err := c.parse(&o, args)
	if err != nil {
		return err
	}
	c.leaveOut(o, ignored)
	if o.help {
		c.say("Usage: sbatch [OPTIONS...] SCRIPT [ARGS...], or sbatch [OPTIONS...] --wrap COMMAND")
		return nil
	}
	script, name, arguments, err := c.script(o, rest)
	if err != nil {
		return err
	}
	// Options of the command line win over those of the environment, and these over those of the script.
	o = options{ignorePBS: o.ignorePBS}
	if ignored, err = c.directives(&o, script); err != nil {
		return err
	}
	c.leaveOut(o, ignored)
	c.environmentOptions(&o)
	if _, _, err = c.parse(&o, args); err != nil {
		return err
	}
	if o.name == "" {
		o.name = name
	}
	spec, err := c.spec(o)
	if err != nil {
		return err
	}
	if spec.Command, err = asCommand(script, arguments, c.Quote); err != nil {
		return err
	}
	if o.output == "" {
		o.output = "slurm-%j.out"
		if o.array != "" {
			o.output = "slurm-%A_%a.out"
		}
	}
	if spec.Stdout, err = c.file(o.output, spec.Workdir); err != nil {
		return err
	}
	spec.Stderr = spec.Stdout
	if o.errors != "" {
		if spec.Stderr, err = c.file(o.errors, spec.Workdir); err != nil {
			return err
		}
	}
	job, err := c.submit(ctx, o, spec)
	if err != nil || o.testing {
		return err
	}
	switch {
	case o.parsable:
		c.say("%s", job.ID)
	case !o.quiet:
		c.say("Submitted batch job %s", job.ID)
	}
	if !o.wait {
		return nil
	}
	client, err := c.Connect()
	if err != nil {
		return err
	}
	w, err := client.WaitJob(ctx, job.ID)
	if err == nil && w.ExitCode != 0 {
		return exitCode(w.ExitCode)
	}
	return err
}

// script finds the script, its name and its arguments: --wrap, a file, or stdin.
func (c *command) script(o options, rest []string) (script, name string, args []string, err error) {
	switch {
	case o.wrap != "" && len(rest) > 0:
		return "", "", nil, shoal.Errorf(shoal.KindInvalid, "Script arguments not permitted with --wrap option")
	case o.wrap != "":
		return "#!/bin/sh\n# This script was created by sbatch --wrap.\n\n" + o.wrap + "\n", "wrap", nil, nil
	case len(rest) == 0:
		data, err := io.ReadAll(io.LimitReader(c.Stdin, maxScript+1))
		return string(data), "sbatch", nil, err
	}
	f, err := os.Open(rest[0])
	if err != nil {
		return "", "", nil, shoal.Errorf(shoal.KindInvalid, "Unable to open file %s", rest[0])
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxScript+1))
	return string(data), filepath.Base(rest[0]), rest[1:], err
}

// environmentOptions reads the options that Slurm takes from the environment.
func (c *command) environmentOptions(o *options) {
	prefix := map[string]string{"sbatch": "SBATCH_", "srun": "SLURM_"}[c.name]
	for name, field := range map[string]*string{"PARTITION": &o.partition, "ACCOUNT": &o.account, "QOS": &o.qos, "TIMELIMIT": &o.time,
		"JOB_NAME": &o.name, "EXPORT": &o.export, "MEM_PER_NODE": &o.mem, "GPUS": &o.gpus} {
		if v := c.Getenv(prefix + name); v != "" {
			*field = v
		}
	}
}

func (c *command) submit(ctx context.Context, o options, spec shoal.JobSpec) (shoal.Job, error) {
	if o.testing {
		c.note("the job is well-formed; whether it fits the pool is found out when it is submitted")
		return shoal.Job{}, nil
	}
	to, err := c.Connect()
	if err != nil {
		return shoal.Job{}, err
	}
	if o.exclusive {
		if err := wholeMachine(ctx, to, &spec); err != nil {
			return shoal.Job{}, err
		}
	}
	if b, err := memory(o.mem); err == nil && b == 0 && !o.exclusive {
		if err := c.allMemory(ctx, to, &spec); err != nil {
			return shoal.Job{}, err
		}
	}
	if err := c.singleton(ctx, to, &spec); err != nil {
		return shoal.Job{}, err
	}
	return to.Submit(ctx, spec, shoal.NewToken())
}

// wholeMachine asks for all of each machine.
func wholeMachine(ctx context.Context, to *client.Client, spec *shoal.JobSpec) error {
	if spec.Pool == "" { // the job goes to the pool that it is sent from
		me, err := to.Whoami(ctx)
		if err != nil {
			return err
		}
		spec.Pool = me.Pool
	}
	if spec.Pool == "" {
		return shoal.Errorf(shoal.KindInvalid, "--exclusive needs a partition").WithHint("name the pool with --partition")
	}
	p, err := to.Pool(ctx, spec.Pool)
	if err != nil {
		return err
	}
	gpus := spec.Resources.GPUs
	spec.Resources = p.Machine
	spec.Resources.GPUs = gpus
	return nil
}

// allMemory asks for all memory of each machine, which is what --mem=0 means.
func (c *command) allMemory(ctx context.Context, to *client.Client, spec *shoal.JobSpec) error {
	if spec.Pool == "" {
		c.note("--mem=0 is all memory of a machine where --partition names the pool; without one the job gets the pool's default")
		return nil
	}
	p, err := to.Pool(ctx, spec.Pool)
	if err == nil {
		spec.Resources.Memory = p.Machine.Memory
	}
	return err
}

// notName is what the name of a job cannot hold.
var notName = regexp.MustCompile(`[^A-Za-z0-9._-]+`)

// spec translates options into a job without a command.
func (c *command) spec(o options) (s shoal.JobSpec, err error) {
	s = shoal.JobSpec{Pool: shoal.PoolName(first(o.partition)), Launcher: "each", Share: "private", Priority: "normal", Dialect: "slurm", Requeue: "always"}
	s.Name = notName.ReplaceAllString(o.name, "_")
	s.Name = strings.TrimLeft(s.Name[:min(len(s.Name), 63)], "._-")
	if o.noRequeue && !o.requeue {
		s.Requeue = "never"
	}
	if s.Workdir, err = c.workdir(o.dir); err != nil {
		return s, err
	}
	if err := o.amounts(&s); err != nil {
		return s, err
	}
	if s.Nodes.Several() {
		s.Launcher = "head"
	}
	if o.time != "" {
		limit, err := timeLimit(o.time)
		if err != nil {
			return s, err
		}
		s.TimeLimit = shoal.Duration(limit)
	}
	if s.Signal, err = warning(o.signal); err != nil {
		return s, err
	}
	if err := o.indexes(&s); err != nil {
		return s, err
	}
	if s.After, err = dependencies(o.dependency); err != nil {
		return s, err
	}
	for key, value := range map[string]string{"comment": o.comment, "account": o.account, "qos": o.qos} {
		if value != "" {
			if s.Labels == nil {
				s.Labels = map[string]string{}
			}
			s.Labels[key] = value
		}
	}
	s.Env, err = c.exported(o.export)
	if err != nil {
		return s, err
	}
	s.Env["SLURM_SUBMIT_DIR"] = s.Workdir
	s.Env["SLURM_NTASKS"] = strconv.Itoa(max(o.tasks, o.perNode*s.Nodes.Min, s.Nodes.Min))
	s.Env["SLURM_NPROCS"] = s.Env["SLURM_NTASKS"]
	if o.cpus > 0 {
		s.Env["SLURM_CPUS_PER_TASK"] = strconv.Itoa(o.cpus)
	}
	if o.cpusPerGPU > 0 {
		s.Env["SLURM_CPUS_PER_GPU"] = strconv.Itoa(o.cpusPerGPU)
	}
	if o.perNode > 0 {
		s.Env["SLURM_NTASKS_PER_NODE"] = strconv.Itoa(o.perNode)
	}
	if o.memPerCPU != "" {
		b, err := memory(o.memPerCPU)
		if err != nil {
			return s, err
		}
		s.Env["SLURM_MEM_PER_CPU"] = strconv.FormatInt(int64(b>>20), 10)
	}
	for name, value := range map[string]string{"SLURM_JOB_ACCOUNT": o.account, "SLURM_JOB_QOS": o.qos} {
		if value != "" {
			s.Env[name] = value
		}
	}
	return s, nil
}

func first(list string) string {
	word, _, _ := strings.Cut(list, ",")
	return word
}

func (c *command) workdir(dir string) (string, error) {
	here, err := c.Getwd()
	if err != nil {
		return "", err
	}
	if filepath.IsAbs(dir) {
		return filepath.Clean(dir), nil
	}
	return filepath.Join(here, dir), nil
}

// amounts translates how much of everything is asked for.
func (o *options) amounts(s *shoal.JobSpec) (err error) {
	s.Nodes = shoal.Fixed(1)
	if o.nodes != "" {
		if s.Nodes, err = shoal.ParseNodes(o.nodes); err != nil {
			return err
		}
	}
	if o.tasks < 0 || o.perNode < 0 || o.cpus < 0 || o.cpusPerGPU < 0 || max(o.tasks, o.perNode, o.cpus, o.cpusPerGPU) > 1<<20 {
		return shoal.Errorf(shoal.KindInvalid, "Invalid number of tasks or processors")
	}
	nodes, perTask := s.Nodes.Min, max(o.cpus, 1)
	tasks := max(o.tasks, o.perNode*nodes, nodes)
	tasksPerNode := (tasks + nodes - 1) / nodes
	cpus := tasksPerNode * perTask
	if o.tasks > 0 || o.perNode > 0 || o.cpus > 0 {
		s.Resources.CPUs = shoal.MilliCPU(1000 * cpus)
	}
	gpus, err := o.gpusOf(tasksPerNode, nodes)
	if err != nil {
		return err
	}
	if o.cpusPerGPU > 0 && gpus > 0 {
		cpus = max(cpus, o.cpusPerGPU*gpus)
		s.Resources.CPUs = shoal.MilliCPU(1000 * cpus)
	}
	s.Resources.GPUs = gpus
	for _, m := range []struct {
		text  string
		times int
	}{{o.mem, 1}, {o.memPerCPU, cpus}, {o.memPerGPU, gpus}} {
		if m.text == "" {
			continue
		}
		b, err := memory(m.text)
		if err != nil {
			return err
		}
		s.Resources.Memory = max(s.Resources.Memory, b*shoal.Bytes(m.times))
	}
	return nil
}

// gpusOf is how many GPUs are asked for on each machine.
func (o *options) gpusOf(tasksPerNode, nodes int) (gpus int, err error) {
	for _, g := range []struct {
		text  string
		times int
		over  int
	}{{o.gpus, 1, nodes}, {o.gpusPerNode, 1, 1}, {o.gpusPerTask, tasksPerNode, 1}} {
		if g.text != "" {
			n, err := gpuCount(g.text)
			if err != nil {
				return 0, err
			}
			gpus = max(gpus, (n*g.times+g.over-1)/g.over)
		}
	}
	for _, word := range words(o.gres) {
		kind, amount, _ := strings.Cut(word, ":")
		if kind != "gpu" {
			return 0, shoal.Errorf(shoal.KindInvalid, "Invalid generic resource (gres) specification %q", word).WithHint("machines have GPUs: --gres=gpu:1")
		}
		n := 1
		if amount != "" {
			if n, err = gpuCount(amount); err != nil {
				return 0, err
			}
		}
		gpus = max(gpus, n)
	}
	return gpus, nil
}

// indexes translates --array, with the number of tasks that may run at a time.
func (o *options) indexes(s *shoal.JobSpec) error {
	if o.array == "" {
		return nil
	}
	list, most, limited := strings.Cut(o.array, "%")
	if limited {
		n, err := strconv.Atoi(most)
		if err != nil || n < 1 {
			return shoal.Errorf(shoal.KindInvalid, "Invalid job array specification %q", o.array)
		}
		s.MaxRunning = n
	}
	list, err := rising(list)
	if err != nil {
		return shoal.Errorf(shoal.KindInvalid, "Invalid job array specification %q: %w", o.array, err)
	}
	s.Array = list
	return nil
}

// warning translates --signal=[{R|B}:]SIGNAL[@SECONDS].
func warning(s string) (string, error) {
	if s == "" {
		return "", nil
	}
	word := strings.TrimPrefix(strings.TrimPrefix(s, "B:"), "R:")
	name, seconds, timed := strings.Cut(word, "@")
	if !timed {
		seconds = "60"
	}
	ahead, err := strconv.ParseUint(seconds, 10, 16)
	if n, bad := strconv.Atoi(name); bad == nil {
		name = unix.SignalName(unix.Signal(n))
	}
	name = strings.TrimPrefix(strings.ToUpper(name), "SIG")
	if err != nil || unix.SignalNum("SIG"+name) == 0 {
		return "", shoal.Errorf(shoal.KindInvalid, "Invalid --signal specification %q", s).WithHint("write USR1@60, the signal and the seconds before the end")
	}
	return fmt.Sprintf("%s@%s", name, shoal.Duration(time.Duration(ahead)*time.Second)), nil
}

// dependencies translates --dependency.
func dependencies(s string) ([]shoal.Dependency, error) {
	if s == "" {
		return nil, nil
	}
	if strings.Contains(s, "?") {
		return nil, shoal.Errorf(shoal.KindInvalid, "cannot wait for one of several jobs: %q", s).WithHint("separate by commas: all are waited for")
	}
	var all []shoal.Dependency
	for _, word := range words(s) {
		kind, ids, _ := strings.Cut(word, ":")
		d := shoal.Dependency{}
		switch kind {
		case "afterok":
		case "afterany":
			d.Condition = shoal.AfterAny
		case "afternotok":
			d.Condition = shoal.AfterFailed
		case "aftercorr":
			d.Task = shoal.Corresponding
		case "singleton":
			all = append(all, shoal.Dependency{Task: kind})
			continue
		case "after":
			return nil, shoal.Errorf(shoal.KindInvalid, "Job dependency problem: nothing waits for another job's begin here").WithHint("wait for its end: afterok, afterany, afternotok or aftercorr")
		default:
			return nil, shoal.Errorf(shoal.KindInvalid, "Job dependency problem: %q is no kind of dependency here", kind).WithHint("there are afterok, afterany, afternotok, aftercorr and singleton")
		}
		for _, id := range strings.Split(ids, ":") {
			if _, err := strconv.ParseUint(id, 10, 63); err != nil {
				return nil, shoal.Errorf(shoal.KindInvalid, "Job dependency problem: %q is no job", id).WithHint("give the job's number; of an array all tasks are waited for")
			}
			d.Job = id
			all = append(all, d)
		}
	}
	return all, nil
}

// singleton replaces the dependency on all earlier jobs of the same name and user.
func (c *command) singleton(ctx context.Context, to *client.Client, spec *shoal.JobSpec) error {
	i := slices.IndexFunc(spec.After, func(d shoal.Dependency) bool { return d.Task == "singleton" })
	if i < 0 {
		return nil
	}
	spec.After = slices.DeleteFunc(spec.After, func(d shoal.Dependency) bool { return d.Task == "singleton" })
	me, err := c.user(ctx, to)
	if err != nil {
		return err
	}
	for _, state := range active() {
		jobs, err := to.Jobs(ctx, client.JobQuery{User: me, Name: spec.Name, State: state})
		if err != nil {
			return err
		}
		for _, j := range jobs {
			spec.After = append(spec.After, shoal.Dependency{Job: string(j.ID), Condition: shoal.AfterAny})
		}
	}
	return nil
}

// exported are the variables that travel with a job: by default all, without those that say who and where the
// submitter is.
func (c *command) exported(export string) (map[string]string, error) {
	env := map[string]string{}
	all, chosen := true, words(export)
	if len(chosen) > 0 {
		all = slices.Contains(chosen, "ALL")
	}
	own := regexp.MustCompile(`^(SHOAL_.*|SLURM_.*|SBATCH_.*|SSH_.*|XDG_.*|DBUS_.*|HOME|USER|LOGNAME|SHELL|MAIL|PWD|OLDPWD|SHLVL|_|TERM|TMPDIR|HOSTNAME|DISPLAY)$`)
	name := regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
	have := map[string]string{}
	for _, line := range c.Environ() {
		key, value, _ := strings.Cut(line, "=")
		have[key] = value
	}
	secret := func(key string) bool { // it is not to be read in the description of a job
		return strings.HasPrefix(have[strings.TrimSuffix(key, "_FILE")+"_FILE"], api.SessionSecretsDir+"/")
	}
	for key, value := range have {
		if secret(key) {
			continue
		}
		if all && name.MatchString(key) && !own.MatchString(key) {
			env[key] = value
		}
	}
	for _, word := range chosen {
		key, value, given := strings.Cut(word, "=")
		switch {
		case word == "ALL" || word == "NONE" || word == "NIL":
			continue
		case !name.MatchString(key):
			return nil, shoal.Errorf(shoal.KindInvalid, "Invalid --export specification: %q cannot be a variable", key)
		case !given:
			if value, given = have[key]; !given {
				continue
			}
			if secret(key) {
				return nil, shoal.Errorf(shoal.KindInvalid, "Invalid --export specification: %s is a secret", key).WithHint("submit the script with shoal run --secret")
			}
		}
		env[key] = value
	}
	return env, nil
}

// file resolves the patterns of an output file as far as they are known now; %j, %a, %n and %x are left.
func (c *command) file(pattern, dir string) (string, error) {
	var b strings.Builder
	for i := 0; i < len(pattern); i++ {
		if pattern[i] != '%' || i+1 == len(pattern) {
			b.WriteByte(pattern[i])
			continue
		}
		for i++; i+1 < len(pattern) && pattern[i] >= '0' && pattern[i] <= '9'; i++ { // widths are not kept
		}
		switch pattern[i] {
		case 'A', 'j', 'J':
			b.WriteString("%j")
		case 'a', 'x':
			b.WriteString("%" + pattern[i:i+1])
		case 'n', 'N', 't':
			b.WriteString("%n")
		case 'u':
			b.WriteString(c.Getenv("USER"))
		case 's':
			b.WriteString("batch")
		case '%':
			b.WriteString("%%")
		default:
			return "", shoal.Errorf(shoal.KindInvalid, "%%%c in %q has no meaning here", pattern[i], pattern).WithHint("there are %%j, %%A, %%a, %%x, %%u, %%n and %%N")
		}
	}
	path := b.String()
	if !filepath.IsAbs(path) {
		path = filepath.Join(dir, path)
	}
	return path, nil
}
