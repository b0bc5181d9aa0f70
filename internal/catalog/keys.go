package catalog

import (
	"crypto/rsa"
	"fmt"

	"golang.org/x/crypto/ssh"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/identity/local"
)

// minRSA is the length in bits below which RSA keys can be broken with means that exist.
const minRSA = 2048

// checkKey refuses what cannot be used to sign in: what is no plain key, DSA, a short RSA key.
func checkKey(line string) error {
	key, err := local.ParseKey(line)
	if err != nil {
		return err
	}
	weak := ""
	if key.Type() == ssh.InsecureKeyAlgoDSA {
		weak = "a DSA key"
	}
	if c, ok := key.(ssh.CryptoPublicKey); ok {
		if r, ok := c.CryptoPublicKey().(*rsa.PublicKey); ok && r.N.BitLen() < minRSA {
			weak = fmt.Sprintf("an RSA key of %d bits", r.N.BitLen())
		}
	}
	if weak != "" {
		return shoal.Errorf(shoal.KindInvalid, "%s is too weak", weak).WithHint("make a key with ssh-keygen -t ed25519")
	}
	return nil
}
