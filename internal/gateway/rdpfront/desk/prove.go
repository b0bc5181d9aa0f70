package desk

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/shoal-pool/shoal"
)

// proveTime bounds one proof.
const proveTime = 10 * time.Second

// ErrForeign is that who listens for desktops on a machine does not have the pool's key.
var ErrForeign = errors.New("what listens there is not the pool's")

// Prove finds out whether who listens at the other end of a connection has the key of a pool's desktops, and uses the
// connection up. Xrdp's port is one that any user of the machine may bind, were xrdp not there for a moment; people must
// not be led to her.
func (d *Desk) Prove(ctx context.Context, c net.Conn, pool shoal.PoolName) error {
	want, _, err := d.Identity(pool)
	if err != nil {
		return err
	}
	block, _ := pem.Decode([]byte(want))
	ctx, cancel := context.WithTimeout(ctx, proveTime)
	defer cancel()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	// An X.224 connection request that asks for TLS alone, and its confirmation ([MS-RDPBCGR] 2.2.1.1 and 2.2.1.2).
	if _, err := c.Write([]byte{3, 0, 0, 19, 14, 0xe0, 0, 0, 0, 0, 0, 1, 0, 8, 0, 1, 0, 0, 0}); err != nil {
		return err
	}
	answer := make([]byte, 19)
	if _, err := io.ReadFull(c, answer); err != nil {
		return err
	}
	if answer[0] != 3 || answer[5] != 0xd0 || answer[11] != 2 || answer[15] != 1 {
		return fmt.Errorf("%w: it does not speak TLS", ErrForeign)
	}
	same := func(s tls.ConnectionState) error {
		if len(s.PeerCertificates) == 0 || string(s.PeerCertificates[0].Raw) != string(block.Bytes) {
			return ErrForeign
		}
		return nil
	}
	// The certificate is held against the pool's own, byte for byte: no authority has a say.
	t := tls.Client(c, &tls.Config{InsecureSkipVerify: true, VerifyConnection: same, MinVersion: tls.VersionTLS12})
	if err := t.HandshakeContext(ctx); err != nil {
		return err
	}
	return t.Close()
}
