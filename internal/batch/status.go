package batch

import (
	"context"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/access"
	"github.com/shoal-pool/shoal/internal/batch/book"
	"github.com/shoal-pool/shoal/internal/batch/ledger"
	"github.com/shoal-pool/shoal/internal/store"
)

// Status answers for many jobs in short, also for those of long ago. One that the subject may not see is
// unknown.
func (b *Batch) Status(ctx context.Context, by access.Subject, req api.StatusRequest) (result api.StatusResult, err error) {
	err = b.cfg.Store.View(ctx, func(tx *store.Tx) error {
		result, err = ledger.Status(tx, by, req)
		return err
	})
	return result, err
}

// cancelStep is how many jobs are ended in one transaction: others wait no longer than for that.
const cancelStep = 250

// CancelBatch ends many jobs like Cancel.
func (b *Batch) CancelBatch(ctx context.Context, by access.Subject, req api.CancelRequest) (api.CancelResult, error) {
	var result api.CancelResult
	var ids []shoal.JobID
	err := b.cfg.Store.View(ctx, func(tx *store.Tx) (err error) {
		ids, result, err = ledger.Targets(tx, by, req)
		return err
	})
	for err == nil && len(ids) > 0 {
		n := min(len(ids), cancelStep)
		err = b.cancelSome(ctx, ids[:n], "cancelled by "+by.String(), &result)
		ids = ids[n:]
	}
	return result, err
}

// cancelSome ends jobs in one transaction, and tells which.
func (b *Batch) cancelSome(ctx context.Context, ids []shoal.JobID, reason string, result *api.CancelResult) error {
	var ended, over []shoal.JobID
	err := b.book.Do(ctx, func(g *book.Group) error {
		ended, over = nil, nil
		for _, id := range ids {
			r, err := g.Job(id)
			if shoal.KindOf(err) == shoal.KindNotFound { // it was ended and forgotten meanwhile
				over = append(over, id)
				continue
			}
			if err != nil {
				return err
			}
			if r.State.Ended() {
				over = append(over, id)
				continue
			}
			ended = append(ended, id)
			if r.Cancel {
				continue
			}
			if err := g.Cancel(r, reason); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	result.Cancelled, result.Over = append(result.Cancelled, ended...), append(result.Over, over...)
	return nil
}

// Jobs are forgotten so many in a transaction, and those with more tasks than the other not in one.
const (
	pruneStep   = 25
	pruneAtOnce = 100
)

// Prune forgets jobs that ended before a time, with their output, but for how each ended. It tells how many.
func (b *Batch) Prune(ctx context.Context, before time.Time) (int, error) {
	for total := 0; ; {
		began := time.Now()
		var past []store.PastJob
		err := b.cfg.Store.View(ctx, func(tx *store.Tx) (err error) {
			past, err = ledger.Past(tx, before, pruneStep)
			return err
		})
		if err != nil || len(past) == 0 {
			return total, err
		}
		for _, p := range past {
			if err := b.book.Output().Remove(p.ID); err != nil {
				return total, err
			}
			if p.Counts.Total() <= pruneAtOnce {
				continue
			}
			if _, err := b.cfg.Store.TrimAttempts(ctx, p.ID); err != nil {
				return total, err
			}
		}
		if err := b.cfg.Store.Update(ctx, func(tx *store.Tx) error { return tx.ForgetJobs(past) }); err != nil {
			return total, err
		}
		total += len(past)
		select { // others come first
		case <-ctx.Done():
			return total, ctx.Err()
		case <-time.After(time.Since(began)):
		}
	}
}
