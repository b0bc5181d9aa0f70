// Package follow stays with a job until it has ended: shows its output to the true
// end, says why it waits and how far it is, and takes Ctrl-C for a question the first
// time and for an answer the second.
package follow

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/client"
)

// The pace of following a job.
const (
	whyAfter  = time.Second      // a job that waits longer says why
	lookEvery = time.Second      // on a terminal, where progress is shown
	whyEvery  = 10 * time.Second // elsewhere
	tailGrace = 10 * time.Second // for output still on its way when the job has ended
)

// Config is the world that a job is followed in.
type Config struct {
	Client *client.Client
	Stdout io.Writer
	Stderr io.Writer
	// Notify has the process's signals sent to c until stop is called. Nil: there are none.
	Notify   func(c chan<- os.Signal, sig ...os.Signal) (stop func())
	Progress Progress
	Counts   func(shoal.Counts) string // says how far tasks are
	Stream   bool                      // show the output of a single task
	Attached bool                      // a second Ctrl-C cancels the job; else the first ends the wait
	Quiet    bool                      // say nothing but output
}

// Progress is a line that is rewritten in place where that is possible, and notes that stay.
type Progress interface {
	Live() bool
	Show(format string, args ...any)
	Note(format string, args ...any)
	Clear()
}

// followed is one job being waited for.
type followed struct {
	Config
	job    shoal.Job
	ended  chan struct{} // closed with result set
	result api.Wait
	err    error
}

// Job waits for a job's end and returns its exit code. An error is Shoal's own failure, or that the
// user left.
func Job(ctx context.Context, cfg Config, job shoal.Job) (int, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	f := &followed{Config: cfg, job: job, ended: make(chan struct{})}
	defer f.Progress.Clear()
	f.Progress.Show("job %s: %s on %s", job.ID, job.State, job.Spec.Pool)
	var streams sync.WaitGroup
	drained := make(chan struct{})
	single := f.Stream && job.Counts.Total() == 1
	if single {
		for _, s := range []struct {
			name string
			w    io.Writer
		}{{"stdout", f.Stdout}, {"stderr", f.Stderr}} {
			streams.Go(func() { f.copy(ctx, s.name, s.w) })
		}
	}
	go func() { streams.Wait(); close(drained) }()
	go func() {
		f.result, f.err = cfg.Client.WaitJob(ctx, job.ID)
		close(f.ended)
	}()
	watched := make(chan struct{})
	go func() { defer close(watched); f.watch(ctx, single) }()
	defer func() { cancel(); <-watched }()
	if err := f.attend(ctx); err != nil {
		return 0, err
	}
	if f.err != nil {
		return 0, f.err
	}
	select {
	case <-drained:
	case <-time.After(tailGrace):
		f.Progress.Note("shoal: the last output of job %s did not arrive; see `shoal job logs %s`", job.ID, job.ID)
	}
	f.Progress.Clear()
	f.conclude()
	return codeOf(f.result), nil
}

// attend waits for the end, and for Ctrl-C.
func (f *followed) attend(ctx context.Context) error {
	signals := make(chan os.Signal, 4)
	if f.Notify != nil {
		defer f.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)()
	}
	for asked := 0; ; {
		select {
		case <-f.ended:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		case s := <-signals:
			if s != os.Interrupt || !f.Attached {
				return f.leave()
			}
			asked++
			switch asked {
			case 1:
				f.Progress.Note("shoal: job %s goes on; Ctrl-C again cancels it (`shoal job wait %s` comes back to it)", f.job.ID, f.job.ID)
			case 2:
				f.Progress.Note("shoal: cancelling job %s", f.job.ID)
				if _, err := f.Client.CancelJob(ctx, f.job.ID); err != nil && shoal.KindOf(err) != shoal.KindConflict {
					return err
				}
			default:
				return f.leave()
			}
		}
	}
}

// leave ends the waiting, not the job.
func (f *followed) leave() error {
	return shoal.Errorf(shoal.KindCancelled, "interrupted; job %s is left to itself", f.job.ID).
		WithHint("`shoal job wait %s` comes back to it, `shoal job cancel %s` ends it", f.job.ID, f.job.ID)
}

// copy writes one stream of the task to its true end.
func (f *followed) copy(ctx context.Context, stream string, w io.Writer) {
	err := Output(ctx, f.Client, Only(f.job), client.OutputQuery{Stream: stream, Follow: true}, &clearing{w, f.Progress})
	if err != nil && ctx.Err() == nil {
		f.Progress.Note("shoal: %s of job %s is incomplete: %v", stream, f.job.ID, err)
	}
}

// clearing writes output where a line of progress may stand.
type clearing struct {
	w        io.Writer
	progress Progress
}

func (c *clearing) Write(b []byte) (int, error) {
	c.progress.Clear()
	return c.w.Write(b)
}

// watch says why the job waits, and on a terminal how far it is.
func (f *followed) watch(ctx context.Context, single bool) {
	if f.Quiet {
		return
	}
	timer := time.NewTimer(whyAfter)
	defer timer.Stop()
	for {
		select {
		case <-f.ended:
			return
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		job, err := f.Client.Job(ctx, f.job.ID)
		if err == nil {
			f.show(ctx, job)
			if single && job.State != shoal.JobQueued {
				f.Progress.Clear()
				return // its output speaks for it
			}
		}
		if f.Progress.Live() {
			timer.Reset(lookEvery)
		} else {
			timer.Reset(whyEvery)
		}
	}
}

// show says how far a job is: on a terminal in one line that is rewritten; elsewhere why it waits, once.
func (f *followed) show(ctx context.Context, job shoal.Job) {
	why := ""
	if job.State == shoal.JobQueued || job.Counts.Running+job.Counts.Starting == 0 && job.Counts.Queued > 0 {
		if w, err := f.Client.Why(ctx, "job", string(job.ID), ""); err == nil {
			why = strings.TrimPrefix(w.Sentence, "it waits: ") // which is said here in other words
		}
	}
	switch {
	case isClosed(f.ended):
	case f.Progress.Live():
		f.Progress.Show("%s", f.line(job, why, time.Now()))
	case why != "":
		f.Progress.Note("shoal: job %s waits: %s", job.ID, why)
	}
}

// line is how far a job is, and why it is no further.
func (f *followed) line(job shoal.Job, why string, now time.Time) string {
	text := fmt.Sprintf("job %s: %s", job.ID, job.State)
	switch {
	case job.Counts.Total() > 1:
		text = fmt.Sprintf("job %s: %s", job.ID, f.Counts(job.Counts))
	case !job.Started.IsZero() && job.State == shoal.JobRunning:
		text += " for " + shoal.Duration(roundly(max(0, now.Sub(job.Started)))).String()
	}
	if wait := job.Promised.Sub(now); !job.Promised.IsZero() && wait > 0 {
		text += ", starts within " + shoal.Duration(roundly(wait)).String()
	}
	if why != "" {
		text += ": " + why
	}
	return text
}

// conclude says how the job ended, if not well or if its output did not show it.
func (f *followed) conclude() {
	job := f.result.Job
	many := job.Counts.Total() > 1
	if job.State == shoal.JobSucceeded && !many || f.Quiet {
		return
	}
	text := fmt.Sprintf("job %s %s", job.ID, job.State)
	if job.Reason != "" {
		text += ": " + strings.TrimSuffix(job.Reason, ".")
	}
	if many {
		text += " (" + f.Counts(job.Counts)
		if took := job.Ended.Sub(job.Submitted); !job.Ended.IsZero() && took >= 0 {
			text += ", after " + shoal.Duration(roundly(took)).String()
		}
		text += ")"
	}
	f.Progress.Note("shoal: %s", text)
}

// roundly is a time as precisely as anybody wants to know it.
func roundly(d time.Duration) time.Duration {
	switch {
	case d < 10*time.Second:
		return d.Round(10 * time.Millisecond)
	case d < time.Hour:
		return d.Round(time.Second)
	}
	return d.Round(time.Minute)
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// codeOf is the exit code of a job that has ended. One that did not succeed is never 0.
func codeOf(w api.Wait) int {
	if w.ExitCode == 0 && w.Job.State != shoal.JobSucceeded {
		return 1
	}
	return w.ExitCode
}
