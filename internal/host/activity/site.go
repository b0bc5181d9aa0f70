package activity

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/shoal-pool/shoal"
)

// Bounds of a site's probe.
const (
	siteEvery = time.Minute
	siteTime  = 10 * time.Second
	siteWord  = 200 // of what it says, in bytes
)

// Site asks a pool's own command, as root, whether something is in use on the machine. 0 is yes, 1 is no; whatever else
// becomes of it is not known, and counts as yes.
type Site struct {
	env     []string
	log     *slog.Logger
	changed chan struct{}

	turn sync.Mutex // one question at a time

	mu      sync.Mutex
	command string
	stop    context.CancelFunc
	parts   sync.WaitGroup
	held    string
}

// NewSite makes one that asks nothing yet. Env is what the command finds in its environment beside the agent's own.
func NewSite(log *slog.Logger, env ...string) *Site {
	return &Site{env: append(os.Environ(), env...), log: log, changed: make(chan struct{}, 1), stop: func() {}}
}

// Want takes the command; empty: there is none.
func (s *Site) Want(command string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if command == s.command {
		return
	}
	s.stop()
	s.command, s.held, s.stop = command, "", func() {}
	if command == "" {
		return
	}
	s.held = "the pool's probe has not answered yet"
	ctx, cancel := context.WithCancel(context.Background())
	s.stop = cancel
	s.parts.Go(func() {
		for ctx.Err() == nil {
			s.Ask(ctx)
			select {
			case <-ctx.Done():
			case <-time.After(siteEvery):
			}
		}
	})
}

// Close ends all asking, and waits for that.
func (s *Site) Close() {
	s.Want("")
	s.parts.Wait()
}

// Held says why the machine is in use, by the last answer. Empty: it is not, or there is no command.
func (s *Site) Held() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.held
}

// Changed tells that Held has changed.
func (s *Site) Changed() <-chan struct{} { return s.changed }

// Ask asks now.
func (s *Site) Ask(ctx context.Context) {
	s.turn.Lock()
	defer s.turn.Unlock()
	s.mu.Lock()
	command := s.command
	s.mu.Unlock()
	if command == "" {
		return
	}
	held := s.run(ctx, command)
	s.mu.Lock()
	news := s.command == command && s.held != held && ctx.Err() == nil
	if news {
		s.held = held
	}
	s.mu.Unlock()
	if news {
		select {
		case s.changed <- struct{}{}:
		default:
		}
	}
}

// run asks, and says why the machine is in use.
func (s *Site) run(ctx context.Context, command string) string {
	ctx, cancel := context.WithTimeout(ctx, siteTime)
	defer cancel()
	var said first
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", command)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = "/", s.env, &said, &said
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second // what it left behind may hold its output
	err := cmd.Start()
	if err == nil {
		err = cmd.Wait()
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	}
	exit, exited := errors.AsType[*exec.ExitError](err)
	switch {
	case ctx.Err() != nil:
		return fmt.Sprintf("the pool's probe does not answer within %s", shoal.Duration(siteTime))
	case err == nil:
		return strings.TrimSuffix("the pool's probe says that something is in use: "+said.line(), ": ")
	case exited && exit.ExitCode() == 1:
		return ""
	}
	s.log.Warn("the pool's probe fails, so the machine counts as in use", "error", err, "output", said.line())
	return strings.TrimSuffix(fmt.Sprintf("the pool's probe fails (%v): %s", err, said.line()), ": ")
}

// first keeps the beginning of what is written.
type first struct{ bytes.Buffer }

func (f *first) Write(p []byte) (int, error) {
	f.Buffer.Write(p[:min(len(p), siteWord-min(f.Len(), siteWord))])
	return len(p), nil
}

// line is its first line, with nothing in it that does something to a terminal.
func (f *first) line() string {
	l, _, _ := strings.Cut(strings.TrimSpace(f.String()), "\n")
	return strings.ReplaceAll(clean(l), "\t", " ")
}
