package postgres

import (
	"context"

	"github.com/shoal-pool/shoal/internal/store"
)

// Make makes an empty store of a schema of the past.
func Make(ctx context.Context, address string, version int) error {
	config, err := Parse(address)
	if err != nil {
		return err
	}
	d := &database{config: config}
	c, err := d.connect(ctx, patience, nil)
	if err != nil {
		return err
	}
	defer c.Discard()
	if err := c.script(ctx, prepare); err != nil {
		return err
	}
	steps, err := store.Schema().Steps(0)
	if err != nil {
		return err
	}
	for _, s := range steps[:version] {
		if err := d.step(ctx, c, s); err != nil {
			return err
		}
	}
	return nil
}
