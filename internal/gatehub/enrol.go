package gatehub

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/access"
	"github.com/shoal-pool/shoal/internal/store"
)

// seal is the secret part of a token: computed, as those of machines. It is bound to when the gateway was added, so that one that was
// removed and added again has other tokens; and a gateway's own to its key.
func (h *Hub) seal(purpose string, g api.Gateway) string {
	mac := hmac.New(sha256.New, h.cfg.Key)
	fmt.Fprintf(mac, "shoal %s\x00%s\x00%d\x00%d\x00%s", purpose, g.Name, g.Created.UnixNano(), g.Until.Unix(), g.Key)
	return hex.EncodeToString(mac.Sum(nil))
}

func (h *Hub) enrolToken(g api.Gateway) string {
	g.Key = ""
	return string(g.Name) + "." + h.seal("gateway enrolment", g)
}

func (h *Hub) ownToken(g api.Gateway) string { return string(g.Name) + "." + h.seal("gateway", g) }

func unknown() error {
	return shoal.Errorf(shoal.KindUnauthenticated, "the gateway's token is not valid").
		WithHint("it may have been removed; `shoal gateway add NAME` makes a token to enrol with")
}

// maxToken bounds what is looked at of a token.
const maxToken = 256

// nameOf is whose a token says it is. It does not check it.
func nameOf(token string) (api.GatewayName, bool) {
	name, _, found := strings.Cut(token, ".")
	return api.GatewayName(name), found && len(token) <= maxToken && validName(api.GatewayName(name)) == nil
}

func (h *Hub) named(ctx context.Context, token string) (g api.Gateway, err error) {
	name, ok := nameOf(token)
	if !ok {
		return g, unknown()
	}
	err = h.cfg.Store.View(ctx, func(tx *store.Tx) error {
		g, err = tx.Gateways().Get(name)
		return err
	})
	if shoal.KindOf(err) == shoal.KindNotFound {
		err = unknown()
	}
	return g, err
}

// Caller says whose a gateway's token is: KindUnauthenticated if that is nobody any more.
func (h *Hub) Caller(ctx context.Context, bearer string) (access.Subject, error) {
	g, err := h.named(ctx, bearer)
	if err == nil && (g.Key == "" || !hmac.Equal([]byte(bearer), []byte(h.ownToken(g)))) {
		err = unknown()
	}
	return access.Subject{Service: access.ServiceGateway, Gateway: string(g.Name)}, err
}

// Enrol binds a gateway's name to its key. The same request, repeated while the token is good, gets the same answer; with
// another key it is KindDenied.
func (h *Hub) Enrol(ctx context.Context, e api.GatewayEnrol) (none api.GatewayEnrolled, err error) {
	g, err := h.named(ctx, e.Token)
	if err == nil && (!hmac.Equal([]byte(e.Token), []byte(h.enrolToken(g))) || time.Now().After(g.Until)) {
		err = unknown()
	}
	if err != nil {
		return none, err
	}
	key, err := signingKey(e.Key)
	if err != nil {
		return none, err
	}
	hostKey, err := h.cfg.HostKey()
	if err != nil {
		return none, err
	}
	err = h.cfg.Store.Update(ctx, func(tx *store.Tx) error {
		now, err := tx.Gateways().Get(g.Name)
		switch {
		case err != nil || !now.Created.Equal(g.Created):
			return unknown()
		case now.Key == key:
			g = now
			return nil
		case now.Key != "":
			return shoal.Errorf(shoal.KindDenied, "gateway %s has enrolled with another key", g.Name).
				WithHint("each gateway has a name of its own; if its directory was lost, remove it and add it again")
		}
		all, err := tx.Gateways().List()
		if err != nil {
			return err
		}
		for _, other := range append(all, api.Gateway{Name: "the server's own", Key: line(h.cfg.Own)}) {
			if other.Key == key {
				return shoal.Errorf(shoal.KindConflict, "gateway %s cannot use a key that is another's: %s", g.Name, other.Name).
					WithHint("give it a data directory of its own")
			}
		}
		now.Key, now.Enrolled = key, time.Now().UTC().Truncate(time.Second)
		event(tx, g.Name, "gatewayEnrolled", fmt.Sprintf("gateway %s has enrolled: machines trust its key from now on", g.Name))
		g, err = tx.Gateways().Put(now)
		return err
	})
	if err == nil {
		err = h.Load(ctx)
	}
	if err != nil {
		return none, err
	}
	return api.GatewayEnrolled{Name: g.Name, Token: h.ownToken(g), HostKey: hostKey, HostCA: line(h.cfg.HostCA)}, nil
}

// signingKey reads a gateway's public key.
func signingKey(text string) (string, error) {
	const longest = 1 << 10
	bad := shoal.Errorf(shoal.KindInvalid, "cannot use the gateway's key: it is not one line of an ed25519 public key")
	if len(text) > longest {
		return "", bad
	}
	key, _, options, rest, err := ssh.ParseAuthorizedKey([]byte(text))
	if err != nil || len(options) > 0 || len(rest) > 0 || key.Type() != ssh.KeyAlgoED25519 {
		return "", bad
	}
	return line(key), nil
}
