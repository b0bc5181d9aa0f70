package desk

import (
	"context"
	"encoding/json"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/retry"
	"github.com/shoal-pool/shoal/internal/store"
)

// setting is where sign-ins are kept.
const setting = "desk.signIns"

// storeEvery is how often sign-ins are stored, if there are new ones.
const storeEvery = 15 * time.Second

// kept is a sign-in in the store.
type kept struct {
	User   shoal.UserName `json:"u"`
	Source string         `json:"s"`
	At     int64          `json:"t"` // Unix seconds
}

// Run takes over the sign-ins of the server before, and keeps the new ones, until ctx ends.
func (d *Desk) Run(ctx context.Context) error {
	tries := retry.New(d.cfg.Log, "desktops")
	loaded := false
	for {
		if !loaded {
			loaded = tries.Do(ctx, "read the latest sign-ins", d.load)
		} else {
			tries.Do(ctx, "keep the latest sign-ins", d.save)
		}
		if err := retry.Sleep(ctx, storeEvery); err != nil {
			if loaded {
				late, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
				tries.Do(late, "keep the latest sign-ins", d.save)
				cancel()
			}
			return err
		}
	}
}

func (d *Desk) load(ctx context.Context) error {
	var text string
	err := d.cfg.Store.View(ctx, func(tx *store.Tx) (err error) {
		text, err = tx.Setting(setting)
		return err
	})
	if err != nil || text == "" {
		return err
	}
	var list []kept
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		d.cfg.Log.Warn("the latest sign-ins cannot be read; people have to sign in again before desktops start for them", "error", err)
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, k := range list[:min(len(list), maxSignIns)] {
		at := time.Unix(k.At, 0)
		if key := (signIn{k.User, k.Source}); at.After(d.signIns[key]) && time.Since(at) < signInLife {
			d.signIns[key] = at
		}
	}
	return nil
}

func (d *Desk) save(ctx context.Context) error {
	d.mu.Lock()
	d.sweep(time.Now())
	if !d.changed {
		d.mu.Unlock()
		return nil
	}
	d.changed = false
	list := make([]kept, 0, len(d.signIns))
	for k, at := range d.signIns {
		list = append(list, kept{k.user, k.source, at.Unix()})
	}
	d.mu.Unlock()
	text, err := json.Marshal(list)
	if err == nil {
		err = d.cfg.Store.Update(ctx, func(tx *store.Tx) error { return tx.SetSetting(setting, string(text)) })
	}
	if err != nil {
		d.mu.Lock()
		d.changed = true
		d.mu.Unlock()
	}
	return err
}
