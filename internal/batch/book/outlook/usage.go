package outlook

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/batch/gang"
	"github.com/shoal-pool/shoal/internal/batch/outcome"
	"github.com/shoal-pool/shoal/internal/sched"
	"github.com/shoal-pool/shoal/internal/store"
)

// usageSetting holds what users have used, for fair share.
const usageSetting = "batch.usage"

// usedBy is what a user has used, as it is stored.
type usedBy struct {
	Pool  shoal.PoolName  `json:"pool"`
	Group shoal.GroupName `json:"group,omitempty"`
	User  shoal.UserName  `json:"user"`
	At    time.Time       `json:"at"`
	Usage float64         `json:"usage"`
}

// WriteUsage puts what users have used into a text to be stored. Empty: nobody has used anything yet.
func WriteUsage(usage []sched.UserUsage, now time.Time) (string, error) {
	var all []usedBy
	for _, u := range usage {
		if u.Settled > 1 {
			all = append(all, usedBy{u.Pool, u.Group, u.User, now.UTC().Round(0), u.Settled})
		}
	}
	if len(all) == 0 {
		return "", nil
	}
	text, err := json.Marshal(all)
	return string(text), err
}

// ReadUsage reads what WriteUsage wrote, or nothing.
func ReadUsage(text string) ([]sched.Change, error) {
	if text == "" {
		return nil, nil
	}
	var all []usedBy
	if err := json.Unmarshal([]byte(text), &all); err != nil {
		return nil, fmt.Errorf("cannot read what users have used: %w", err)
	}
	changes := make([]sched.Change, len(all))
	for i, u := range all {
		changes[i] = sched.PutUsage(u)
	}
	return changes, nil
}

// LoadUsage is what users have used, for a state that is made anew: from the one before if that knows of jobs, else from
// the store.
func LoadUsage(tx *store.Tx, before *sched.State, now time.Time) ([]sched.Change, error) {
	text, err := tx.Setting(usageSetting)
	if !before.Empty() {
		text, err = WriteUsage(before.Usage(now), now)
	}
	if err != nil {
		return nil, err
	}
	return ReadUsage(text)
}

// SaveUsage stores what users have used.
func SaveUsage(ctx context.Context, db *store.DB, usage []sched.UserUsage, now time.Time) error {
	text, err := WriteUsage(usage, now)
	if err != nil || text == "" {
		return err
	}
	return db.Update(ctx, func(tx *store.Tx) error { return tx.SetSetting(usageSetting, text) })
}

// Move moves the times of an attempt that runs by so much, because the clock was set. Where it was before that, put forward, is kept for the bill.
func Move(tx *store.Tx, a *shoal.Attempt, by time.Duration, now time.Time) error {
	was, left := a.Placed, a.Placed.Add(by)
	if set := now.Add(-by); left.After(set) {
		left = set
	}
	outcome.Move(by, now, &a.Placed, &a.Started)
	if by < 0 || !left.After(was) {
		return nil
	}
	for _, m := range gang.Nodes(*a) {
		i := store.Interval{Kind: shoal.ObjectTask, ID: a.AttemptRef.String() + "@" + string(m.Machine), Pool: a.Pool, Machine: m.Machine, User: a.User, Start: was, End: left}
		if err := tx.OpenInterval(i); err != nil {
			return err
		}
	}
	return nil
}

// MovedSetting is by how much the times of what runs were moved in all, because the clock was set.
const MovedSetting = "batch.moved"
