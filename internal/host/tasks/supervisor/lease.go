package supervisor

import (
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/host/tasks"
)

// lease is until when tasks may run that must not run in two places. It is counted by the clock that goes on while the
// machine is suspended, and here rather than in the agent, which may be killed or hang.
type lease struct {
	fd    int      // a timerfd
	timer *os.File // the same, to read

	mu    sync.Mutex
	until time.Duration // since the kernel's start; zero: for ever
}

func (l *lease) open() error {
	fd, err := unix.TimerfdCreate(unix.CLOCK_BOOTTIME, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK)
	if err != nil {
		return fmt.Errorf("cannot count the lease: %w", err)
	}
	l.fd, l.timer = fd, os.NewFile(uintptr(fd), "lease")
	return nil
}

// over reports whether the lease has run out.
func (l *lease) over() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.until != 0 && tasks.Uptime() >= l.until
}

func (l *lease) set(until time.Duration) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.until = until
	return unix.TimerfdSettime(l.fd, unix.TFD_TIMER_ABSTIME, &unix.ItimerSpec{Value: unix.NsecToTimespec(int64(until))}, nil)
}

// renew takes a new end of the lease. What the old one had forbidden meanwhile stays forbidden.
func (s *supervisor) renew(until time.Duration) {
	if s.lease.over() {
		s.fence()
	}
	if err := s.lease.set(until); err != nil {
		fmt.Fprintln(os.Stderr, "shoal-agent task: cannot set the lease's timer:", err)
	}
}

// watch ends tasks when the lease does.
func (s *supervisor) watch() {
	for b := make([]byte, 8); ; {
		if _, err := s.lease.timer.Read(b); err != nil {
			fmt.Fprintln(os.Stderr, "shoal-agent task: cannot wait for the lease's end:", err)
			return
		}
		if s.lease.over() {
			s.fence()
		}
	}
}

// fence ends all tasks that may be started elsewhere now.
func (s *supervisor) fence() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.tasks {
		if bound(t.req.Order) {
			t.stop(fenced)
		}
	}
}

// bound reports whether a task may not run without a lease.
func bound(o api.TaskOrder) bool { return !o.Idempotent }
