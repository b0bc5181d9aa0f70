package cli

import (
	"slices"

	"github.com/spf13/cobra"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/cli/flags"
	"github.com/shoal-pool/shoal/internal/cli/show"
	"github.com/shoal-pool/shoal/internal/spec"
)

// rehearsal is what `pool scale --dry-run` asks.
type rehearsal struct {
	dry  bool
	file string
	api.RehearsalRequest
}

func (r *rehearsal) flags(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&r.dry, "dry-run", false, "only say what the autoscaler would do now, and would have done")
	cmd.Flags().StringVarP(&r.file, "file", "f", "", "with --dry-run: the pool as it would be, in a `FILE`")
	cmd.Flags().Var(flags.Duration{Value: &r.Since}, "since", "with --dry-run: how much of the past; default: 7d")
	files(cmd, "file")
}

// rehearse says what the autoscaler would do.
func (p *program) rehearse(cmd *cobra.Command, r rehearsal, name shoal.PoolName) error {
	if r.file != "" {
		read, err := p.files().Files([]string{r.file})
		if err != nil {
			return err
		}
		set, err := spec.Parse(read...)
		if err != nil {
			return err
		}
		i := slices.IndexFunc(set.Pools, func(x shoal.Pool) bool { return x.Name == name })
		if i < 0 {
			return shoal.Errorf(shoal.KindInvalid, "%s holds no pool %q", r.file, name)
		}
		r.Pool = &set.Pools[i]
	}
	c, err := p.connect()
	if err != nil {
		return err
	}
	a, err := c.Rehearse(cmd.Context(), name, r.RehearsalRequest)
	return show.Rehearsal(p.Stdout, a, err)
}
