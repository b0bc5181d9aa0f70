package sshfront

import (
	"context"
	"fmt"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/sshwire"
)

// share is what visits must have in common to use one link.
type share struct {
	user       shoal.UserName
	credential string
	pool       shoal.PoolName
	machine    shoal.MachineID
	address    string
	stamp      string // changes with the user's groups: sshd looked at them when the link was made
}

// link is a connection to the sshd of a machine, or the attempt to make one.
type link struct {
	share
	set    *links
	ready  chan struct{} // closed when the attempt is over
	err    error         // of the attempt; read after ready
	conn   ssh.Conn      // like pulse: set before ready
	pulse  *sshwire.Pulse
	cancel context.CancelCauseFunc // ends the attempt
	gone   chan struct{}           // closed when the connection has ended
	once   sync.Once

	mu    sync.Mutex
	cause error  // of its end
	why   string // what a person is told of it

	// Guarded by links.mu:
	visits  map[*visit]struct{}
	owner   *visit // the only one that may use it; nil: shared
	retired bool
	idle    *time.Timer
}

// idleTime is how long a shared link without a visit is kept: the next one costs less.
const idleTime = 10 * time.Minute

// maxOnLink is how many channels a link may carry before visits get another one: sshd allows 1000.
const maxOnLink = 500

// adopt takes the connection that was made, unless the link was ended meanwhile.
func (l *link) adopt(conn ssh.Conn, wire *sshwire.Conn) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cause != nil {
		conn.Close()
		return l.cause
	}
	l.conn = conn
	l.pulse = sshwire.NewPulse(wire, l.probe, l.stalled, l.dead)
	return nil
}

// run serves the machine's side of a link until the connection ends.
func (l *link) run(channels <-chan ssh.NewChannel, requests <-chan *ssh.Request) {
	for channels != nil || requests != nil {
		select {
		case req, ok := <-requests:
			if !ok {
				requests = nil
				continue
			}
			// hostkeys-00@openssh.com would have clients remember the machine's keys for the
			// gateway; keepalive@openssh.com only wants an answer.
			req.Reply(false, nil)
		case nc, ok := <-channels:
			if !ok {
				channels = nil
				continue
			}
			owner := l.set.ownerOf(l)
			if owner == nil {
				nc.Reject(ssh.Prohibited, "nobody asked for it")
				continue
			}
			go owner.fromMachine(l, nc)
		}
	}
	l.end(errLost, fmt.Sprintf("shoal: the connection to machine %s was lost", l.machine))
}

// probe asks the machine for a sign of life.
func (l *link) probe() { l.conn.SendRequest("keepalive@openssh.com", true, nil) }

// stalled tells those who use the link that the machine has stopped answering, or answers again.
func (l *link) stalled(now bool) {
	for _, v := range l.set.visitsOf(l) {
		text := fmt.Sprintf("shoal: machine %s answers again", l.machine)
		if now {
			text = fmt.Sprintf("shoal: machine %s has not answered for %d s; log in as %s for another one",
				l.machine, int(sshwire.StallAfter.Seconds()), v.name.Fresh())
		}
		v.say(l, text)
	}
}

// dead is called when the machine has not answered for too long.
func (l *link) dead() {
	l.set.cfg.Log.Warn("a machine does not answer", "machine", l.machine, "user", l.user)
	l.set.cfg.Router.Suspect(l.machine)
	l.end(errSilent, fmt.Sprintf("shoal: machine %s has not answered for %d s; connect again to be placed on another one",
		l.machine, int(sshwire.DeadAfter.Seconds())))
}

// end ends the link and, telling why, all that uses it. What a machine said before a
// connection was lost is still passed on; from one that is silent or gone nothing more is expected.
func (l *link) end(cause error, why string) {
	l.once.Do(func() {
		visits := l.set.drop(l)
		l.mu.Lock()
		l.cause, l.why = cause, why
		conn, pulse := l.conn, l.pulse
		l.mu.Unlock()
		close(l.gone)
		for _, v := range visits {
			go v.lost(l, why, cause != errLost)
		}
		l.cancel(cause)
		if conn != nil {
			pulse.Stop()
			conn.Close()
		}
	})
}

// farewell returns what to tell a user whose program ended without the machine saying how.
func (l *link) farewell() string {
	select {
	case <-l.gone:
	case <-time.After(200 * time.Millisecond): // its channels end a moment before the link does
		return ""
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.why
}

// reason returns why the link has ended.
func (l *link) reason() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cause
}

// hasEnded reports whether the link is of no more use.
func (l *link) hasEnded() bool {
	select {
	case <-l.gone:
		return true
	default:
		return false
	}
}
