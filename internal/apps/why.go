package apps

import (
	"context"
	"fmt"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/store"
)

// Why says why an app is as it is.
func (a *Apps) Why(ctx context.Context, id shoal.AppID) (api.Why, error) {
	const latest = 10
	why := api.Why{Subject: "app " + string(id)}
	err := a.cfg.Store.View(ctx, func(tx *store.Tx) error {
		p, err := tx.Apps().Get(id)
		if err != nil {
			return err
		}
		if p.Unknown, err = unknown(tx, p); err != nil {
			return err
		}
		pool, err := tx.Pools().Get(p.Pool)
		if err != nil && shoal.KindOf(err) != shoal.KindNotFound {
			return err
		}
		why.Since = p.Since
		why.Sentence, why.Reasons = explain(p, pool, time.Now())
		why.Events, err = tx.EventsAbout(shoal.ObjectApp, string(id), latest)
		return err
	})
	return why, err
}

// explain says it in words.
func explain(p shoal.App, pool shoal.Pool, now time.Time) (sentence string, reasons []shoal.Reason) {
	add := func(code, format string, args ...any) {
		reasons = append(reasons, shoal.Reason{Code: code, Sentence: fmt.Sprintf(format, args...)})
	}
	who := fmt.Sprintf("%s of %s", p.Endpoint, p.User)
	switch {
	case !p.Live():
		sentence = fmt.Sprintf("%s has %s: %s", who, p.State, p.Reason)
		if p.Log != "" {
			add("log", "the last it said is in `shoal app show %s`", p.ID)
		}
		return sentence, reasons
	case p.Stopping:
		sentence = fmt.Sprintf("%s is to end: %s", who, p.Reason)
	case p.State == shoal.AppWaiting:
		sentence = fmt.Sprintf("%s waits for a machine: %s", who, p.Progress)
	case p.State == shoal.AppStarting:
		sentence = fmt.Sprintf("%s is starting on machine %s: %s", who, p.Machine, p.Progress)
	default:
		sentence = fmt.Sprintf("%s runs on machine %s", who, p.Machine)
	}
	if p.Unknown {
		add("unknown", "machine %s does not answer; nothing is known of it now", p.Machine)
	}
	if p.Ill != "" {
		add("ill", "its probes fail: %s", p.Ill)
	}
	if p.State != shoal.AppRunning || p.Stopping {
		return sentence, reasons
	}
	if p.Kernels+p.Terminals > 0 {
		add("kernels", "kernels (%d) and terminals (%d) keep it", p.Kernels, p.Terminals)
	}
	last := p.Started
	if p.LastActivity.After(last) {
		last = p.LastActivity
	}
	if !p.Ends.IsZero() {
		add("ends", "it ends at %s, with what keeps it, unless it is used before", p.Ends.UTC().Format("2006-01-02 15:04 MST"))
	}
	if d := pool.Scale.Idle.After; d > 0 {
		add("idle", "it ends when nobody has used it for %s; that was %s ago", d, shoal.Duration(now.Sub(last).Truncate(time.Second)))
	}
	return sentence, reasons
}
