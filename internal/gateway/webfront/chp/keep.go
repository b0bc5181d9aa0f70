package chp

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"time"

	"github.com/shoal-pool/shoal/internal/gateway/webfront/routes"
	"github.com/shoal-pool/shoal/internal/whole"
)

// Keeper keeps the routes of a hub that somebody else runs over a restart of this server: that hub looks only every few minutes
// whether they are still there. What is guarded is not kept: Shoal's own hub writes it again at once.
type Keeper struct {
	Routes *routes.Table
	Path   string
	Log    *slog.Logger
}

// maxKept bounds the file.
const maxKept = 64 << 20

// Load puts the kept routes into the table.
func (k Keeper) Load() {
	all, err := k.read()
	if err != nil {
		k.Log.Warn("the kept routes cannot be read; the hub writes them again when it looks", "file", k.Path, "err", err)
		return
	}
	for prefix, posted := range all {
		used := time.Now()
		var text string
		if json.Unmarshal(posted["last_activity"], &text) == nil {
			if at, err := time.Parse(time.RFC3339, text); err == nil && at.Before(used) {
				used = at
			}
		}
		if err := k.Routes.Put(prefix, posted, false, used); err != nil {
			k.Log.Warn("a kept route cannot be used", "prefix", prefix, "err", err)
		}
	}
}

func (k Keeper) read() (map[string]map[string]json.RawMessage, error) {
	info, err := os.Stat(k.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil && info.Size() > maxKept {
		err = errors.New("it is too large")
	}
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(k.Path)
	if err != nil {
		return nil, err
	}
	var all map[string]map[string]json.RawMessage
	return all, json.Unmarshal(text, &all)
}

// Run writes the routes to the file a moment after they have changed, and at the end.
func (k Keeper) Run(ctx context.Context) error {
	for {
		changed := k.Routes.Changed()
		ended := ctx.Err() != nil
		if err := k.save(); err != nil {
			k.Log.Warn("the routes cannot be kept; after a restart the hub has to write them again", "file", k.Path, "err", err)
		}
		if ended {
			return nil
		}
		select {
		case <-ctx.Done():
			continue
		case <-changed:
		}
		select {
		case <-ctx.Done():
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func (k Keeper) save() error {
	all := map[string]json.RawMessage{}
	for _, r := range k.Routes.All() {
		if !r.Guarded {
			all[r.Prefix] = r.AppendJSON(nil)
		}
	}
	text, err := json.Marshal(all)
	if err != nil {
		return err
	}
	return whole.Write(k.Path, text, 0o600)
}
