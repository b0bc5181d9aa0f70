// Package call connects commands with the server that their command line means.
package call

import (
	"github.com/spf13/cobra"

	"github.com/shoal-pool/shoal"
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

// Each does something to each of several things. One that it cannot be done to does not keep it from the others: the first such error
// is returned, later ones are complained of at once. Any other error, of a server that is away for example, ends it.
func Each(names []string, complain func(error), do func(name string) error) error {
	var first error
	for _, name := range names {
		err := do(name)
		switch {
		case err == nil:
		case !ofOne(err):
			if first != nil {
				complain(first)
			}
			return err
		case first == nil:
			first = err
		default:
			complain(err)
		}
	}
	return first
}

// ofOne reports whether an error is about the one thing that something was to be done to.
func ofOne(err error) bool {
	switch shoal.KindOf(err) {
	case shoal.KindNotFound, shoal.KindDenied, shoal.KindConflict, shoal.KindInvalid:
		return true
	}
	return false
}
