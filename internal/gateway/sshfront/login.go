package sshfront

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/gateway"
	"github.com/shoal-pool/shoal/internal/route"
	"github.com/shoal-pool/shoal/internal/sshwire"
)

const (
	// offerTime is how long a client may take to say which ciphers it has, before it is offered all. Only
	// clients that let the server speak first, and very long lines, take longer.
	offerTime = 250 * time.Millisecond
	// wrongPassword is the least pause after a wrong password; it doubles with each.
	wrongPassword = time.Second
	maxTries      = 6
	// maxLost is how often a connection to a machine may break while a login waits for it.
	maxLost = 3
)

var errDenied = errors.New("denied")

// greet brings a connection to the point where the client is known and has a place, or a reason why not.
func (v *visit) greet(raw net.Conn) (<-chan ssh.NewChannel, <-chan *ssh.Request, error) {
	deadline := time.Now().Add(authTime)
	raw.SetDeadline(deadline)
	v.wire = sshwire.NewConn(raw, func(error) { v.cancel() })
	offer, err := v.wire.Greet(offerTime, deadline)
	if err != nil {
		return nil, nil, err
	}
	cfg := &ssh.ServerConfig{
		Config:                      ssh.Config{Ciphers: offer.Ciphers()},
		MaxAuthTries:                maxTries,
		ServerVersion:               sshwire.Version,
		PreAuthConnCallback:         func(c ssh.ServerPreAuthConn) { v.early = c },
		PublicKeyCallback:           v.checkKey,
		VerifiedPublicKeyCallback:   v.keyVerified,
		PasswordCallback:            v.checkPassword,
		KeyboardInteractiveCallback: v.askPassword,
	}
	cfg.AddHostKey(v.front.cfg.HostKey)
	conn, channels, requests, err := ssh.NewServerConn(v.wire, cfg)
	if err != nil {
		return nil, nil, err
	}
	raw.SetDeadline(time.Time{})
	if sshwire.Packed(conn) {
		v.wire.Pack()
	}
	v.conn, v.early = conn, nil
	return channels, requests, nil
}

// checkKey says whether a key would do. Offering one proves nothing yet.
func (v *visit) checkKey(meta ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
	if _, is := key.(*ssh.Certificate); is {
		return nil, errDenied // nobody signs certificates for the gateway itself
	}
	name, _ := gateway.ParseName(meta.User())
	err := gateway.Hold(v.ctx, v.tell, func(ctx context.Context, progress func(string)) error {
		progress("the server waits for its database")
		if !v.front.cfg.Directory.CheckKey(ctx, name.User, key) {
			return errDenied
		}
		return nil
	})
	if err != nil {
		return nil, v.denied(err)
	}
	v.guest.Promise()
	return nil, nil
}

// keyVerified is called when the client has proved to have the key.
func (v *visit) keyVerified(meta ssh.ConnMetadata, key ssh.PublicKey, _ *ssh.Permissions, _ string) (*ssh.Permissions, error) {
	return nil, v.admit(meta, "key "+ssh.FingerprintSHA256(key))
}

func (v *visit) checkPassword(meta ssh.ConnMetadata, password []byte) (*ssh.Permissions, error) {
	name, _ := gateway.ParseName(meta.User())
	v.guest.Guess()
	if v.shownOut.Load() {
		<-v.ctx.Done()
		return nil, errDenied
	}
	if err := v.front.cfg.Directory.CheckPassword(v.ctx, name.User, string(password), gateway.Source(v.source)); err != nil {
		if v.ctx.Err() != nil {
			return nil, v.denied(errDenied)
		}
		v.front.log.Debug("a password was not accepted", "source", v.source, "error", err)
		if shoal.KindOf(err) == shoal.KindUnavailable { // nobody has looked at it
			v.tell("no password can be looked at now: " + err.Error() + "; come with a key, or try again in a while")
		}
		v.penalty()
		return nil, errDenied
	}
	return nil, v.admit(meta, "password")
}

func (v *visit) askPassword(meta ssh.ConnMetadata, ask ssh.KeyboardInteractiveChallenge) (*ssh.Permissions, error) {
	answers, err := ask("", "", []string{"Password: "}, []bool{false})
	if err != nil || len(answers) != 1 {
		return nil, errDenied
	}
	return v.checkPassword(meta, []byte(answers[0]))
}

// denied is the error that the client is told of as a denial, unless the visit has ended: then she is told nothing more.
func (v *visit) denied(err error) error {
	if v.ctx.Err() != nil {
		v.wire.Close()
	}
	return err
}

// penalty makes the client wait after a wrong password.
func (v *visit) penalty() {
	pause := wrongPassword << min(v.wrong, 3)
	v.wrong++
	select {
	case <-time.After(pause + rand.N(wrongPassword/2)):
	case <-v.ctx.Done():
	}
}

// admit is called when the client has proved who it is, and holds it until its place is ready.
// Only when it fails does the client learn nothing but that it was denied.
func (v *visit) admit(meta ssh.ConnMetadata, credential string) error {
	name, wrong := gateway.ParseName(meta.User())
	user, ok := v.front.cfg.Directory.User(v.ctx, name.User)
	if !ok {
		return v.denied(errDenied)
	}
	if v.shownOut.Load() {
		return errDenied
	}
	v.guest.Welcome()
	v.wire.SetDeadline(time.Time{})
	if !v.counted {
		v.counted = v.front.count(name.User)
	}
	v.name, v.credential, v.stamp = name, credential, stamp(user)
	switch {
	case !v.counted:
		v.refusal = "you have too many connections; end some of them and try again"
		return nil
	case wrong != nil:
		v.refusal = wrong.Error()
		if hint := shoal.HintOf(wrong); hint != "" {
			v.refusal += "; " + hint
		}
		return nil
	}
	started := time.Now()
	err := gateway.Hold(v.ctx, v.tell, v.place)
	if v.ctx.Err() != nil {
		return v.denied(v.ctx.Err()) // it has gone, or we go
	}
	if err != nil {
		v.refusal = v.refused(err)
		return nil
	}
	v.front.calm.login()
	v.front.log.Debug("logged in", "user", name.User, "machine", v.target.Machine, "session", v.target.Session,
		"source", v.source, "with", credential, "took", time.Since(started).Round(time.Millisecond))
	return nil
}

// tell says something to a client that is held. A quiet client may not show it.
func (v *visit) tell(text string) { v.early.SendAuthBanner("shoal: " + text + "\n") }

func (v *visit) refused(err error) string {
	if refusal, ok := errors.AsType[*route.Refusal](err); ok {
		return refusal.Reason.Sentence
	}
	v.front.log.Error("cannot log a user in", "user", v.name.User, "pool", v.name.Pool, "error", err)
	text := err.Error()
	if hint := shoal.HintOf(err); hint != "" {
		text += "; " + hint
	}
	return text
}

// place finds a machine for the user and a link to it.
func (v *visit) place(ctx context.Context, progress func(string)) error {
	req := route.Request{
		User: v.name.User, Pool: v.name.Pool, New: v.name.New, Machine: v.name.Machine, Kind: "ssh",
		Source: v.source.String(), Arrived: time.Now(),
	}
	for lost := 0; ; {
		target, err := v.front.cfg.Router.Login(ctx, req, v.part, progress)
		if err != nil {
			return err
		}
		if v.name.Pool == "" {
			v.name.Pool = target.Pool
		}
		if v.front.cfg.Environ != nil {
			v.environ = v.front.cfg.Environ(ctx, target.User, target.Pool)
		}
		l, err := v.front.links.join(ctx, v, target, progress)
		if err == nil {
			v.mu.Lock()
			v.link = l
			v.mu.Unlock()
			v.target, v.seated = target, true
			return nil
		}
		v.front.cfg.Router.Closed(target.Session, v.part)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, errLost) && lost < maxLost:
			lost++
			continue
		case errors.Is(err, errSilent):
			v.front.cfg.Router.Suspect(target.Machine)
		case !errors.Is(err, errVanished):
			return err
		}
		if v.name.Machine != "" {
			return fmt.Errorf("machine %s %w", target.Machine, err)
		}
		progress(fmt.Sprintf("machine %s %v; another one is being looked for", target.Machine, err))
		req.Avoid = target.Machine
	}
}
