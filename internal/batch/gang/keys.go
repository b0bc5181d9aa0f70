package gang

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/pem"
	"fmt"
	"strings"

	"golang.org/x/crypto/ssh"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
)

// Keys are those by which the nodes of an attempt reach each other. They follow from a secret, so they
// are the same whenever they are asked for and are kept nowhere.
func Keys(secret []byte, ref shoal.AttemptRef) (*api.TaskSSH, error) {
	mac := hmac.New(sha256.New, secret)
	fmt.Fprintf(mac, "nodes of attempt %s", ref)
	private := ed25519.NewKeyFromSeed(mac.Sum(nil))
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		return nil, fmt.Errorf("cannot make the keys of attempt %s: %w", ref, err)
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		return nil, fmt.Errorf("cannot make the keys of attempt %s: %w", ref, err)
	}
	return &api.TaskSSH{Key: string(pem.EncodeToMemory(block)), Authorized: strings.TrimSpace(string(ssh.MarshalAuthorizedKey(signer.PublicKey())))}, nil
}
