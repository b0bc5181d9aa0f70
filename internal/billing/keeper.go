package billing

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/retry"
	"github.com/shoal-pool/shoal/internal/store"
	"github.com/shoal-pool/shoal/internal/usage"
)

const (
	lookEvery = time.Minute
	// retryEvery is when a store that does not answer is asked again.
	retryEvery = 5 * time.Second
	// rest is how much longer than a look there is none: a bill of much history takes a while.
	rest = 20
	// pause is how soon a change of a budget is seen.
	pause = time.Second
)

// Keeper keeps the budgets. Its methods may be called from any goroutine.
type Keeper struct {
	db      *store.DB
	log     *slog.Logger
	changed func()

	mu    sync.Mutex // guards what follows; never held while the store is read
	known bool
	all   []usage.Standing
	month time.Time
	held  map[shoal.UserName]string // who may begin nothing new, and why
}

// New makes a keeper. Until Run has looked for the first time whoever asks has it look. changed is called when there
// are others who may begin nothing new; it may be nil, and must not block.
func New(db *store.DB, log *slog.Logger, changed func()) *Keeper {
	return &Keeper{db: db, log: log, changed: changed}
}

// Standings are the budgets there are, as they stand.
func (k *Keeper) Standings(ctx context.Context) ([]usage.Standing, error) {
	month, _ := usage.Month(time.Now())
	k.mu.Lock()
	known, all := k.known && k.month.Equal(month), k.all
	k.mu.Unlock()
	if known {
		return all, nil
	}
	return k.look(ctx)
}

// look makes the bills of this month, if there is a budget.
func (k *Keeper) look(ctx context.Context) (all []usage.Standing, err error) {
	now := time.Now().UTC()
	since, end := usage.Month(now)
	held := map[shoal.UserName]string{}
	err = k.db.View(ctx, func(tx *store.Tx) error {
		var o usage.Objects
		if o.Users, err = tx.Users().List(); err != nil {
			return err
		}
		if o.Groups, err = tx.Groups().List(); err != nil {
			return err
		}
		if o.Pools, err = tx.Pools().List(); err != nil {
			return err
		}
		if all = o.Budgets(end); len(all) == 0 {
			return nil
		}
		bills, err := Bill(ctx, tx, since, now, usage.IdleApart, nil, usage.ByUser, usage.ByGroup, usage.ByPool)
		if err != nil {
			return err
		}
		usage.Stand(all, bills...)
		groups := usage.GroupsOf(o.Users, o.Groups)
		for _, u := range o.Users {
			if no := usage.Refuse(all, u.Name, groups[u.Name]); no != nil {
				held[u.Name] = no.Error()
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	k.mu.Lock()
	others := len(held) != len(k.held)
	for user := range held {
		others = others || k.held[user] == ""
	}
	k.known, k.all, k.month, k.held = true, all, since, held
	k.mu.Unlock()
	if others && k.changed != nil {
		k.changed()
	}
	return all, nil
}

// Held says why a user may begin nothing new, as of the last look; empty if she may. It does not look.
func (k *Keeper) Held(user shoal.UserName) string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.held[user]
}

// Refuse returns why a user may begin nothing new, or nil. Where budgets cannot be looked at, nobody is refused.
func (k *Keeper) Refuse(ctx context.Context, user shoal.UserName) error {
	all, err := k.Standings(ctx)
	if err != nil {
		k.log.Warn("budgets cannot be looked at; nobody is refused because of one", "err", err)
		return nil
	}
	stops := false
	for _, s := range all {
		stops = stops || s.Stop && s.Over()
	}
	if !stops || user == "" {
		return nil
	}
	u, err := store.Credentials{DB: k.db}.Member(ctx, user)
	if err != nil {
		return nil //nolint:nilerr // whoever cannot be found is refused by others, in their words
	}
	return usage.Refuse(all, user, u.Groups)
}

// Run looks at the budgets while there are any, until ctx ends.
func (k *Keeper) Run(ctx context.Context) error {
	var seen store.PeopleMark
	var due time.Time
	tries := retry.New(k.log, "budgets")
	for {
		changed, began := k.db.Changed(), time.Now()
		var mark store.PeopleMark
		err := k.db.View(ctx, func(tx *store.Tx) (err error) {
			mark, err = tx.PeopleMark()
			return err
		})
		if err == nil && (mark != seen || !due.IsZero() && !time.Now().Before(due)) {
			var all []usage.Standing
			if all, err = k.look(ctx); err == nil {
				err = k.tell(ctx, all)
			}
			due = time.Time{}
			if len(all) > 0 {
				due = time.Now().Add(max(lookEvery, rest*time.Since(began)))
			}
			if err == nil {
				seen = mark
			}
		}
		if !tries.Done(ctx, "look at the budgets", err) {
			due = time.Now().Add(max(retryEvery, rest*time.Since(began)))
		}
		if !wait(ctx, changed, due) {
			return nil
		}
	}
}

// wait waits for a change, and a moment more, or until a time that is not zero; false: ctx has ended.
func wait(ctx context.Context, changed <-chan struct{}, due time.Time) bool {
	var at <-chan time.Time
	if !due.IsZero() {
		t := time.NewTimer(time.Until(due))
		defer t.Stop()
		at = t.C
	}
	select {
	case <-ctx.Done():
		return false
	case <-at:
		return true
	case <-changed:
	}
	select {
	case <-ctx.Done():
		return false
	case <-time.After(pause):
		return true
	}
}

// tell tells once a month that most of a budget is spent, and that all is.
func (k *Keeper) tell(ctx context.Context, all []usage.Standing) error {
	for _, s := range all {
		if !s.Warned() {
			continue
		}
		word, code := "warned", "budgetWarning"
		if s.Over() {
			word, code = "spent", "budgetSpent"
		}
		key, of := "budget."+string(s.Kind)+"."+s.Name, fmt.Sprintf("%s %g ", s.Until.Format("2006-01"), s.Limit) // one that is raised is told of anew
		value := of + word
		err := k.db.Update(ctx, func(tx *store.Tx) error {
			was, err := tx.Setting(key)
			if err != nil || was == value || was == of+"spent" {
				return err
			}
			e := shoal.Event{Kind: s.Kind, Name: s.Name, Code: code, Sentence: s.Sentence()}
			if s.Kind == shoal.ObjectUser {
				e.User = shoal.UserName(s.Name)
			}
			if s.Over() && s.Stop {
				e.Sentence += "; nothing new begins until " + s.Until.Format("2 January")
			}
			tx.Event(e)
			return tx.SetSetting(key, value)
		})
		if err != nil {
			return err
		}
	}
	return nil
}
