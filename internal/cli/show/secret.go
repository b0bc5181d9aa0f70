package show

import (
	"fmt"
	"io"

	"github.com/shoal-pool/shoal"
)

// Secrets writes secrets, of which there is nothing to show but names.
func Secrets(w io.Writer, format string, all []shoal.Secret) error {
	return list(w, format, all, []string{"NAME", "OWNER", "GROUPS", "BYTES", "SET"}, func(s shoal.Secret) []string {
		return []string{string(s.Name), string(s.Owner), Words(s.Groups), fmt.Sprint(s.Size), Ago(s.Updated)}
	})
}
