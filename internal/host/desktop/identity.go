package desktop

import (
	"crypto/tls"
	"os"
	"path/filepath"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
)

// identity puts the pool's key and certificate where xrdp reads them. Without them it would fall back to what RDP had
// before TLS.
func (s *Server) identity(o api.DesktopOrder, owner Owner) error {
	if _, err := tls.X509KeyPair([]byte(o.Certificate), []byte(o.Key)); err != nil {
		return shoal.Errorf(shoal.KindInvalid, "the control plane sent none that can be used: %w", err)
	}
	if err := put(filepath.Join(s.cfg.Dir, "cert.pem"), o.Certificate, 0o644); err != nil {
		return err
	}
	path := filepath.Join(s.cfg.Dir, "key.pem")
	if err := put(path, o.Key, 0o400); err != nil {
		return err
	}
	return os.Lchown(path, owner.UID, owner.GID)
}
