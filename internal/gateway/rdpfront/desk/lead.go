package desk

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/route"
	"github.com/shoal-pool/shoal/internal/store"
)

// Lead is where a connection is led.
type Lead struct {
	User shoal.UserName
	// Known: she has signed in from this source, or asked to come from it. Then a machine is started for her, and she
	// goes wherever the broker says. Else she goes to the machine of a session that she has.
	Known   bool
	Machine shoal.MachineID
	Address string // host:port of the machine's sshd
}

// cutName is the length at which Microsoft's clients cut the name in the cookie.
const cutName = 9

// Lead decides for whom a connection to a pool is, by the name that the client gives, if it gives one, and by where it
// comes from. Nothing of that is proved. A connection that leads nowhere is a *route.Refusal, whose reason is for
// logs: a stranger should not hear who has what.
func (d *Desk) Lead(ctx context.Context, pool shoal.PoolName, name, address string) (Lead, error) {
	source := Source(address)
	var l Lead
	err := d.cfg.Store.View(ctx, func(tx *store.Tx) error {
		sessions, err := tx.LiveSessionsIn(pool)
		if err != nil {
			return err
		}
		machines, err := tx.LiveMachinesIn(pool)
		if err != nil {
			return err
		}
		d.mu.Lock()
		d.sweep(time.Now())
		known := d.recent(source, pool)
		d.mu.Unlock()
		// Not all users are read for a stranger: there may be many.
		var failed error
		look := func(name shoal.UserName) standing {
			u, err := tx.Users().Get(name)
			switch {
			case err != nil && shoal.KindOf(err) != shoal.KindNotFound:
				failed = err
			case err == nil && u.Disabled:
				return disabled
			case err == nil:
				return good
			}
			return absent
		}
		l, err = decide(name, known, look, sessions, machines)
		if failed != nil {
			return failed
		}
		return err
	})
	return l, err
}

// standing is what there is to a name.
type standing int

const (
	absent standing = iota
	disabled
	good
)

// decide is Lead without the world. Known are the users who are known at the source, the latest first; look tells of a
// name how such a user stands.
func decide(name string, known []shoal.UserName, look func(shoal.UserName) standing, sessions []shoal.Session, machines []shoal.Machine) (Lead, error) {
	user, why := whose(name, known, look, sessions)
	if user == "" {
		return Lead{}, refuse("unknown", "%s", why)
	}
	l := Lead{User: user, Known: slices.Contains(known, user)}
	if l.Known {
		return l, nil
	}
	for _, s := range sessions {
		if s.User != user || s.Machine == "" || s.Found {
			continue
		}
		at := slices.IndexFunc(machines, func(m shoal.Machine) bool { return m.ID == s.Machine })
		if at >= 0 && machines[at].State == shoal.MachineReady && machines[at].Health != shoal.HealthDown {
			l.Machine, l.Address = s.Machine, machines[at].Address
			return l, nil
		}
	}
	return Lead{}, refuse("mayNotStart", "user %s has no session here, and did not sign in from this address lately: nobody is started for who only says a name", user)
}

// whose finds the user a connection is for; why not, if it is nobody's.
func whose(name string, known []shoal.UserName, look func(shoal.UserName) standing, sessions []shoal.Session) (user shoal.UserName, why string) {
	bySource := func() (shoal.UserName, string) {
		for _, u := range known {
			if look(u) == good {
				return u, ""
			}
		}
		if name == "" {
			return "", "the client gives no name, and nobody has signed in from this address lately"
		}
		return "", fmt.Sprintf("there is no user %q, and nobody has signed in from this address lately", clip(name))
	}
	if i := strings.LastIndexByte(name, '\\'); i >= 0 { // DOMAIN\alice
		name = name[i+1:]
	}
	if name == "" {
		return bySource()
	}
	for _, n := range []string{name, strings.ToLower(name)} {
		switch look(shoal.UserName(n)) {
		case good:
			return shoal.UserName(n), ""
		case disabled: // that is who was meant
			return "", fmt.Sprintf("user %s may not log in", n)
		case absent:
		}
	}
	if len(name) < cutName {
		return bySource()
	}
	// The name may be cut: it means who is known here, or else who is the only one with a session.
	begins := func(u shoal.UserName) bool {
		return strings.HasPrefix(strings.ToLower(string(u)), strings.ToLower(name)) && look(u) == good
	}
	for _, u := range known {
		if begins(u) {
			return u, ""
		}
	}
	for _, s := range sessions {
		if !begins(s.User) || s.User == user {
			continue
		}
		if user != "" {
			return "", fmt.Sprintf("the client gives a name that may be cut, %q, and several users with a session have one that begins so", clip(name))
		}
		user = s.User
	}
	if user != "" {
		return user, ""
	}
	return bySource()
}

// Refused has a user find, in `shoal why login`, why a connection in her name got nowhere: clients of RDP cannot show it. A
// name that nobody has is not noted.
func (d *Desk) Refused(ctx context.Context, name shoal.UserName, pool shoal.PoolName, address, why string) {
	err := d.cfg.Store.Update(ctx, func(tx *store.Tx) error {
		if _, err := tx.Users().Get(name); err != nil {
			return err
		}
		tx.Event(shoal.Event{Kind: shoal.ObjectUser, Name: string(name), User: name, Pool: pool, Code: "desktopRefused",
			Sentence: fmt.Sprintf("a connection from %s to a desktop of %s was refused: %s", Source(address), name, why)})
		return nil
	})
	if err != nil && shoal.KindOf(err) != shoal.KindNotFound && ctx.Err() == nil {
		d.cfg.Log.Warn("that a desktop was refused cannot be put on record", "user", name, "error", err)
	}
}

func refuse(code, format string, args ...any) error {
	return &route.Refusal{Reason: shoal.Reason{Code: code, Sentence: fmt.Sprintf(format, args...)}}
}
