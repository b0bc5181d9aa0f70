package cli

import (
	"context"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/client"
	"github.com/shoal-pool/shoal/internal/cli/flags"
	"github.com/shoal-pool/shoal/internal/cli/follow"
	"github.com/shoal-pool/shoal/internal/cli/show"
	"github.com/shoal-pool/shoal/internal/cli/show/term"
	"github.com/shoal-pool/shoal/internal/spec"
)

// runOptions are the flags of run beside the job's own.
type runOptions struct {
	job    shoal.JobSpec
	env    []string
	wait   bool
	quiet  bool
	format *string
}

func (p *program) runCommand() *cobra.Command {
	var o runOptions
	cmd := &cobra.Command{
		Use:   "run [-p POOL] [flags] -- CMD [ARG…]",
		Short: "Run a command as a job on a pool",
		Long: `Submit a job that runs a command with exactly these arguments. For pipes, variables of the job and the like start a
shell: -- sh -c 'python train.py --fold $SHOAL_ARRAY_INDEX | tee log'

Inside a machine the pool is the machine's own, and the job runs in the directory you are in if that is on a share or in
your home. Elsewhere it runs in your home.

With --wait the output of a single task is shown as it comes, and the exit code is the job's (of an array: that of the lowest
failing index; 128+n by signal n; 125 if Shoal itself failed). Ctrl-C once says what a second one does: cancel the job.`,
		Example: "  shoal run -p train --gpus 1 -- python train.py\n  shoal run -p lab --array 1-100 --wait -- sh -c 'python fold.py $SHOAL_ARRAY_INDEX'",
		Args:    takesCommand,
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.run(cmd, args, o)
		},
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return nil, cobra.ShellCompDirectiveDefault
		},
	}
	f := cmd.Flags()
	f.SetInterspersed(false)
	j := &o.job
	f.StringVarP((*string)(&j.Pool), "pool", "p", "", "the `POOL` to run on")
	f.StringVar(&j.Name, "name", "", "a `NAME` to find the job by")
	j.Nodes = shoal.Fixed(1)
	f.Var(flags.Nodes{Value: &j.Nodes}, "nodes", "on `N` machines at once, or on any number of a range: 2-4")
	f.StringVar(&j.Array, "array", "", "a task for each index of `RANGE`: 1-100, 0-9:3, 1,4,7-9")
	f.Var(flags.CPUs{Value: &j.Resources.CPUs}, "cpus", "processors of each task (1)")
	f.Var(flags.Bytes{Value: &j.Resources.Memory}, "memory", "memory of each task (512MiB)")
	f.IntVar(&j.Resources.GPUs, "gpus", 0, "GPUs of each task")
	f.Var(flags.Duration{Value: &j.TimeLimit}, "time-limit", "end a task after this time")
	f.IntVar(&j.Retries, "retries", 0, "try a failed task `N` more times")
	f.StringVar(&j.Priority, "priority", "normal", "low, normal or high")
	f.StringArrayVarP(&o.env, "env", "e", nil, "set a variable, `K=V`; K alone takes yours; may be repeated")
	f.StringVar(&j.Workdir, "workdir", "", "the `DIR` to run in")
	f.Var(flags.After{Value: &j.After}, "after", "start after `JOB` (number or name) succeeded; JOB:any, JOB:failed: after another end; JOB/*: each task after that of its index; may be repeated")
	f.BoolVar(&o.wait, "wait", false, "wait for the end, show the output, and exit as the job does")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "print the job's number only; with --wait nothing but its output")
	p.completeFlag(cmd, "pool", poolNames)
	p.completeFlag(cmd, "after", jobIDs)
	complete(cmd, "priority", "low", "normal", "high")
	o.format = formatFlag(cmd)
	return cmd
}

func takesCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return usage(cmd, "%s needs a command, as in: shoal run -p lab -- python train.py", cmd.CommandPath())
	}
	return nil
}

func (p *program) run(cmd *cobra.Command, args []string, o runOptions) error {
	job := o.job
	var err error
	if job.Env, err = p.environment(o.env); err != nil {
		return usage(cmd, "%w", err)
	}
	job.Command = quote(args)
	if len(args) == 1 && strings.ContainsAny(args[0], " |;&<>$") && !o.quiet {
		p.note("%s is taken as the name of one program; for a shell write: -- sh -c %s", quote(args), quote(args))
	}
	spec.DefaultJob(&job)
	c, err := p.connect()
	if err != nil {
		return err
	}
	if err := p.fromHere(cmd.Context(), c, &job); err != nil {
		return err
	}
	return p.submit(cmd.Context(), c, []shoal.JobSpec{job}, o)
}

// submit sends jobs, each with a key of its own, so that a repeated request makes no second job.
func (p *program) submit(ctx context.Context, c *client.Client, specs []shoal.JobSpec, o runOptions) error {
	var jobs []shoal.Job
	for _, s := range specs {
		job, err := c.Submit(ctx, s, shoal.NewToken())
		if err != nil {
			return err
		}
		jobs = append(jobs, job)
		switch {
		case o.wait || *o.format != show.Table:
		case o.quiet:
			p.say("%s", job.ID)
		default:
			p.say("job %s submitted to pool %s", job.ID, job.Spec.Pool)
		}
	}
	switch {
	case o.wait:
		if jobs[0].Counts.Total() > 1 && !o.quiet { // its tasks' output is not shown, so this is all that is said
			p.note("job %s submitted to pool %s: %s", jobs[0].ID, jobs[0].Spec.Pool, show.Many(jobs[0].Counts.Total(), "task"))
		}
		code, err := follow.Job(ctx, p.following(c, o.quiet, true), jobs[0])
		if err != nil {
			return err
		}
		return ended(code)
	case *o.format != show.Table && len(jobs) == 1:
		return show.Data(p.Stdout, *o.format, jobs[0])
	case *o.format != show.Table:
		return show.Data(p.Stdout, *o.format, jobs)
	}
	return nil
}

// following is the world that a job is followed in.
func (p *program) following(c *client.Client, quiet, attached bool) follow.Config {
	return follow.Config{Client: c, Stdout: p.Stdout, Stderr: p.Stderr, Notify: p.Notify, Progress: term.NewProgress(p.Stderr, quiet),
		Counts: show.Counts, Stream: attached, Attached: attached, Quiet: quiet}
}

// ended is how a program ends as a job did.
func ended(code int) error {
	if code == 0 {
		return nil
	}
	return exitCode(code)
}

// environment reads K=V, and K, which takes the value from here.
func (p *program) environment(list []string) (map[string]string, error) {
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
			if value = p.Getenv(key); value == "" {
				return nil, shoal.Errorf(shoal.KindInvalid, "cannot use --env %s: there is no variable %s here to take the value of; write %s=VALUE", key, key, key)
			}
		}
		env[key] = value
	}
	return env, nil
}

// fromHere fills in what follows from where the command is given: inside a machine, the machine's pool
// and the current directory.
func (p *program) fromHere(ctx context.Context, c *client.Client, job *shoal.JobSpec) error {
	if job.Pool != "" && !exists(p.MachineSocket) {
		return nil
	}
	me, err := c.Whoami(ctx)
	if err != nil {
		return err
	}
	if job.Pool == "" {
		job.Pool = me.Pool
	}
	if job.Pool == "" {
		if job.Pool, err = onlyPool(ctx, c); err != nil {
			return err
		}
	}
	if me.Machine == "" || job.Workdir != "" {
		return nil
	}
	dir, err := os.Getwd()
	if err != nil {
		return nil //nolint:nilerr // a directory that is gone is none to run in
	}
	here, err := c.Pool(ctx, me.Pool)
	if err != nil {
		return err
	}
	there := here
	if job.Pool != me.Pool {
		if there, err = c.Pool(ctx, job.Pool); err != nil {
			return err
		}
	}
	job.Workdir = workdir(dir, p.Getenv("HOME"), here, there)
	return nil
}

// workdir is the directory a job starts in: the current one if it lies on a share that the job's machine
// has at the same place, be it as a mount or for homes. Empty: the home.
func workdir(dir, home string, here, there shoal.Pool) string {
	under := func(base string) bool {
		return strings.HasPrefix(base, "/") && (dir == base || strings.HasPrefix(dir, strings.TrimSuffix(base, "/")+"/"))
	}
	for _, m := range there.Mounts {
		if under(m.Path) && slices.ContainsFunc(here.Mounts, func(o shoal.Mount) bool { return o.Share == m.Share && o.Path == m.Path }) {
			return dir
		}
	}
	if home != "/" && under(home) && here.Home.Share != "" && here.Home == there.Home {
		return dir
	}
	return ""
}

// onlyPool is the pool to run on where none was named: the only one for jobs, or the default.
func onlyPool(ctx context.Context, c *client.Client) (shoal.PoolName, error) {
	pools, err := c.Pools(ctx)
	if err != nil {
		return "", err
	}
	var batch []shoal.PoolName
	for _, o := range pools {
		switch {
		case !o.Has(shoal.UseBatch):
		case o.Default:
			return o.Name, nil
		default:
			batch = append(batch, o.Name)
		}
	}
	if len(batch) == 1 {
		return batch[0], nil
	}
	return "", shoal.Errorf(shoal.KindInvalid, "cannot tell which pool to run on").WithHint("%s", poolHint(batch))
}

func poolHint(batch []shoal.PoolName) string {
	if len(batch) == 0 {
		return "there is no pool for jobs; `shoal pool list` shows what there is"
	}
	return "choose one with -p: " + show.Words(batch)
}
