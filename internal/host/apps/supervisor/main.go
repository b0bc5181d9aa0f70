// Package supervisor runs one user's web app and is the way in to it. See package apps.
package supervisor

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/host/apps"
	"github.com/shoal-pool/shoal/internal/host/cgroups"
)

// Files that the keeper hands over.
const (
	socketFD = 3
	lockFD   = 4 // locked, and so for as long as this process lives
)

// maxOrder bounds what is read on standard input.
const maxOrder = 1 << 20

// Main is `shoal-agent app supervise DIR ID`. The order is its standard input.
func Main(args []string) int {
	runtime.GOMAXPROCS(min(2, runtime.NumCPU()))
	debug.SetGCPercent(50) // the machine is for its users
	if len(args) != 3 || args[0] != "supervise" || !apps.ValidID(shoal.AppID(args[2])) {
		fmt.Fprintln(os.Stderr, "shoal-agent app is started by shoal-agent run")
		return 2
	}
	unix.Umask(0o022)
	unix.CloseOnExec(lockFD)
	var order apps.Order
	if err := json.NewDecoder(&limited{os.Stdin, maxOrder}).Decode(&order); err != nil {
		fmt.Fprintln(os.Stderr, "shoal-agent app: cannot read the order:", err)
		return 2
	}
	_ = os.Stdin.Close()
	file := os.NewFile(socketFD, "socket")
	l, err := net.FileListener(file)
	_ = file.Close()
	if err != nil {
		fmt.Fprintln(os.Stderr, "shoal-agent app: cannot listen:", err)
		return 2
	}
	s := newSupervisor(args[1], order)
	go s.listen(l)
	end := s.run()
	if err := save(filepath.Join(args[1], args[2]+apps.EndFile), end); err != nil {
		fmt.Fprintln(os.Stderr, "shoal-agent app: the end of", args[2], "is not kept:", err)
	}
	s.told(end)
	return 0
}

// limited fails after so many bytes: what is longer is no order.
type limited struct {
	f    *os.File
	left int
}

func (l *limited) Read(p []byte) (int, error) {
	if l.left <= 0 {
		return 0, errors.New("it is too long")
	}
	n, err := l.f.Read(p[:min(len(p), l.left)])
	l.left -= n
	return n, err
}

// save writes the last state whole or not at all.
func save(path string, s apps.State) error {
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	if err := os.WriteFile(path+".new", b, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// supervisor is one app. run has it; what others touch is behind the lock.
type supervisor struct {
	dir   string
	o     apps.Order
	group cgroups.Group
	log   *ring
	door  *door
	stop  chan struct{} // closed when the app is to end

	mu      sync.Mutex
	state   apps.State
	stopped bool
	doors   map[netip.Addr]bool
	changed chan struct{} // closed at each change of state
	over    bool          // no more keepers: the end is on disk
	keepers sync.WaitGroup
}

func newSupervisor(dir string, o apps.Order) *supervisor {
	s := &supervisor{dir: dir, o: o, log: newRing(logSize), stop: make(chan struct{}), changed: make(chan struct{})}
	s.state = apps.State{User: o.Order.User, UID: o.Person.UID}
	s.state.Report.ID, s.state.Report.State = o.Order.ID, shoal.AppStarting
	s.admit(o.Doors)
	return s
}

// tell changes the state, and has keepers know.
func (s *supervisor) tell(f func(*apps.State)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.state
	f(&s.state)
	if s.state == before {
		return
	}
	close(s.changed)
	s.changed = make(chan struct{})
}

// admit says from where the gateway comes.
func (s *supervisor) admit(doors []string) {
	all := map[netip.Addr]bool{}
	for _, d := range doors {
		if a, err := netip.ParseAddr(d); err == nil {
			all[a.Unmap()] = true
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.doors = all
}

func (s *supervisor) admits(a netip.Addr) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.doors[a.Unmap()]
}

// end asks run to end the app.
func (s *supervisor) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.stopped {
		s.stopped = true
		close(s.stop)
	}
}

func (s *supervisor) ending() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stopped
}

// listen serves keepers, of whom there is one at a time, until the process ends.
func (s *supervisor) listen(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			time.Sleep(time.Second) // too many files, for a moment
			continue
		}
		s.mu.Lock()
		if s.over {
			_ = c.Close()
		} else {
			s.keepers.Go(func() { s.serve(c) })
		}
		s.mu.Unlock()
	}
}

// keeperTime is how long a keeper may take to read a line.
const keeperTime = 10 * time.Second

// serve tells a keeper each state, and does what it asks.
func (s *supervisor) serve(c net.Conn) {
	defer c.Close()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		defer cancel()
		in := bufio.NewReader(c)
		for {
			var r apps.Request
			if apps.ReadLine(in, &r) != nil {
				return
			}
			switch {
			case r.Stop:
				s.end()
			case r.Doors != nil:
				s.admit(*r.Doors)
			}
		}
	}()
	for {
		s.mu.Lock()
		state, changed := s.state, s.changed
		s.mu.Unlock()
		_ = c.SetWriteDeadline(time.Now().Add(keeperTime))
		if apps.WriteLine(c, state) != nil || state.Report.State.Ended() {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// told waits a moment until keepers know the end. One that is not there finds it on disk.
func (s *supervisor) told(end apps.State) {
	s.tell(func(x *apps.State) { *x = end })
	s.mu.Lock()
	s.over = true
	s.mu.Unlock()
	done := make(chan struct{})
	go func() { s.keepers.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(time.Second):
	}
}
