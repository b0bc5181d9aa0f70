package remote

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/retry"
	"github.com/shoal-pool/shoal/internal/whole"
)

// identity is who the gateway is, as it was told when it enrolled. It is kept in one file that only its owner reads.
type identity struct {
	api.GatewayEnrolled
	CA   string `json:"ca,omitempty"` // PEM of the authority by which it knows the control plane
	With string `json:"with"`         // the digest of the token with which it enrolled

	hostKey ssh.Signer
	hostCA  ssh.PublicKey
}

// identityFile is its name in the gateway's directory.
const identityFile = "gateway.json"

// enrolled returns who the gateway is, and the control plane as it reaches it. With a token it has not used yet it enrols.
func enrolled(ctx context.Context, cfg Config) (identity, *control, error) {
	path := filepath.Join(cfg.Dir, identityFile)
	known, err := readIdentity(path)
	if err != nil {
		return known, nil, err
	}
	token, ca, err := readToken(cfg.TokenFile)
	if err != nil && (known.Token == "" || !errors.Is(err, fs.ErrNotExist)) { // who is known needs none any more
		return known, nil, err
	}
	with := digest(token)
	if token == "" || known.With == with {
		c, err := newControl(cfg, known.CA)
		if err == nil {
			c.token = known.Token
		}
		return known, c, err
	}
	c, err := newControl(cfg, ca)
	if err != nil {
		return known, nil, err
	}
	fresh := identity{CA: ca, With: with}
	if fresh.GatewayEnrolled, err = enrol(ctx, c, api.GatewayEnrol{Token: token, Key: strings.TrimSpace(string(ssh.MarshalAuthorizedKey(cfg.Key)))}); err == nil {
		err = fresh.parse()
	}
	if err == nil {
		var text []byte
		if text, err = json.MarshalIndent(fresh, "", "  "); err == nil {
			err = whole.Write(path, text, 0o600)
		}
	}
	if err != nil {
		return fresh, nil, fmt.Errorf("cannot enrol this gateway: %w", err)
	}
	cfg.Log.Info("enrolled", "gateway", fresh.Name)
	c.token = fresh.Token
	return fresh, c, nil
}

func digest(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}

// enrol asks until one of the servers answers.
func enrol(ctx context.Context, c *control, e api.GatewayEnrol) (api.GatewayEnrolled, error) {
	tries := retry.New(c.log, "gateway")
	for {
		var answer api.GatewayEnrolled
		_, at := c.base()
		err := c.call(ctx, "/enrol", e, &answer, answerTime)
		if err == nil || !isAway(err) {
			return answer, err
		}
		tries.Done(ctx, "enrol", err)
		c.next(at)
		if err := retry.Sleep(ctx, time.Second); err != nil {
			return answer, err
		}
	}
}

// readToken reads what `shoal gateway add` wrote: a token, and behind it perhaps the certificate of an authority.
func readToken(path string) (token, ca string, err error) {
	if path == "" {
		return "", "", shoal.Errorf(shoal.KindInvalid, "cannot enrol this gateway without a token").
			WithHint("an administrator makes one: shoal gateway add NAME > FILE; then add --token-file FILE")
	}
	const longest = 64 << 10
	text, err := os.ReadFile(path)
	if err == nil && len(text) > longest {
		err = shoal.Errorf(shoal.KindInvalid, "it is longer than %d bytes", longest)
	}
	if err != nil {
		return "", "", fmt.Errorf("cannot read the gateway's token: %w", err)
	}
	token, ca, _ = strings.Cut(string(text), "\n")
	if token, ca = strings.TrimSpace(token), strings.TrimSpace(ca); token == "" {
		return "", "", shoal.Errorf(shoal.KindInvalid, "cannot read the gateway's token: %s is empty", path)
	}
	return token, ca, nil
}

func readIdentity(path string) (identity, error) {
	var known identity
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return known, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &known)
	}
	if err == nil {
		err = known.parse()
	}
	if err != nil {
		return known, fmt.Errorf("cannot read who this gateway is from %s: %w", path, err)
	}
	return known, nil
}

// parse reads the keys.
func (i *identity) parse() error {
	if i.Token == "" || i.Name == "" {
		return errors.New("it holds no token")
	}
	hostKey, err := ssh.ParsePrivateKey([]byte(i.HostKey))
	if err != nil {
		return fmt.Errorf("the gateways' host key cannot be used: %w", err)
	}
	hostCA, _, _, _, err := ssh.ParseAuthorizedKey([]byte(i.HostCA))
	if err != nil {
		return fmt.Errorf("the key of the machines' authority cannot be used: %w", err)
	}
	i.hostKey, i.hostCA = hostKey, hostCA
	return nil
}
