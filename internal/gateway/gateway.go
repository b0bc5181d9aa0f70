package gateway

import (
	"context"
	"net"

	"golang.org/x/crypto/ssh"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/route"
)

// Dial connects to an address of a machine.
type Dial func(ctx context.Context, machine shoal.MachineID, address string) (net.Conn, error)

// Directory says who people are. A user that does not exist and one that is disabled must
// look like one who offered the wrong key or password, and cost the same time.
type Directory interface {
	// User returns the user with all her groups.
	User(ctx context.Context, name shoal.UserName) (shoal.User, bool)
	// CheckKey reports whether the user may log in with a key, given that she proves to have it.
	CheckKey(ctx context.Context, name shoal.UserName, key ssh.PublicKey) bool
	// CheckPassword may wait, to slow down guessers. Source is the address of the client.
	CheckPassword(ctx context.Context, name shoal.UserName, password, source string) error
}

// Router says where logins go. Part names one connection of a session.
type Router interface {
	// Login blocks until a machine is ready for the user, calling progress with sentences for
	// people meanwhile. The end of ctx withdraws the demand. It returns a *route.Refusal when waiting does not help.
	// Every part that was given a target is Closed.
	Login(ctx context.Context, r route.Request, part string, progress func(string)) (route.Target, error)
	// Closed says that a part has gone.
	Closed(session shoal.SessionID, part string)
	// Suspect says that a machine does not answer: its users are placed elsewhere.
	Suspect(machine shoal.MachineID)
}

// Environ is what a login finds beside what its machine gives it.
type Environ struct {
	Vars  map[string]string
	Notes []string // what the person is told when a shell or a command of hers begins
}

// Ready reports whether the machine has something to make ready for it.
func (e Environ) Ready() bool { return len(e.Vars)+len(e.Notes) > 0 }
