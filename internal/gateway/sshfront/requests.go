package sshfront

import (
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/shoal-pool/shoal/internal/sshwire"
)

// exitRefused is the exit status of everything when there is no place: EX_TEMPFAIL of sysexits.h.
const exitRefused = 75

// refusedTime is how long a client that was refused may stay without opening a session in which it can be told why.
const refusedTime = 10 * time.Second

// requests answers what the client asks of the connection as a whole, one by one, for
// answers have no other sign of what they answer than their order.
func (v *visit) requests(reqs <-chan *ssh.Request) {
	if v.refusal != "" {
		defer time.AfterFunc(refusedTime, v.cancel).Stop()
	}
	for req := range reqs {
		switch {
		case req.Type == "no-more-sessions@openssh.com":
			select {
			case v.quiet <- struct{}{}:
			default:
			}
			req.Reply(true, nil)
		case v.refusal != "":
			req.Reply(false, nil)
		case sshwire.NeedsOwn(req.Type):
			ok, payload := v.ask(req, true)
			req.Reply(ok, payload)
		case strings.HasPrefix(req.Type, "cancel-"):
			ok, payload := v.ask(req, false)
			req.Reply(ok, payload)
		default: // keepalive@openssh.com and what nobody knows
			req.Reply(false, nil)
		}
	}
}

// ask puts a request to the machine, on a link of the visit's own.
func (v *visit) ask(req *ssh.Request, begin bool) (bool, []byte) {
	v.mu.Lock()
	l := v.own
	v.mu.Unlock()
	if l == nil && begin {
		var err error
		if l, err = v.linkFor(true); err != nil {
			v.front.log.Debug("a forward was refused", "user", v.name.User, "machine", v.target.Machine, "error", err)
			return false, nil
		}
	}
	if l == nil {
		return false, nil
	}
	ok, payload, err := l.conn.SendRequest(req.Type, req.WantReply, req.Payload)
	return ok && err == nil, payload
}

// refuse tells a client that has no place why, in a way that programs understand too.
func (v *visit) refuse(nc ssh.NewChannel) {
	if nc.ChannelType() != "session" {
		nc.Reject(ssh.Prohibited, v.refusal)
		return
	}
	ch, reqs, err := nc.Accept()
	if err != nil {
		return
	}
	defer ch.Close()
	end := "\n"
	for req := range reqs {
		switch req.Type {
		case "pty-req":
			end = "\r\n"
			req.Reply(true, nil)
		case "shell", "exec", "subsystem":
			req.Reply(true, nil)
			ch.Stderr().Write([]byte("shoal: " + v.refusal + end))
			ch.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{exitRefused}))
			ch.CloseWrite()
			ch.Close()
		case "env":
			req.Reply(true, nil)
		default:
			req.Reply(false, nil)
		}
	}
}
