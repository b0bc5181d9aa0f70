package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/client"
	"github.com/shoal-pool/shoal/internal/cli/call"
	"github.com/shoal-pool/shoal/internal/cli/flags"
	"github.com/shoal-pool/shoal/internal/cli/follow"
	"github.com/shoal-pool/shoal/internal/cli/names"
	"github.com/shoal-pool/shoal/internal/cli/show"
	"github.com/shoal-pool/shoal/internal/cli/submit"
	"github.com/shoal-pool/shoal/internal/spec"
)

func (p *program) jobCommand() *cobra.Command {
	return parent("job", "Jobs: commands and arrays of them, run when there is room",
		p.jobSubmit(), p.jobList(), p.jobShow(), p.jobLogs(), p.jobFiles(), p.jobWait(), p.jobCancel(), p.jobRetry())
}

func (p *program) jobSubmit() *cobra.Command {
	var paths []string
	var dryRun bool
	var from submit.Options
	var items submit.Items
	var o runOptions
	cmd := &cobra.Command{
		Use:   "submit -f FILE",
		Short: "Submit the jobs of a file: documents, batch scripts, and job.json of Batch AI",
		Long: `Submit the jobs that a file describes; ` + "`shoal run`" + ` submits one from the command line. A file holds documents of the
kind Job, or is a batch script with options of ` + "`shoal run`" + ` in lines that begin with #SHOAL, or a job.json of Batch AI. A script
that has options for another system only, as in lines with #SBATCH, is refused; --lenient takes it without any.

Of a job.json, --share says which directories of shares its mounts are. It is read strictly; --lenient takes older and
misspelt files, and says what it let pass. --dry-run -o yaml shows what would be submitted, and works without a server.`,
		Example: "  shoal job submit -f sweep.yaml --wait\n  shoal job submit -f train.sh --set resources.cpus=4\n" +
			"  shoal job submit -f job.json --share logs=team:/logs --share '*=team:/' --dry-run -o yaml\n  shoal job submit -f job.json --lenient --sweep parameters.json",
		Args: noArgs,
	}
	f := cmd.Flags()
	f.StringArrayVarP(&paths, "file", "f", nil, "a `FILE`, or - for stdin; may be repeated")
	f.StringVarP((*string)(&from.Pool), "pool", "p", "", "run on `POOL` instead of the one written")
	f.StringArrayVar(&from.Sets, "set", nil, "change a field of the jobs, `KEY=VALUE`: resources.cpus=2, env.LR=0.1; no value takes it away; may be repeated")
	from.Foreign.Bind(cmd)
	items.Bind(cmd)
	f.BoolVar(&dryRun, "dry-run", false, "only check, and say what would be submitted")
	f.BoolVar(&o.wait, "wait", false, "wait for the end, show the output, and exit as the job does")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "print the jobs' numbers only; with --wait nothing but the output")
	p.completeFlag(cmd, "pool", names.Pools)
	complete(cmd, "search", "grid", "random")
	files(cmd, "file")
	files(cmd, "sweep")
	o.format = formatFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if len(paths) == 0 {
			return usage(cmd, "say which file: -f FILE")
		}
		set, err := p.readJobs(paths, from, &items)
		if err != nil {
			return err
		}
		if o.wait && len(set.Jobs) > 1 {
			return usage(cmd, "cannot wait for %d jobs at once", len(set.Jobs))
		}
		if dryRun {
			return p.showSpecs(set, *o.format)
		}
		c, err := p.connect()
		if err != nil {
			return err
		}
		for i := range set.Jobs {
			if err := p.fromHere(cmd.Context(), c, &set.Jobs[i]); err != nil {
				return err
			}
		}
		return p.submit(cmd.Context(), c, set.Jobs, o)
	}
	return cmd
}

func (p *program) readJobs(paths []string, from submit.Options, items *submit.Items) (set spec.Set, err error) {
	if from.Items, err = items.Read(p.files(), submit.Glob(".")); err != nil {
		return set, invalid(err)
	}
	set, err = submit.Jobs(submit.Config{Read: p.files(), Getenv: p.Getenv, Note: p.note}, paths, from)
	if err != nil {
		return set, invalid(err)
	}
	return set, nil
}

func (p *program) showSpecs(set spec.Set, format string) error {
	switch format {
	case show.YAML:
		return show.Data(p.Stdout, format, set)
	case show.JSON:
		return show.Data(p.Stdout, format, set.Jobs)
	}
	for _, s := range set.Shares {
		p.say("share %s would have to be there, with source %s", s.Name, s.Source)
	}
	for _, j := range set.Jobs {
		p.say("job %s would be submitted to %s%s", show.Or(j.Name, "without a name"), show.Or(string(j.Pool), "the pool you are on"),
			show.Only(len(j.Items) > 0, ", with "+show.Many(len(j.Items), "task")))
	}
	return nil
}

func (p *program) jobList() *cobra.Command {
	var q client.JobQuery
	cmd := &cobra.Command{Use: "list", Aliases: []string{"ls"}, Short: "List the jobs, the newest first", Args: noArgs}
	format := formatFlag(cmd)
	f := cmd.Flags()
	f.StringVarP((*string)(&q.Pool), "pool", "p", "", "on `POOL` only")
	f.StringVarP((*string)(&q.User), "user", "u", "", "of `USER` only")
	f.StringVar(&q.Name, "name", "", "with this `NAME` only")
	f.StringVarP(&q.Label, "label", "l", "", "with this label, `KEY=VALUE`, only")
	f.StringVar(&q.ExternalID, "external-id", "", "with this `ID` of your own only")
	state := flags.Word{Of: []string{"queued", "starting", "running", "succeeded", "failed", "cancelled", "timedout"}}
	f.Var(&state, "state", "in `STATE` only")
	f.IntVar(&q.Limit, "limit", 100, "at most `N`; 0 is all")
	p.completeFlag(cmd, "pool", names.Pools)
	p.completeFlag(cmd, "user", names.Users)
	complete(cmd, "state", state.Of...)
	cmd.RunE = p.calls(func(cmd *cobra.Command, c *client.Client, _ []string) error {
		q.State = shoal.JobState(state.Value)
		jobs, err := c.Jobs(cmd.Context(), q)
		if err != nil {
			return err
		}
		if len(jobs) == 0 {
			if err := poolExists(cmd.Context(), c, q.Pool); err != nil {
				return err
			}
		}
		if q.Limit > 0 && len(jobs) == q.Limit {
			p.note("shown: the newest %s; --limit 0 lists all", show.Many(q.Limit, "job"))
		}
		return show.Jobs(p.Stdout, *format, jobs)
	})
	return cmd
}

// The most tasks that `job show` lists unless it is told otherwise, for people and for programs.
const (
	shownTasks = 50
	givenTasks = 10_000
)

func (p *program) jobShow() *cobra.Command {
	var limit int
	cmd := &cobra.Command{
		Use: "show ID[/INDEX]", Short: "Show a job and its tasks, or those from an INDEX on, with all that was tried of the first", Args: takes("ID"), ValidArgsFunction: p.completer(names.Jobs),
		Example: "  shoal job show 17\n  shoal job show 18 --state failed\n  shoal job show 18 -o json | jq '.tasks[] | select(.exitCode != 0) | .index'",
	}
	format := formatFlag(cmd)
	state := flags.Word{Of: []string{"queued", "starting", "running", "succeeded", "failed", "cancelled", "timedout"}}
	cmd.Flags().Var(&state, "state", "only tasks in `STATE`")
	cmd.Flags().IntVar(&limit, "limit", shownTasks, "at most `N` tasks; 0 is all. In JSON and YAML it is 10000 without this")
	complete(cmd, "state", state.Of...)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ref, err := names.Task(cmd.Context(), p.connect, args[0])
		if err != nil {
			return err
		}
		if *format != show.Table && !cmd.Flags().Changed("limit") {
			limit = givenTasks
		}
		c, err := p.connect()
		if err != nil {
			return err
		}
		job, err := c.Job(cmd.Context(), ref.Job)
		if err != nil {
			return err
		}
		tasks, more, err := names.Tasks(cmd.Context(), c, ref, shoal.JobState(state.Value), limit)
		if err != nil {
			return err
		}
		if ref.Index >= 0 && len(tasks) == 0 && state.Value == "" {
			return shoal.Errorf(shoal.KindNotFound, "job %s has no task %d, and none behind it", job.ID, ref.Index).WithHint("`shoal job show %s` shows those it has", job.ID)
		}
		if more {
			p.note("shown: %s from index %d on; `shoal job show %s/INDEX` shows those from another on, --limit 0 all", show.Many(len(tasks), "task"), tasks[0].Index, job.ID)
		}
		one := ref.Index >= 0 || job.Counts.Total() == 1
		var attempts []shoal.Attempt
		if one && len(tasks) > 0 && tasks[0].Attempt > 1 {
			if attempts, err = c.Attempts(cmd.Context(), tasks[0].TaskRef); err != nil {
				return err
			}
		}
		return show.JobAndTasks(p.Stdout, *format, job, tasks, attempts, one)
	}
	return cmd
}

func (p *program) jobWait() *cobra.Command {
	var quiet bool
	cmd := &cobra.Command{
		Use: "wait ID", Short: "Wait for a job's end and exit as it did",
		Long: `Wait until a job has ended. The exit code is the job's: of an array that of the lowest failing index, 128+n by signal n,
and 125 if Shoal itself failed. Ctrl-C ends the wait, not the job.`,
		Args: takes("ID"), ValidArgsFunction: p.completer(names.Jobs),
	}
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "say nothing")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, job, err := p.job(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		code, err := follow.Job(cmd.Context(), p.following(c, quiet, false), job)
		if err != nil {
			return err
		}
		return ended(code)
	}
	return cmd
}

// job finds the job that an argument names.
func (p *program) job(ctx context.Context, arg string) (*client.Client, shoal.Job, error) {
	ref, err := shoal.ParseTaskRef(arg)
	if err != nil {
		return nil, shoal.Job{}, err
	}
	c, err := p.connect()
	if err != nil {
		return nil, shoal.Job{}, err
	}
	if ref.Index >= 0 {
		return nil, shoal.Job{}, shoal.Errorf(shoal.KindInvalid, "cannot do this to task %s alone", ref).WithHint("name the whole job: %s", ref.Job)
	}
	job, err := c.Job(ctx, ref.Job)
	return c, job, err
}

func (p *program) jobCancel() *cobra.Command {
	var label string
	cmd := &cobra.Command{
		Use: "cancel ID[/INDEXES]…", Short: "Cancel jobs, or some of their tasks: what runs gets SIGTERM, and SIGKILL after a grace",
		Example: "  shoal job cancel 17\n  shoal job cancel 18/3 18/10-20\n  shoal job cancel --label sweep=first",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 == (label == "") {
				return usage(cmd, "%s needs ID, or --label", cmd.CommandPath())
			}
			return nil
		},
		ValidArgsFunction: func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
			return p.offer(cmd, names.Jobs), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: p.calls(func(cmd *cobra.Command, c *client.Client, args []string) error {
			if label != "" {
				return p.cancelLabelled(cmd.Context(), c, label)
			}
			return call.Each(args, p.complain, func(arg string) error { return p.cancelOne(cmd.Context(), c, arg) })
		}),
	}
	cmd.Flags().StringVarP(&label, "label", "l", "", "all your jobs that carry the label `KEY=VALUE`")
	return cmd
}

func (p *program) cancelOne(ctx context.Context, c *client.Client, arg string) error {
	what, err := submit.ParseTasks(arg)
	if err != nil {
		return err
	}
	job, err := c.Job(ctx, what.Job)
	if err != nil {
		return err
	}
	over := job.State.Ended()
	if what.Tasks != "" {
		job, err = c.CancelTasks(ctx, job.ID, what.Tasks)
	} else if !over {
		job, err = c.CancelJob(ctx, job.ID)
	}
	switch {
	case err != nil:
		return err
	case over:
		p.say("job %s has ended already: %s", job.ID, job.State)
	case what.Tasks != "":
		p.say("tasks %s/%s are being cancelled", job.ID, what.Tasks)
	case job.State.Ended():
		p.say("job %s: %s", job.ID, job.State)
	default:
		p.say("job %s is being cancelled", job.ID)
	}
	return nil
}

func (p *program) cancelLabelled(ctx context.Context, c *client.Client, label string) error {
	r, err := c.CancelJobs(ctx, api.CancelRequest{Label: label})
	if err != nil {
		return err
	}
	p.say("%s being cancelled, %d had ended already", show.Many(len(r.Cancelled), "job"), len(r.Over))
	return nil
}

func (p *program) jobRetry() *cobra.Command {
	var tasks string
	var failed bool
	var o runOptions
	cmd := &cobra.Command{
		Use: "retry ID[/INDEXES]", Short: "Run tasks of an ended job again, those that did not succeed or those that are named",
		Long:    "Run tasks of a job that has ended again, as new attempts of the same job. Without indexes these are all that did not succeed.",
		Example: "  shoal job retry 17 --wait\n  shoal job retry 18/3\n  shoal job retry 18 --tasks 1-3,7",
		Args:    takes("ID"), ValidArgsFunction: p.completer(names.Jobs),
	}
	f := cmd.Flags()
	f.StringVar(&tasks, "tasks", "", "those with these `INDEXES`: 1-3,7")
	f.BoolVar(&failed, "failed", false, "those that did not succeed; the same as without indexes")
	f.BoolVar(&o.wait, "wait", false, "wait for the end, and exit as the job does")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "say nothing")
	o.format = formatFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		what, err := submit.ParseTasks(args[0])
		if err != nil {
			return err
		}
		if what.Tasks != "" && tasks != "" || failed && what.Tasks+tasks != "" {
			return usage(cmd, "say once which tasks")
		}
		if what.Tasks += tasks; what.Tasks != "" {
			if _, err := shoal.ParseArray(what.Tasks); err != nil {
				return err
			}
		}
		c, err := p.connect()
		if err != nil {
			return err
		}
		job, err := c.Retry(cmd.Context(), what.Job, what.Tasks)
		switch {
		case err != nil:
			return err
		case o.wait:
			code, err := follow.Job(cmd.Context(), p.following(c, o.quiet, false), job)
			if err != nil {
				return err
			}
			return ended(code)
		case *o.format != show.Table:
			return show.Data(p.Stdout, *o.format, job)
		case !o.quiet:
			p.say("job %s runs again: %s", job.ID, show.Counts(job.Counts))
		}
		return nil
	}
	return cmd
}
