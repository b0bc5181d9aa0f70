package app

import (
	"context"
	"fmt"
	"slices"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/access"
	"github.com/shoal-pool/shoal/internal/batch"
	"github.com/shoal-pool/shoal/internal/billing"
	"github.com/shoal-pool/shoal/internal/broker"
	"github.com/shoal-pool/shoal/internal/route"
	"github.com/shoal-pool/shoal/internal/store"
)

// runBatch runs the batch, once it is known whose jobs are held.
func (a *App) runBatch(ctx context.Context) error {
	if _, err := a.budgets.Standings(ctx); err != nil && ctx.Err() == nil {
		a.log.Warn("budgets cannot be looked at; nobody's jobs are held because of one until they can", "err", err)
	}
	return a.batch.Run(ctx)
}

// frugalLogins has nobody come to machines whose budget is spent, unless she is there already.
type frugalLogins struct {
	*broker.Broker
	budgets *billing.Keeper
	store   *store.DB
}

// refuse returns why a login is refused, or nil.
func (f frugalLogins) refuse(ctx context.Context, user shoal.UserName) error {
	err := f.budgets.Refuse(ctx, user)
	if err == nil {
		return nil
	}
	there := false
	viewErr := f.store.View(ctx, func(tx *store.Tx) error {
		all, _, err := tx.SessionsPage(store.SessionFilter{User: user}, "", 1)
		there = len(all) > 0
		return err
	})
	if there || viewErr != nil {
		return nil //nolint:nilerr // what cannot be known is no reason to keep somebody from her work
	}
	return err
}

// Login is the broker's, for whoever is not refused.
func (f frugalLogins) Login(ctx context.Context, req route.Request, part string, progress func(string)) (route.Target, error) {
	if err := f.refuse(ctx, req.User); err != nil {
		return route.Target{}, &route.Refusal{Reason: budgetReason(err)}
	}
	return f.Broker.Login(ctx, req, part, progress)
}

// WhyLogin says what Login would.
func (f frugalLogins) WhyLogin(ctx context.Context, user shoal.UserName, pool shoal.PoolName) (api.Why, error) {
	why, err := f.Broker.WhyLogin(ctx, user, pool)
	if err == nil {
		if no := f.refuse(ctx, user); no != nil {
			r := budgetReason(no)
			r.Sentence = fmt.Sprintf("a login of %s would be refused: %s", user, r.Sentence)
			rest := slices.DeleteFunc(why.Reasons, func(x shoal.Reason) bool { return x.Sentence == why.Sentence }) // where it would have led
			why.Sentence, why.Reasons = r.Sentence, append([]shoal.Reason{r}, rest...)
		}
	}
	return why, err
}

func budgetReason(err error) shoal.Reason {
	return shoal.Reason{Code: "budget", Sentence: err.Error() + "; " + shoal.HintOf(err)}
}

// frugalBatch takes no jobs of users whose budget is spent.
type frugalBatch struct {
	*batch.Batch
	budgets *billing.Keeper
}

// Submit is the batch's, for whoever is not refused.
func (f frugalBatch) Submit(ctx context.Context, by access.Subject, spec shoal.JobSpec, key string) (shoal.Job, error) {
	if err := f.budgets.Refuse(ctx, by.User); err != nil {
		return shoal.Job{}, err
	}
	return f.Batch.Submit(ctx, by, spec, key)
}

// SubmitBatch is like Submit.
func (f frugalBatch) SubmitBatch(ctx context.Context, by access.Subject, req api.BatchRequest, key string) (api.BatchResult, error) {
	if err := f.budgets.Refuse(ctx, by.User); err != nil {
		return api.BatchResult{}, err
	}
	return f.Batch.SubmitBatch(ctx, by, req, key)
}

// Retry is like Submit.
func (f frugalBatch) Retry(ctx context.Context, by access.Subject, id shoal.JobID, r api.RetryRequest) (shoal.Job, error) {
	if err := f.budgets.Refuse(ctx, by.User); err != nil {
		return shoal.Job{}, err
	}
	return f.Batch.Retry(ctx, by, id, r)
}
