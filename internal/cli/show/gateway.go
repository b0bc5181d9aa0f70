package show

import (
	"io"
	"strconv"

	"golang.org/x/crypto/ssh"

	"github.com/shoal-pool/shoal/api"
)

// Gateways shows a list of gateways.
func Gateways(w io.Writer, format string, all []api.Gateway) error {
	return list(w, format, all, []string{"NAME", "STATE", "CONNECTIONS", "HEARD", "KEY"}, func(g api.Gateway) []string {
		heard, key := "", ""
		if !g.Heard.IsZero() {
			heard = Ago(g.Heard)
		}
		if k, _, _, _, err := ssh.ParseAuthorizedKey([]byte(g.Key)); err == nil {
			key = ssh.FingerprintSHA256(k)
		}
		return []string{string(g.Name), g.State, strconv.Itoa(g.Connections), heard, key}
	})
}
