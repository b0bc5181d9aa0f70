// Package rehearse is `shoal pool scale --dry-run`.
package rehearse

import (
	"context"
	"slices"

	"github.com/spf13/cobra"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/client"
	"github.com/shoal-pool/shoal/internal/cli/flags"
	"github.com/shoal-pool/shoal/internal/spec"
)

// Request is what is asked.
type Request struct {
	Dry  bool
	File string
	api.RehearsalRequest
}

// Flags adds the flags.
func (r *Request) Flags(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&r.Dry, "dry-run", false, "only say what the autoscaler would do now, and would have done")
	cmd.Flags().StringVarP(&r.File, "file", "f", "", "with --dry-run: the pool as it would be, in a `FILE`")
	cmd.Flags().Var(flags.Duration{Value: &r.Since}, "since", "with --dry-run: how much of the past; default: 7d")
}

// Ask asks what the autoscaler would do with a pool.
func (r Request) Ask(ctx context.Context, connect func() (*client.Client, error), read func([]string) ([]spec.File, error), name shoal.PoolName) (api.Rehearsal, error) {
	if r.File != "" {
		files, err := read([]string{r.File})
		if err != nil {
			return api.Rehearsal{}, err
		}
		set, err := spec.Parse(files...)
		if err != nil {
			return api.Rehearsal{}, err
		}
		i := slices.IndexFunc(set.Pools, func(x shoal.Pool) bool { return x.Name == name })
		if i < 0 {
			return api.Rehearsal{}, shoal.Errorf(shoal.KindInvalid, "%s holds no pool %q", r.File, name)
		}
		r.Pool = &set.Pools[i]
	}
	c, err := connect()
	if err != nil {
		return api.Rehearsal{}, err
	}
	return c.Rehearse(ctx, name, r.RehearsalRequest)
}
