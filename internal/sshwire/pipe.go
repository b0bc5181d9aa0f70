package sshwire

import (
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"
)

const (
	// quietTime is how long no output must have come before an exit status is passed on
	// although the output has not ended: something the program left behind holds it open.
	quietTime = 200 * time.Millisecond
	// drainTime is how long what a client sent last may take to be accepted by a machine
	// after the client has closed the channel.
	drainTime = 30 * time.Second
	// lastWord is how long the end of a session's output is kept back, for sshd to close the
	// channel: after the end of output nothing more could be said.
	lastWord = 50 * time.Millisecond
	// maxKept bounds what a session may ask for before it starts its program.
	maxKept      = 256
	maxKeptBytes = 256 << 10
)

// End is one end of a channel as x/crypto/ssh hands it out.
type End struct {
	Channel  ssh.Channel
	Requests <-chan *ssh.Request
}

// Open opens a channel like the one that is to be piped on a connection to the machine: on one of the client's own if
// alone is set, which another client's channels never share.
type Open func(alone bool) (End, error)

// Pipe joins a channel of a client with one of a machine.
type Pipe struct {
	front   End
	voice   voice
	session bool
	pty     atomic.Bool

	in, out, errs *flow

	mu    sync.Mutex
	back  *backEnd // nil: not opened yet
	alone bool
	open  Open
	kept  []*ssh.Request // what was asked for before the start

	inner sync.WaitGroup
	cut   atomic.Bool

	// Moved, if set before data is, is told how much went through, from the client or to her.
	Moved func(in bool, n int)

	// Greeting, if set before Run, is said when a shell or a command begins.
	Greeting string

	// Farewell, if set before Run, says why a session ended of which the machine
	// reported neither status nor signal; empty for no reason that is known.
	Farewell func() string

	turn    sync.Mutex // one request of the client's, with all that follows from it
	started bool       // guarded by turn
}

// backEnd is the machine's end, with the goroutine that passes on its requests.
type backEnd struct {
	End
	over chan struct{} // it has been closed: there will be no more requests
	done chan struct{} // and all that it said has been passed on
	off  atomic.Bool   // given up for another: nothing of it is passed on
}

func newBackEnd(e End) *backEnd {
	return &backEnd{End: e, over: make(chan struct{}), done: make(chan struct{})}
}

// NewPipe joins two open channels.
func NewPipe(front, back End) *Pipe {
	p := newPipe(front)
	p.back = newBackEnd(back)
	return p
}

// NewSessionPipe joins a client's session with one that open is asked for once the client
// has said what it wants: before that it is not known whether it may share a connection.
func NewSessionPipe(front End, open Open) *Pipe {
	p := newPipe(front)
	p.session, p.open = true, open
	return p
}

func newPipe(front End) *Pipe {
	return &Pipe{front: front, voice: voice{ch: front.Channel}, in: newFlow(), out: newFlow(), errs: newFlow()}
}

// Run pipes until both channels are closed. It returns an error only if a session could not
// be opened; the client's channel is then still open.
func (p *Pipe) Run() error {
	if !p.session {
		p.turn.Lock()
		p.start()
		p.turn.Unlock()
		p.listen(p.back)
	}
	err := p.frontRequests()
	back := p.backend()
	if back == nil {
		return err
	}
	if err != nil {
		back.off.Store(true)
		back.Channel.Close()
		return err
	}
	p.drain()
	back.Channel.Close()
	<-back.done
	p.inner.Wait()
	return nil
}

func (p *Pipe) backend() *backEnd {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.back
}

// drain waits until all that the client sent before it closed the channel has been passed on.
func (p *Pipe) drain() {
	if !p.running() {
		return
	}
	select {
	case <-p.in.done:
	case <-time.After(drainTime):
	}
}

// running reports whether data is moved. A request that may start it is waited for.
func (p *Pipe) running() bool {
	p.turn.Lock()
	defer p.turn.Unlock()
	return p.started
}

// start begins to move data both ways.
func (p *Pipe) start() {
	p.started = true
	back := p.back
	if p.Moved != nil {
		p.in.moved = func(n int) { p.Moved(true, n) }
		p.out.moved = func(n int) { p.Moved(false, n) }
	}
	p.inner.Go(func() {
		p.in.run(p.front.Channel, back.Channel)
		back.Channel.CloseWrite() // the program may go on without input
	})
	p.inner.Go(func() { p.errs.runOut(back.Channel.Stderr(), &p.voice) })
	p.inner.Go(func() {
		p.out.runOut(back.Channel, p.front.Channel)
		<-p.errs.passed
		if p.session { // the end of the channel usually follows, with something to say perhaps
			select {
			case <-back.over:
				return
			case <-time.After(lastWord):
			}
		}
		p.voice.closeWrite()
	})
}

// listen passes on the machine's requests.
func (p *Pipe) listen(back *backEnd) {
	p.inner.Go(func() {
		defer close(back.done)
		told := p.backRequests(back)
		close(back.over)
		if back.off.Load() {
			return
		}
		if p.running() {
			<-p.out.passed
			<-p.errs.passed
			if !told && p.session && p.Farewell != nil && !p.cut.Load() {
				if why := p.Farewell(); why != "" {
					p.Say(why)
				}
			}
			p.voice.closeWrite()
		}
		p.front.Channel.Close()
	})
}

// backRequests passes on the machine's requests and reports whether one told how the program ended.
func (p *Pipe) backRequests(back *backEnd) (told bool) {
	for req := range back.Requests {
		switch {
		case back.off.Load() || req.Type == "keepalive@openssh.com":
			req.Reply(false, nil) // that we answer is all it wants to know
			continue
		case req.Type == "exit-status" || req.Type == "exit-signal":
			if p.running() {
				p.settle()
			}
			if p.cut.Load() {
				continue
			}
			told = true
		}
		ok, err := p.front.Channel.SendRequest(req.Type, req.WantReply, req.Payload)
		req.Reply(ok && err == nil, nil)
	}
	return told
}

// settle waits until all output has been passed on: it has ended, or nothing has
// come for quietTime.
func (p *Pipe) settle() {
	quiet := time.NewTimer(quietTime)
	defer quiet.Stop()
	_, outCount := p.out.waiting()
	_, errCount := p.errs.waiting()
	for !p.out.passedAll() || !p.errs.passedAll() {
		select {
		case <-p.rest():
			continue
		case <-quiet.C:
		}
		outIdle, o := p.out.waiting()
		errIdle, e := p.errs.waiting()
		if outIdle && errIdle && o == outCount && e == errCount {
			return
		}
		outCount, errCount = o, e
		quiet.Reset(quietTime)
	}
}

// rest returns a channel that is closed when a stream of output that has not ended yet does.
func (p *Pipe) rest() <-chan struct{} {
	if p.out.passedAll() {
		return p.errs.passed
	}
	return p.out.passed
}

// frontRequests passes on the client's requests until it closes the channel.
func (p *Pipe) frontRequests() error {
	for req := range p.front.Requests {
		if err := p.frontRequest(req); err != nil {
			return err
		}
	}
	return nil
}

func (p *Pipe) frontRequest(req *ssh.Request) error {
	p.turn.Lock()
	defer p.turn.Unlock()
	ok, err := p.ask(req)
	if err != nil {
		return err // unanswered: the caller says why on this channel, which must be open for that
	}
	req.Reply(ok, nil)
	// The program's output must not overtake the word that it was started, nor its
	// input the word to start it, for which sshd would throw it away.
	if p.session && !p.started && starts(req.Type) && ok {
		if p.Greeting != "" && req.Type != "subsystem" {
			p.Say(p.Greeting)
		}
		p.start()
		p.kept, p.open = nil, nil
	}
	return nil
}

// ask passes a request on and returns the machine's answer.
func (p *Pipe) ask(req *ssh.Request) (bool, error) {
	switch {
	case NeedsOwn(req.Type) && !p.alone && (!p.session || p.started):
		return false, nil // too late: others may be using the connection
	case p.session && !p.started:
		if ok, err := p.prepare(req); !ok || err != nil {
			return false, err
		}
	}
	if p.back == nil {
		return false, nil
	}
	if req.Type == "pty-req" {
		p.pty.Store(true)
	}
	ok, err := p.back.Channel.SendRequest(req.Type, req.WantReply, req.Payload)
	return err == nil && (ok || !req.WantReply), nil
}

// prepare sees to it that there is a channel to the machine, on a connection of the client's own if the
// request needs that. What was asked for earlier is asked again there.
func (p *Pipe) prepare(req *ssh.Request) (bool, error) {
	size := 0
	for _, k := range p.kept {
		size += len(k.Payload)
	}
	if len(p.kept) >= maxKept || size+len(req.Payload) > maxKeptBytes {
		return false, nil
	}
	alone := p.alone || NeedsOwn(req.Type)
	if p.back == nil || alone != p.alone {
		end, err := p.open(alone)
		if err != nil && p.back != nil {
			return false, nil // it goes on without what it asked for
		}
		if err != nil {
			return false, err
		}
		p.replace(end, alone)
	}
	p.kept = append(p.kept, req)
	return true, nil
}

func (p *Pipe) replace(end End, alone bool) {
	old, back := p.back, newBackEnd(end)
	p.listen(back)
	for _, k := range p.kept {
		back.Channel.SendRequest(k.Type, k.WantReply, k.Payload)
	}
	if old != nil {
		old.off.Store(true)
		old.Channel.Close()
	}
	p.mu.Lock()
	p.back, p.alone = back, alone
	p.mu.Unlock()
}

func starts(request string) bool {
	return request == "shell" || request == "exec" || request == "subsystem"
}

// NeedsOwn reports whether a request makes the machine open channels towards the client, or
// gives programs there the use of something of the client's: it must have a connection of its own.
func NeedsOwn(request string) bool {
	switch request {
	case "auth-agent-req@openssh.com", "x11-req", "tcpip-forward", "streamlocal-forward@openssh.com":
		return true
	}
	return false
}

// Session reports whether the channel is a session, where there is somebody to tell something.
func (p *Pipe) Session() bool { return p.session }

// Say tells the person at the client's end something, on standard error. It may block
// while that end does not read.
func (p *Pipe) Say(text string) {
	if !p.session {
		return
	}
	end := "\n"
	if p.pty.Load() {
		end = "\r\n"
	}
	p.voice.Write([]byte(strings.ReplaceAll(text, "\n", end) + end))
}

// Cut ends both channels, saying why. The client sees no exit status, as when a
// connection is lost.
func (p *Pipe) Cut(why string) {
	p.cut.Store(true)
	if why != "" {
		p.Say(why)
	}
	p.front.Channel.Close()
	if back := p.backend(); back != nil {
		back.Channel.Close()
	}
}
