package cli

import (
	"context"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/shoal-pool/shoal/internal/cli/show"
	"github.com/shoal-pool/shoal/internal/cli/show/term"
)

func (p *program) versionCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "version", Short: "Say which version this is, and which the server is", Args: noArgs}
	format := formatFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		v := struct {
			Version string `json:"version"`
			Go      string `json:"go"`
			Server  string `json:"server,omitempty"`
		}{Version: p.Version, Go: runtime.Version()}
		ctx, cancel := context.WithTimeout(cmd.Context(), tabPatience)
		defer cancel()
		if c, err := p.connect(); err == nil { // no server is no mistake here
			if s, err := c.Version(ctx); err == nil {
				v.Server = s.Version
			}
		}
		if *format != show.Table {
			return show.Data(p.Stdout, *format, v)
		}
		return term.Fields(p.Stdout, []term.Field{{"shoal", v.Version}, {"Go", v.Go}, {"server", v.Server}})
	}
	return cmd
}
