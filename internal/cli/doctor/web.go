package doctor

import (
	"context"
	"errors"
	"io/fs"

	"github.com/shoal-pool/shoal/internal/gateway/webfront/certs"
)

// authority shows the fingerprint that people compare when they trust the server's own certificates.
func (h Host) authority(context.Context) []Finding {
	dir := h.path(h.Data, "tls")
	print, err := certs.FingerprintOf(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return ok("certificate", "none by an authority of the server's own yet; its first start makes one, unless --tls-cert or --acme-domain is given")
	}
	if err != nil {
		return warning("certificate", "restore "+dir+" from a backup, or remove it: people then have to trust a new one", "cannot read the authority's certificate: %v", err)
	}
	return ok("certificate", "%s/%s has the SHA-256 fingerprint %s", dir, certs.CAFile, print)
}
