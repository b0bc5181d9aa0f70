package pump

import (
	"errors"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoal-pool/shoal/internal/nonblock"
)

// pump is one thread, while it has something to do.
type pump struct {
	patience time.Duration

	mu      sync.Mutex // while one batch of events is worked off; above the pairs'
	running bool
	epoll   int
	count   int     // of pairs
	timed   bool    // somebody is waited for
	at      []*side // by file descriptor
	more    []*side // from which there is more to be read
	over    []func()
	now     time.Time
	swept   time.Time
	buf     []byte
}

func (p *pump) add(pair *Pair) {
	defer p.tell()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.count++
	if !p.running {
		fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
		if err != nil { // there are too many files
			p.end(pair)
			return
		}
		p.epoll, p.running, p.swept = fd, true, time.Now()
		if p.buf == nil {
			p.buf = make([]byte, bufferSize)
		}
		go p.run()
	}
	now := time.Now()
	for i := range pair.sides {
		s := &pair.sides[i]
		if s.fd >= len(p.at) {
			p.at = append(p.at, make([]*side, s.fd+64-len(p.at))...)
		}
		p.at[s.fd], s.since = s, now
		p.timed = p.timed || len(s.out) > 0
	}
	for i := range pair.sides {
		fd := pair.sides[i].fd
		if unix.EpollCtl(p.epoll, unix.EPOLL_CTL_ADD, fd, interest(fd)) != nil { // more are watched than may be
			p.end(pair)
			return
		}
	}
}

// tell calls who waits for the end of pairs.
func (p *pump) tell() {
	p.mu.Lock()
	over := p.over
	p.over = nil
	p.mu.Unlock()
	for _, ended := range over {
		ended()
	}
}

func (p *pump) run() {
	var events [128]unix.EpollEvent
	for more := true; more; {
		n, err := nonblock.Wait(p.epoll, events[:], p.wait())
		if err != nil && !errors.Is(err, unix.EINTR) {
			panic("waiting for sockets: " + err.Error()) // what else it can say is that this program is wrong
		}
		more = p.work(events[:max(n, 0)])
		p.tell()
	}
}

// wait is how long to wait for events, in milliseconds.
func (p *pump) wait() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case len(p.more) > 0:
		return 0
	case p.timed, p.count == 0: // the next pair may be about to come
		return int(sweepEvery / time.Millisecond)
	}
	return -1
}

// work works a batch of events off and reports whether there is anything to wait for.
func (p *pump) work(events []unix.EpollEvent) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.now = time.Now()
	more := p.more
	p.more = nil
	for _, s := range more {
		p.move(s)
	}
	for _, e := range events {
		if s := p.at[e.Fd]; s != nil {
			p.ready(s, e.Events)
		}
	}
	if p.timed && p.now.Sub(p.swept) >= sweepEvery {
		p.swept = p.now
		p.sweep()
	}
	if p.count == 0 && len(events) == 0 {
		_ = unix.Close(p.epoll) // nothing is in it
		p.running = false
	}
	return p.running
}

// ready is told what is the matter with a socket.
func (p *pump) ready(s *side, events uint32) {
	if s.pair.closing.Load() {
		p.end(s.pair)
		return
	}
	if events&(unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		s.hup = true
	}
	if events&unix.EPOLLIN != 0 || s.hup {
		s.readable = true
	}
	if len(s.out) > 0 && events&(unix.EPOLLOUT|unix.EPOLLHUP|unix.EPOLLERR) != 0 && !s.pair.held {
		p.flush(s)
	}
	p.move(s)
}

// move passes on what comes from a socket, as long as the other takes it.
func (p *pump) move(s *side) {
	for turn := 0; s.readable && !s.eof && !s.pair.held && !s.pair.gone && len(s.peer.out) == 0; turn++ {
		if turn == turns {
			p.more = append(p.more, s)
			return
		}
		n, err := nonblock.Read(s.fd, p.buf)
		switch {
		case n > 0:
			// All was read, and more would be told of; but not the end, if it was there already.
			s.readable = n == len(p.buf) || s.hup
			p.pass(s, p.buf[:n])
		case err == nil:
			s.eof = true
			p.shut(s.peer)
		case errors.Is(err, unix.EAGAIN):
			s.readable = false
		case !errors.Is(err, unix.EINTR):
			p.end(s.pair)
		}
	}
}

func (p *pump) pass(s *side, b []byte) {
	pair, to := s.pair, s.peer
	if question := pair.see(p.now, b); question != nil {
		pair.held = true
		p.keep(to, b)
		go p.ask(pair, question)
		return
	}
	for len(b) > 0 {
		n, err := nonblock.Write(to.fd, b)
		switch {
		case err == nil:
			b = b[n:]
		case errors.Is(err, unix.EAGAIN):
			p.keep(to, b)
			return
		case !errors.Is(err, unix.EINTR):
			p.end(pair)
			return
		}
	}
}

// keep keeps what a socket does not take yet.
func (p *pump) keep(to *side, b []byte) {
	to.out, to.since = slices.Clone(b), p.now
	p.timed = true
}

// flush writes what was kept.
func (p *pump) flush(to *side) {
	for len(to.out) > 0 {
		n, err := nonblock.Write(to.fd, to.out)
		switch {
		case err == nil:
			to.out, to.since = to.out[n:], p.now
		case errors.Is(err, unix.EAGAIN):
			return
		case !errors.Is(err, unix.EINTR):
			p.end(to.pair)
			return
		}
	}
	to.out = nil
	if to.peer.eof {
		p.shut(to)
	}
	p.move(to.peer)
}

// shut tells an end that nothing more comes, once it has taken what came, and gives the other direction a moment.
func (p *pump) shut(to *side) {
	pair := to.pair
	if len(to.out) > 0 || to.shut {
		return
	}
	to.shut = true
	if to.peer.shut || unix.Shutdown(to.fd, unix.SHUT_WR) != nil {
		p.end(pair)
		return
	}
	pair.until = p.now.Add(LingerTime)
	p.timed = true
}

// end closes both connections.
func (p *pump) end(pair *Pair) {
	pair.mu.Lock()
	defer pair.mu.Unlock()
	if pair.gone {
		return
	}
	pair.gone = true
	for i := range pair.sides {
		s := &pair.sides[i]
		if s.fd < len(p.at) && p.at[s.fd] == s {
			p.at[s.fd] = nil
		}
		_ = unix.Close(s.fd) // whoever is there may have gone
		s.out = nil
	}
	p.count--
	if !pair.held { // else ask tells it
		p.over = append(p.over, pair.ended)
	}
}

// ask asks whether a pair may go on.
func (p *pump) ask(pair *Pair, question func() bool) {
	defer p.tell()
	may := question()
	if !may {
		pair.Close()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	pair.held = false
	if pair.gone { // meanwhile, or just now
		p.over = append(p.over, pair.ended)
	} else if may {
		pair.again()
	}
}

// sweep gives up who has been waited for too long.
func (p *pump) sweep() {
	p.timed = false
	for _, s := range p.at {
		if s == nil {
			continue
		}
		pair := s.pair
		if !pair.until.IsZero() && !p.now.Before(pair.until) || len(s.out) > 0 && !pair.held && p.now.Sub(s.since) >= p.patience {
			p.end(pair)
			continue
		}
		p.timed = p.timed || len(s.out) > 0 || !pair.until.IsZero()
	}
}
