package route

import (
	"time"

	"github.com/shoal-pool/shoal"
)

// Request is a login that looks for a machine. Who asks has been authenticated.
type Request struct {
	User shoal.UserName
	Pool shoal.PoolName // empty: the user's default pool
	// New asks for a fresh placement although a session exists ("alice+lab/new").
	New bool
	// Machine asks for one machine ("alice+lab/m-7f3kq2"); empty: any.
	Machine shoal.MachineID
	// Kind is the kind of part that comes: ssh, jupyter, rdp. Empty reads as ssh.
	Kind    string
	Source  string    // where the connection comes from, for people
	Arrived time.Time // orders the waiting; zero: now
	// Avoid is a machine that did not answer: not again, though a session of hers sits there.
	Avoid shoal.MachineID
}

// Target is where a login goes.
type Target struct {
	Session   shoal.SessionID
	User      shoal.UserName
	Pool      shoal.PoolName
	Machine   shoal.MachineID
	Address   string // host:port of the machine's sshd
	Principal string // what her certificate must name there: "alice@lab"
	// Used is called by the front end when so much has gone through that somebody must have done something, once a minute at
	// most. It may be nil.
	Used func()
	// Done is closed when the session ends while parts of it are open: its machine is gone, or
	// somebody ended it. The front end then closes what it has open.
	Done <-chan struct{}
}

// Principal is what a certificate for a user in a pool names.
func Principal(user shoal.UserName, pool shoal.PoolName) string {
	return string(user) + "@" + string(pool)
}

// Refusal is an error: the login cannot be served and waiting does not help.
type Refusal struct{ Reason shoal.Reason }

func (r *Refusal) Error() string { return r.Reason.Sentence }
