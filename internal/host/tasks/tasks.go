// Package tasks runs attempts at tasks as their users, so that neither their output nor their end is lost
// when the agent is killed or replaced.
package tasks

import (
	"log/slog"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/host/cgroups"
)

// Person is the account a task runs as.
type Person struct {
	UID, GID int
	Groups   []int // all, the primary one included or not
	Home     string
	Shell    string
}

// Config is how a Runner is set up.
type Config struct {
	Dir    string        // on the machine's disk, root's alone
	Agent  string        // the agent's binary
	Groups *cgroups.Tree // nil: none
	Lookup func(shoal.UserName) (Person, bool)
	Log    *slog.Logger
}

// Runner runs the attempts of one machine.
type Runner struct{ changed chan struct{} }

// Open makes a Runner and adopts what runs from a former process.
func Open(cfg Config) (*Runner, error) { return &Runner{changed: make(chan struct{}, 1)}, nil }

// Close lets go; tasks run on.
func (r *Runner) Close() error { return nil }

// Want takes the whole set of a Snapshot: starts what is missing, ends what is not listed.
func (r *Runner) Want(orders []api.TaskOrder) {}

// Start starts an attempt that is not known yet.
func (r *Runner) Start(o api.TaskOrder) {}

// Stop ends an attempt.
func (r *Runner) Stop(o api.StopOrder) {}

// Forget drops what is kept of ended attempts.
func (r *Runner) Forget(refs []shoal.AttemptRef) {}

// Resend makes Collect return output from an offset on again.
func (r *Runner) Resend(list []api.Resend) {}

// Changed has a value when there is something to report.
func (r *Runner) Changed() <-chan struct{} { return r.changed }

// Collect returns what is to be reported. sent is called once that is acknowledged.
func (r *Runner) Collect(maxBytes int) (reports []api.TaskReport, output []api.Output, sent func()) {
	return nil, nil, func() {}
}

// Running counts live tasks by user.
func (r *Runner) Running() map[shoal.UserName]int { return nil }

// Main is `shoal-agent task …`.
func Main(args []string) int { return 2 }
