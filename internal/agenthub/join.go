package agenthub

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/crypto/ssh"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/store"
)

// Caller is a machine's agent that has shown its token, in one start of the machine.
type Caller struct {
	Machine shoal.MachineID
	Epoch   int
}

// seal is the secret part of a token. purpose keeps one kind of token from being used as another.
func (h *Hub) seal(purpose string, id shoal.MachineID, epoch int) string {
	mac := hmac.New(sha256.New, h.cfg.Key)
	fmt.Fprintf(mac, "shoal %s\x00%s\x00%d", purpose, id, epoch)
	return hex.EncodeToString(mac.Sum(nil))
}

// JoinToken is the token with which a machine joins in one of its starts. It is always the same.
func (h *Hub) JoinToken(id shoal.MachineID, epoch int) string { return h.seal("join", id, epoch) }

// machineToken names the machine and the start, so that it can be checked without a table.
func (h *Hub) machineToken(c Caller) string {
	return fmt.Sprintf("%s.%d.%s", c.Machine, c.Epoch, h.seal("machine", c.Machine, c.Epoch))
}

// maxToken bounds what is looked at of a token.
const maxToken = 256

// parseToken splits a machine's token. It does not check it.
func parseToken(token string) (c Caller, secret string, ok bool) {
	if len(token) > maxToken {
		return c, "", false
	}
	name, rest, ok1 := strings.Cut(token, ".")
	number, secret, ok2 := strings.Cut(rest, ".")
	epoch, err := strconv.ParseUint(number, 10, 31)
	if !ok1 || !ok2 || name == "" || secret == "" || err != nil || strconv.FormatUint(epoch, 10) != number {
		return c, "", false
	}
	return Caller{Machine: shoal.MachineID(name), Epoch: int(epoch)}, secret, true
}

func unknown() error {
	return shoal.Errorf(shoal.KindUnauthenticated, "the machine's token is not valid").
		WithHint("it is good for one start of one machine")
}

// Machine returns whose a machine's token is, or KindUnauthenticated: also if the machine is gone, or
// was started again since.
func (h *Hub) Machine(ctx context.Context, bearer string) (Caller, error) {
	c, secret, ok := parseToken(bearer)
	if !ok || !hmac.Equal([]byte(secret), []byte(h.seal("machine", c.Machine, c.Epoch))) {
		return Caller{}, unknown()
	}
	// A machine reports several times a second while it runs tasks. Its row changes seldom.
	rev := h.cfg.Store.MachinesRev()
	h.mu.Lock()
	known := h.known[c] && h.knownRev == rev
	h.mu.Unlock()
	if known {
		return c, nil
	}
	if _, err := h.machine(ctx, c); err != nil {
		return Caller{}, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.knownRev != rev {
		clear(h.known)
		h.knownRev = rev
	}
	h.known[c] = true
	return c, nil
}

// machine reads the row of a caller's machine, or KindUnauthenticated if the token has lost its meaning.
func (h *Hub) machine(ctx context.Context, c Caller) (m shoal.Machine, err error) {
	err = h.cfg.Store.View(ctx, func(tx *store.Tx) error {
		m, err = tx.Machines().Get(c.Machine)
		return err
	})
	if shoal.KindOf(err) == shoal.KindNotFound || err == nil && (m.State == shoal.MachineGone || m.Epoch != c.Epoch) {
		return m, unknown()
	}
	return m, err
}

// Join lets a machine in. The same request, repeated, gets the same answer. Wrong or old tokens are
// KindUnauthenticated, a second host key KindDenied, a machine that is not about to run KindConflict.
func (h *Hub) Join(ctx context.Context, j api.AgentJoin) (api.AgentJoined, error) {
	var no api.AgentJoined
	c := Caller{Machine: j.Machine, Epoch: j.Epoch}
	if !hmac.Equal([]byte(j.Token), []byte(h.JoinToken(j.Machine, j.Epoch))) {
		return no, unknown()
	}
	key, err := hostKey(j.HostKey)
	if err != nil {
		return no, err
	}
	if err := h.bind(ctx, c, string(ssh.MarshalAuthorizedKey(key))); err != nil {
		return no, err
	}
	cert, err := h.certify(key, j.Machine)
	if err != nil {
		return no, err
	}
	return api.AgentJoined{Token: h.machineToken(c), HostCertificate: cert}, nil
}

// hostKey reads the public key of a machine's sshd.
func hostKey(line string) (ssh.PublicKey, error) {
	const longest = 16 << 10
	bad := func(why string) error {
		return shoal.Errorf(shoal.KindInvalid, "cannot use the machine's host key: %s", why)
	}
	if len(line) > longest {
		return nil, bad("it is too long")
	}
	key, _, options, rest, err := ssh.ParseAuthorizedKey([]byte(line))
	switch {
	case err != nil || len(options) > 0 || len(rest) > 0:
		return nil, bad("it is not one line of a public key")
	case key.Type() == ssh.KeyAlgoED25519, key.Type() == ssh.KeyAlgoECDSA256, key.Type() == ssh.KeyAlgoECDSA384, key.Type() == ssh.KeyAlgoECDSA521:
		return key, nil
	case key.Type() != ssh.KeyAlgoRSA:
		return nil, bad("keys of type " + key.Type() + " are not taken")
	}
	const fewest = 2048
	crypt, ok := key.(ssh.CryptoPublicKey)
	if ok {
		public, isRSA := crypt.CryptoPublicKey().(*rsa.PublicKey)
		ok = isRSA && public.N.BitLen() >= fewest
	}
	if !ok {
		return nil, bad("an RSA key must have 2048 bits")
	}
	return key, nil
}

// bind puts on record that a machine has joined with a host key, unless it has with another one in this start.
func (h *Hub) bind(ctx context.Context, c Caller, key string) error {
	key = strings.TrimSpace(key)
	err := h.cfg.Store.Update(ctx, func(tx *store.Tx) error {
		m, err := tx.Machines().Get(c.Machine)
		if shoal.KindOf(err) == shoal.KindNotFound || err == nil && m.Epoch != c.Epoch {
			return unknown()
		}
		if err != nil {
			return err
		}
		mayJoin := m.State == shoal.MachineRequested || m.State == shoal.MachineBooting || m.State == shoal.MachineReady
		switch {
		case !mayJoin || m.Wanted != shoal.WantRun:
			return shoal.Errorf(shoal.KindConflict, "machine %s cannot join: it is %s and should %s", c.Machine, m.State, m.Wanted)
		case m.HostKey == key:
			return nil
		case m.HostKey != "":
			return shoal.Errorf(shoal.KindDenied, "machine %s has joined with another host key", c.Machine).
				WithHint("if its disk was lost, delete the machine; a new one takes its place")
		}
		m.HostKey = key
		_, err = tx.Machines().Put(m)
		return err
	})
	if err != nil {
		return err
	}
	return h.cfg.Engine.Joined(ctx, c.Machine, c.Epoch, key)
}

// certify makes the host certificate: gateways know a machine by its identifier, wherever it is. It has no
// end because the machine has: an identifier is never given to another.
func (h *Hub) certify(key ssh.PublicKey, id shoal.MachineID) (string, error) {
	cert := &ssh.Certificate{
		Key:             key,
		CertType:        ssh.HostCert,
		KeyId:           string(id),
		ValidPrincipals: []string{string(id)},
		ValidBefore:     ssh.CertTimeInfinity,
	}
	if err := cert.SignCert(rand.Reader, h.cfg.HostCA); err != nil {
		return "", fmt.Errorf("cannot certify the host key of machine %s: %w", id, err)
	}
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(cert))), nil
}
