package sshfront

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/shoal-pool/shoal/internal/gateway"
	"github.com/shoal-pool/shoal/internal/route"
	"github.com/shoal-pool/shoal/internal/sshwire"
)

// visit is one client's connection.
type visit struct {
	front  *Front
	base   context.Context // ends when the gateway does
	ctx    context.Context // ends when the client goes
	cancel context.CancelFunc
	source net.Addr
	part   string

	wire  *sshwire.Conn
	guest *gateway.Guest
	early ssh.ServerPreAuthConn // while it authenticates
	wrong int                   // passwords
	// shownOut: it had to make room for others
	shownOut atomic.Bool
	conn     *ssh.ServerConn

	name       gateway.Name
	credential string
	stamp      string
	counted    bool
	seated     bool
	target     route.Target
	environ    gateway.Environ
	refusal    string // why there is no target

	quiet chan struct{} // sent to when the client wants no more sessions

	owning sync.Mutex // one attempt to get a link of its own at a time
	mu     sync.Mutex
	link   *link
	own    *link
	open   int
	pipes  map[*sshwire.Pipe]*link
	left   bool

	traffic traffic

	work sync.WaitGroup // channels
}

// drainTime is how long what a client sent last may take to reach its program.
const drainTime = 30 * time.Second

// afterNews is how long a visit whose session has ended waits for a better reason than that.
const afterNews = 300 * time.Millisecond

// partingTime is how long a client may take to hear why its connection ends.
const partingTime = 2 * time.Second

func (v *visit) serve(raw net.Conn) {
	id := make([]byte, 6)
	rand.Read(id) // never fails since Go 1.24
	v.part = "ssh-" + hex.EncodeToString(id)
	v.quiet = make(chan struct{}, 1)
	v.guest = v.front.door.Enter(v.ctx, gateway.Source(v.source), func() { v.showOut(raw) })
	if v.guest == nil {
		v.front.door.TurnAway(v.ctx)
		return
	}
	defer v.guest.Leave()
	defer v.end()
	channels, requests, err := v.greet(raw)
	if err != nil {
		v.front.log.Debug("a connection did not log in", "source", v.source, "error", err)
		return
	}
	v.guest.Leave()
	v.work.Go(func() {
		defer v.front.rescue(raw)
		v.requests(requests)
	})
	v.channelLoop(channels)
}

// showOut ends the visit to make room. Its passwords are not looked at any more.
func (v *visit) showOut(raw net.Conn) {
	v.shownOut.Store(true)
	v.front.door.TurnAway(v.ctx)
	raw.Close()
}

// end gives back what the visit holds.
func (v *visit) end() {
	v.cancel()
	if v.counted {
		v.front.uncount(v.name.User)
	}
	if v.seated {
		v.front.cfg.Router.Closed(v.target.Session, v.part)
	}
	done := make(chan struct{})
	go func() {
		v.work.Wait()
		close(done)
	}()
	select { // what the client sent last is on its way
	case <-done:
	case <-time.After(drainTime):
	case <-v.base.Done():
	}
	v.mu.Lock()
	link, own := v.link, v.own
	v.left = true
	v.mu.Unlock()
	if link == nil {
		return
	}
	v.front.links.leave(link, v)
	if own != nil && own != link {
		v.front.links.leave(own, v)
	}
}

// channelLoop takes the channels that the client opens until it has gone, or its session has ended.
func (v *visit) channelLoop(channels <-chan ssh.NewChannel) {
	sessions, ended := true, v.target.Done
	for {
		select {
		case <-ended:
			ended = nil
			v.work.Go(v.ended)
		case nc, ok := <-channels:
			if !ok {
				return
			}
			v.take(nc, sessions)
		case <-v.quiet:
			// Channels and requests come to us on two ways. Sessions that were asked for
			// before the word against more of them are waiting already.
			for more := true; more; {
				select {
				case nc, ok := <-channels:
					if !ok {
						return
					}
					v.take(nc, true)
				default:
					more = false
				}
			}
			sessions = false
		}
	}
}

func (v *visit) take(nc ssh.NewChannel, sessions bool) {
	if nc.ChannelType() == "session" && !sessions {
		nc.Reject(ssh.Prohibited, "no more sessions were wanted on this connection")
		return
	}
	v.mu.Lock()
	full := v.open >= v.front.cfg.Limits.Channels
	if !full {
		v.open++
	}
	v.mu.Unlock()
	if full {
		nc.Reject(ssh.ResourceShortage, "too many channels are open on this connection")
		return
	}
	if !v.front.countChannel(v.name.User) {
		v.mu.Lock()
		v.open--
		v.mu.Unlock()
		nc.Reject(ssh.ResourceShortage, "too many channels are open on your connections")
		return
	}
	v.work.Go(func() {
		defer v.front.rescue(v.conn)
		defer func() {
			v.front.uncountChannel(v.name.User)
			v.mu.Lock()
			v.open--
			v.mu.Unlock()
		}()
		switch {
		case v.refusal != "":
			v.refuse(nc)
		case nc.ChannelType() == "session":
			v.session(nc)
		default:
			v.stream(nc)
		}
	})
}

// arrived reports whether the visit has come to a machine.
func (v *visit) arrived() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.link != nil
}

// channels returns how many channels the visit has open.
func (v *visit) channels() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.open
}

func (v *visit) session(nc ssh.NewChannel) {
	ch, reqs, err := nc.Accept()
	if err != nil {
		return
	}
	var pipe *sshwire.Pipe
	extra := nc.ExtraData()
	pipe = sshwire.NewSessionPipe(sshwire.End{Channel: ch, Requests: reqs}, func(alone bool) (sshwire.End, error) {
		l, err := v.linkFor(alone)
		if err != nil {
			return sshwire.End{}, err
		}
		back, backReqs, err := l.conn.OpenChannel("session", extra)
		if err != nil {
			return sshwire.End{}, err
		}
		for _, name := range slices.Sorted(maps.Keys(v.environ.Vars)) { // what the client asks for comes after, and counts
			_, _ = back.SendRequest("env", false, ssh.Marshal(struct{ Name, Value string }{name, v.environ.Vars[name]}))
		}
		v.attach(pipe, l)
		return sshwire.End{Channel: back, Requests: backReqs}, nil
	})
	pipe.Moved = v.passed
	pipe.Greeting = strings.Join(v.environ.Notes, "\n")
	pipe.Farewell = func() string { return v.linkOf(pipe).farewell() }
	defer v.detach(pipe)
	if err := pipe.Run(); err != nil {
		pipe.Cut(fmt.Sprintf("shoal: cannot open a session on machine %s: %v", v.target.Machine, err))
		for range reqs { // until the client agrees that it is closed
		}
	}
}

// stream pipes a channel that is no session: a forwarded connection.
func (v *visit) stream(nc ssh.NewChannel) {
	l, err := v.linkFor(false)
	if err != nil {
		nc.Reject(ssh.ConnectionFailed, err.Error())
		return
	}
	back, backReqs, err := l.conn.OpenChannel(nc.ChannelType(), nc.ExtraData())
	if err != nil {
		reject(nc, err)
		return
	}
	front, frontReqs, err := nc.Accept()
	if err != nil {
		back.Close()
		ssh.DiscardRequests(backReqs)
		return
	}
	v.join(l, sshwire.NewPipe(sshwire.End{Channel: front, Requests: frontReqs}, sshwire.End{Channel: back, Requests: backReqs}))
}

// fromMachine pipes a channel that the machine opens towards the client.
func (v *visit) fromMachine(l *link, nc ssh.NewChannel) {
	defer v.front.rescue(v.conn)
	front, frontReqs, err := v.conn.OpenChannel(nc.ChannelType(), nc.ExtraData())
	if err != nil {
		reject(nc, err)
		return
	}
	back, backReqs, err := nc.Accept()
	if err != nil {
		front.Close()
		ssh.DiscardRequests(frontReqs)
		return
	}
	v.join(l, sshwire.NewPipe(sshwire.End{Channel: front, Requests: frontReqs}, sshwire.End{Channel: back, Requests: backReqs}))
}

func (v *visit) join(l *link, p *sshwire.Pipe) {
	p.Moved = v.passed
	v.attach(p, l)
	defer v.detach(p)
	p.Run()
}

// reject hands on the other side's refusal to open a channel.
func reject(nc ssh.NewChannel, err error) {
	if refused, ok := errors.AsType[*ssh.OpenChannelError](err); ok {
		nc.Reject(refused.Reason, refused.Message)
		return
	}
	nc.Reject(ssh.ConnectionFailed, err.Error())
}

func (v *visit) attach(p *sshwire.Pipe, l *link) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.pipes[p] = l
}

func (v *visit) detach(p *sshwire.Pipe) {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.pipes, p)
}

func (v *visit) linkOf(p *sshwire.Pipe) *link {
	v.mu.Lock()
	defer v.mu.Unlock()
	if l := v.pipes[p]; l != nil {
		return l
	}
	return v.link
}

// on returns the visit's pipes that go through a link; all of them if it is nil.
func (v *visit) on(l *link) []*sshwire.Pipe {
	v.mu.Lock()
	defer v.mu.Unlock()
	var list []*sshwire.Pipe
	for p, through := range v.pipes {
		if l == nil || through == l {
			list = append(list, p)
		}
	}
	return list
}

// linkFor returns the link for a new channel: once the visit has one of its own, that.
func (v *visit) linkFor(alone bool) (*link, error) {
	v.mu.Lock()
	shared, own := v.link, v.own
	v.mu.Unlock()
	if own != nil || !alone {
		if own != nil {
			return own, nil
		}
		return shared, nil
	}
	v.owning.Lock()
	defer v.owning.Unlock()
	v.mu.Lock()
	own = v.own
	v.mu.Unlock()
	if own != nil {
		return own, nil
	}
	own, err := v.front.links.own(v.ctx, v, shared, v.target)
	if err != nil {
		return nil, err
	}
	v.mu.Lock()
	late := v.left
	v.own = own
	v.mu.Unlock()
	if late {
		v.front.links.leave(own, v)
		return nil, context.Canceled
	}
	return own, nil
}

// say tells something to everybody at a session that goes through a link.
func (v *visit) say(l *link, text string) {
	for _, p := range v.on(l) {
		go p.Say(text)
	}
}

// lost ends the visit because a link it used has ended.
func (v *visit) lost(l *link, why string, cut bool) {
	pipes := v.on(l)
	v.mu.Lock()
	needed := v.own == l || v.link == l && (v.own == nil || len(pipes) > 0)
	v.mu.Unlock()
	if !needed {
		return
	}
	var parting sync.WaitGroup
	for _, p := range pipes {
		if cut {
			parting.Go(func() { p.Cut(why) })
		}
	}
	heard := make(chan struct{})
	go func() {
		parting.Wait()
		for len(v.on(l)) > 0 && v.ctx.Err() == nil { // the rest of what it said is being passed on
			time.Sleep(20 * time.Millisecond)
		}
		close(heard)
	}()
	limit := partingTime
	if !cut {
		limit = drainTime
	}
	select {
	case <-heard:
	case <-time.After(limit):
	}
	v.hangUp()
}

// ended ends the visit after its session: somebody ended it, or its machine is gone. Who brings
// the news of a machine says so itself, and a little later at most.
func (v *visit) ended() {
	select {
	case <-time.After(afterNews):
		v.leave("shoal: your session was ended")
	case <-v.ctx.Done():
	}
}

// leave ends the visit for a reason of ours.
func (v *visit) leave(why string) {
	var parting sync.WaitGroup
	for _, p := range v.on(nil) {
		parting.Go(func() { p.Cut(why) })
	}
	heard := make(chan struct{})
	go func() { parting.Wait(); close(heard) }()
	select {
	case <-heard:
	case <-time.After(partingTime):
	}
	v.hangUp()
}

func (v *visit) hangUp() {
	// Closing at once would throw away what the client has not fetched yet.
	time.AfterFunc(100*time.Millisecond, v.cancel)
}
