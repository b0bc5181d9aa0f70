package batch

import (
	"context"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/batch/book"
	"github.com/shoal-pool/shoal/internal/batch/book/vault"
)

// Config is what a Batch needs.
type Config = book.Config

// Batch takes jobs, and answers for them. Its methods may be called from any goroutine; those that change
// something need a running Run.
type Batch struct {
	cfg     Config
	book    *book.Book
	trimmed time.Time // when old request keys were last removed; of Run alone
}

// What is kept of requests that were answered.
const (
	keepKeys  = 7 * 24 * time.Hour
	trimEvery = time.Hour
)

// New makes a Batch. Run makes it work.
func New(cfg Config) (*Batch, error) {
	if cfg.Held == nil {
		cfg.Held = func(shoal.UserName) string { return "" }
	}
	if cfg.Secrets == nil {
		cfg.Secrets = vault.Empty{}
	}
	kept, err := book.New(cfg)
	if err != nil {
		return nil, err
	}
	return &Batch{cfg: cfg, book: kept}, nil
}

// Run does the work until ctx ends. Store errors are waited out. It can be called once.
func (b *Batch) Run(ctx context.Context) error { return b.book.Run(ctx) }

// Reconsider has it ask anew of whose jobs nothing more starts. It does not wait for that.
func (b *Batch) Reconsider() { b.book.Reconsider() }

// Orders are the attempts that should be running on a machine; see book.Book.
func (b *Batch) Orders(ctx context.Context, machine shoal.MachineID) ([]api.TaskOrder, error) {
	return b.book.Orders(ctx, machine)
}

// Report takes what a machine's agent saw; see book.Book.
func (b *Batch) Report(ctx context.Context, machine shoal.MachineID, reports []api.TaskReport, pieces []api.Output) ([]api.Resend, error) {
	return b.book.Report(ctx, machine, reports, pieces)
}
