package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/client"
	"github.com/shoal-pool/shoal/internal/cli/flags"
	"github.com/shoal-pool/shoal/internal/cli/follow"
	"github.com/shoal-pool/shoal/internal/cli/show"
)

func (p *program) jobCommand() *cobra.Command {
	return parent("job", "Jobs: commands and arrays of them, run when there is room",
		p.jobSubmit(), p.jobList(), p.jobShow(), p.jobLogs(), p.jobWait(), p.jobCancel())
}

func (p *program) jobSubmit() *cobra.Command {
	var paths []string
	var dryRun bool
	var o runOptions
	cmd := &cobra.Command{
		Use:     "submit -f FILE",
		Short:   "Submit the jobs of a file",
		Long:    "Submit the jobs that a file describes; `shoal run` submits one from the command line. --dry-run -o yaml works without a server.",
		Example: "  shoal job submit -f sweep.yaml\n  shoal job submit -f sweep.yaml --wait",
		Args:    noArgs,
	}
	f := cmd.Flags()
	f.StringArrayVarP(&paths, "file", "f", nil, "a `FILE` of documents, or - for stdin; may be repeated")
	f.StringVarP((*string)(&o.job.Pool), "pool", "p", "", "run on `POOL` instead of the one written")
	f.BoolVar(&dryRun, "dry-run", false, "only check, and say what would be submitted")
	f.BoolVar(&o.wait, "wait", false, "wait for the end, show the output, and exit as the job does")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "print the jobs' numbers only; with --wait nothing but the output")
	p.completeFlag(cmd, "pool", poolNames)
	files(cmd, "file")
	o.format = formatFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if len(paths) == 0 {
			return usage(cmd, "say which file: -f FILE")
		}
		jobs, err := p.readJobs(paths, o.job.Pool)
		if err != nil {
			return err
		}
		if o.wait && len(jobs) > 1 {
			return usage(cmd, "cannot wait for %d jobs at once", len(jobs))
		}
		if dryRun {
			return p.showSpecs(jobs, *o.format)
		}
		c, err := p.connect()
		if err != nil {
			return err
		}
		for i := range jobs {
			if err := p.fromHere(cmd.Context(), c, &jobs[i]); err != nil {
				return err
			}
		}
		return p.submit(cmd.Context(), c, jobs, o)
	}
	return cmd
}

func (p *program) readJobs(paths []string, pool shoal.PoolName) ([]shoal.JobSpec, error) {
	set, err := p.readDocuments(paths)
	if err != nil {
		return nil, err
	}
	if n := set.Len() - len(set.Jobs); n > 0 || len(set.Jobs) == 0 {
		return nil, shoal.Errorf(shoal.KindInvalid, "cannot submit what is no job: the files hold %s and %s", show.Many(len(set.Jobs), "job"), show.Many(n, "other document")).
			WithHint("documents of other kinds are for `shoal apply -f FILE`")
	}
	for i := range set.Jobs {
		if pool != "" {
			set.Jobs[i].Pool = pool
		}
	}
	return set.Jobs, nil
}

func (p *program) showSpecs(jobs []shoal.JobSpec, format string) error {
	if format != show.Table {
		return show.Data(p.Stdout, format, jobs)
	}
	for _, j := range jobs {
		p.say("job %s would be submitted to %s", show.Or(j.Name, "without a name"), show.Or(string(j.Pool), "the pool you are on"))
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
	state := flags.Word{Of: []string{"queued", "starting", "running", "succeeded", "failed", "cancelled", "timedout"}}
	f.Var(&state, "state", "in `STATE` only")
	f.IntVar(&q.Limit, "limit", 100, "at most `N`; 0 is all")
	p.completeFlag(cmd, "pool", poolNames)
	p.completeFlag(cmd, "user", userNames)
	complete(cmd, "state", state.Of...)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := p.connect()
		if err != nil {
			return err
		}
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
			p.note("the newest %d are shown; --limit 0 lists all", q.Limit)
		}
		return show.Jobs(p.Stdout, *format, jobs)
	}
	return cmd
}

// shownTasks bounds how many tasks `job show` lists: a large array is better asked in JSON.
const shownTasks = 50

func (p *program) jobShow() *cobra.Command {
	cmd := &cobra.Command{Use: "show ID", Short: "Show a job and its tasks", Args: takes("ID"), ValidArgsFunction: p.completer(jobIDs)}
	format := formatFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ref, err := shoal.ParseTaskRef(args[0])
		if err != nil {
			return err
		}
		c, err := p.connect()
		if err != nil {
			return err
		}
		job, err := c.Job(cmd.Context(), ref.Job)
		if err != nil {
			return err
		}
		if err := show.Job(p.Stdout, *format, job); err != nil || *format != show.Table {
			return err
		}
		tasks, err := c.Tasks(cmd.Context(), ref.Job, max(ref.Index, 0), shownTasks)
		if err != nil || len(tasks) == 0 {
			return err
		}
		fmt.Fprintln(p.Stdout)
		if err := show.Tasks(p.Stdout, tasks); err != nil {
			return err
		}
		if len(tasks) == shownTasks {
			p.note("%d tasks from index %d on are shown; `shoal job show %s/INDEX` shows those from another on", shownTasks, tasks[0].Index, job.ID)
		}
		return nil
	}
	return cmd
}

func (p *program) jobWait() *cobra.Command {
	var quiet bool
	cmd := &cobra.Command{
		Use: "wait ID", Short: "Wait for a job's end and exit as it did",
		Long: `Wait until a job has ended. The exit code is the job's: of an array that of the lowest failing index, 128+n by signal n,
and 125 if Shoal itself failed. Ctrl-C ends the wait, not the job.`,
		Args: takes("ID"), ValidArgsFunction: p.completer(jobIDs),
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
	return &cobra.Command{
		Use: "cancel ID…", Short: "Cancel jobs: what runs of them gets SIGTERM, and SIGKILL after a grace",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usage(cmd, "%s needs ID", cmd.CommandPath())
			}
			return nil
		},
		ValidArgsFunction: func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
			return p.offer(cmd, jobIDs), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, arg := range args {
				c, job, err := p.job(cmd.Context(), arg)
				if err != nil {
					return err
				}
				if job.State.Ended() {
					p.say("job %s has ended already: it is %s", job.ID, job.State)
					continue
				}
				if job, err = c.CancelJob(cmd.Context(), job.ID); err != nil {
					return err
				}
				if job.State.Ended() {
					p.say("job %s: %s", job.ID, job.State)
				} else {
					p.say("job %s is being cancelled", job.ID)
				}
			}
			return nil
		},
	}
}
