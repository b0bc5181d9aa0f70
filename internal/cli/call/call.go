// Package call connects commands with the server that their command line means.
package call

import (
	"github.com/spf13/cobra"

	"github.com/shoal-pool/shoal/client"
)

// Connect returns a client of the server.
type Connect func() (*client.Client, error)

// Run is a command that does something with the client.
func (c Connect) Run(do func(*cobra.Command, *client.Client, []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		to, err := c()
		if err != nil {
			return err
		}
		return do(cmd, to, args)
	}
}
