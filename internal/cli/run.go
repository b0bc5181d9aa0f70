package cli

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/client"
	"github.com/shoal-pool/shoal/internal/cli/follow"
	"github.com/shoal-pool/shoal/internal/cli/names"
	"github.com/shoal-pool/shoal/internal/cli/show"
	"github.com/shoal-pool/shoal/internal/cli/show/term"
	"github.com/shoal-pool/shoal/internal/cli/submit"
	"github.com/shoal-pool/shoal/internal/spec"
)

// runOptions are the flags of commands that submit jobs, beside the jobs' own.
type runOptions struct {
	wait   bool
	quiet  bool
	format *string
}

func (p *program) runCommand() *cobra.Command {
	var flags submit.Flags
	var o runOptions
	cmd := &cobra.Command{
		Use:   "run [-p POOL] [flags] -- CMD [ARG…]",
		Short: "Run a command as a job on a pool",
		Long: `Submit a job that runs a command with exactly these arguments. For pipes, variables of the job and the like start a
shell: -- sh -c 'python train.py --fold $SHOAL_ARRAY_INDEX | tee log'

Inside a machine the pool is the machine's own, and the job runs in the directory you are in if that is on a share or in
your home. Elsewhere it runs in your home. Its standard input is empty.

With --wait the output of a single task is shown as it comes, and the exit code is the job's (of an array: that of the lowest
failing index; 128+n by signal n; 125 if Shoal itself failed). Ctrl-C once says what a second one does: cancel the job.`,
		Example: "  shoal run -p train --gpus 1 -- python train.py\n  shoal run -p lab --array 1-100%8 --wait -- sh -c 'python fold.py $SHOAL_ARRAY_INDEX'\n" +
			"  shoal run -p lab --param LR=log:0.0001:0.1:4 --param DEPTH=2,3 -- python train.py --lr {LR} --depth {DEPTH}\n  shoal run -p lab --each lines:files.txt -- sh -c 'gzip \"$SHOAL_ITEM\"'",
		Args: takesCommand,
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.run(cmd, args, &flags, o)
		},
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return nil, cobra.ShellCompDirectiveDefault
		},
	}
	f := cmd.Flags()
	f.SetInterspersed(false)
	flags.Bind(cmd)
	f.StringVar(&flags.Job.Share, "share", "private", "who may see the job and its output: private, or group: members of your groups too")
	f.BoolVar(&o.wait, "wait", false, "wait for the end, show the output, and exit as the job does")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "print the job's number only; with --wait nothing but its output")
	p.completeFlag(cmd, "pool", names.Pools)
	p.completeFlag(cmd, "after", names.Jobs)
	for flag, words := range map[string][]string{"priority": {"low", "normal", "high"}, "launcher": {"each", "head", "mpi"}, "requeue": {"always", "never"},
		"on-node-loss": {"restart", "continue"}, "share": {"private", "group"}, "search": {"grid", "random"}} {
		complete(cmd, flag, words...)
	}
	for _, flag := range []string{"items", "items-json", "sweep"} {
		files(cmd, flag)
	}
	o.format = formatFlag(cmd)
	return cmd
}

func takesCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return usage(cmd, "%s needs a command, as in: shoal run -p lab -- python train.py", cmd.CommandPath())
	}
	return nil
}

func (p *program) run(cmd *cobra.Command, args []string, flags *submit.Flags, o runOptions) error {
	job, err := flags.Spec(p.Getenv)
	if err != nil {
		return usage(cmd, "%w", err)
	}
	if job.Items, err = flags.Items.Read(p.files(), submit.Glob(".")); err != nil {
		return invalid(err)
	}
	job.Command = submit.Quote(args)
	if len(args) == 1 && strings.ContainsAny(args[0], " |;&<>$") && !o.quiet {
		p.note("%s is taken as the name of one program; for a shell write: -- sh -c %s", submit.Quote(args), submit.Quote(args))
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

// invalid is an error about a file, as one of what was given.
func invalid(err error) error {
	if shoal.KindOf(err) != shoal.KindInternal {
		return err
	}
	return shoal.Errorf(shoal.KindInvalid, "cannot read what was given: %w", err)
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

// fromHere fills in what follows from where the command is given.
func (p *program) fromHere(ctx context.Context, c *client.Client, job *shoal.JobSpec) error {
	return submit.FromHere(ctx, c, exists(p.MachineSocket), p.Getenv("HOME"), job)
}
