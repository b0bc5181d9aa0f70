package program

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/shoal-pool/shoal/provider"
	"github.com/shoal-pool/shoal/provider/wire"
)

// Times of sessions.
const (
	lived     = 30 * time.Second // a session that lived so long may be started again at once
	firstRest = time.Second
	lastRest  = 30 * time.Second
	closeTime = 2 * time.Second // to end by itself once its input has ended
)

// session is a process that answers many requests.
type session struct {
	p     *Provider
	kill  context.CancelFunc
	in    *os.File    // its standard input
	lines chan []byte // to be written to it
	done  chan struct{}
	began time.Time

	mu      sync.Mutex
	next    int64
	pending map[int64]chan<- wire.Answer // a nil one is not waited for any more
	err     error                        // why it ended; set before done is closed
}

// inSession asks the program's session, which is started if need be.
func (p *Provider) inSession(ctx context.Context, r wire.Request, most time.Duration) (wire.Answer, error) {
	s, err := p.running()
	if err != nil {
		return wire.Answer{}, provider.Errorf(provider.Transient, "%w", err)
	}
	a, err := s.ask(ctx, r, most)
	if err != nil {
		return wire.Answer{}, provider.Errorf(provider.Transient, "%w", err)
	}
	if a.Error != nil {
		return wire.Answer{}, refusal(*a.Error, a.Error.Code)
	}
	return a, nil
}

// running returns the session. One that ended early is not started again at once.
func (p *Provider) running() (*session, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch wait := time.Until(p.rested); {
	case p.closed:
		return nil, errors.New("the provider is closed")
	case p.session != nil:
		return p.session, nil
	case wait > 0:
		return nil, fmt.Errorf("%w; it is started again in %s", p.last, wait.Round(100*time.Millisecond))
	}
	s, err := p.start()
	if err != nil {
		p.ended(err, 0)
		return nil, err
	}
	p.session = s
	return s, nil
}

// ended notes that a session is over, or could not begin. The mutex is held.
func (p *Provider) ended(err error, after time.Duration) {
	if after >= lived {
		p.fails = 0
	}
	p.last, p.rested = err, time.Now().Add(min(firstRest<<min(p.fails, 10), lastRest))
	p.fails++
}

// start starts a session. The mutex is held.
func (p *Provider) start() (*session, error) {
	ctx, kill := context.WithCancel(context.Background())
	cmd, err := p.command(ctx, wire.Session)
	if err != nil {
		kill()
		return nil, err
	}
	s := &session{p: p, kill: kill, lines: make(chan []byte), done: make(chan struct{}), began: time.Now(), pending: map[int64]chan<- wire.Answer{}}
	said := &tail{log: p.cfg.Log}
	cmd.Stderr = said
	read, write, err := os.Pipe()
	if err != nil {
		kill()
		return nil, err
	}
	cmd.Stdin, s.in = read, write
	out, answers, err := os.Pipe()
	if err != nil {
		kill()
		return nil, errors.Join(err, read.Close(), write.Close())
	}
	cmd.Stdout = answers
	err = cmd.Start()
	read.Close()
	answers.Close()
	if err != nil {
		kill()
		write.Close()
		out.Close()
		return nil, fmt.Errorf("cannot run it: %w", err)
	}
	heard := make(chan struct{})
	go s.write()
	go s.read(out, heard)
	go func() {
		err := cmd.Wait()
		_ = out.SetReadDeadline(time.Now().Add(leaveTime)) // something that it started may hold its output
		<-heard
		out.Close()
		s.over(err, clean(said.last()))
	}()
	return s, nil
}

// ask sends a request and waits for its answer. A program that does not answer in time is ended; when the caller gives up
// before, it is not.
func (s *session) ask(ctx context.Context, r wire.Request, most time.Duration) (wire.Answer, error) {
	answers := make(chan wire.Answer, 1)
	s.mu.Lock()
	s.next++
	r.Protocol, r.ID = wire.Protocol, s.next
	s.pending[r.ID] = answers
	s.mu.Unlock()
	line, err := json.Marshal(r)
	if err != nil {
		return wire.Answer{}, err
	}
	line = append(line, '\n')
	limit := time.NewTimer(most)
	defer limit.Stop()
	lines := s.lines
	for {
		select {
		case lines <- line:
			lines = nil // sent
		case a := <-answers:
			return a, nil
		case <-s.done:
			select {
			case a := <-answers: // the last it said
				return a, nil
			default:
				return wire.Answer{}, s.err
			}
		case <-limit.C:
			s.fail(fmt.Errorf("it did not answer %s within %s, and was killed", r.Op, most))
		case <-ctx.Done():
			s.mu.Lock()
			if _, waits := s.pending[r.ID]; waits && lines == nil {
				s.pending[r.ID] = nil
			} else {
				delete(s.pending, r.ID)
			}
			s.mu.Unlock()
			return wire.Answer{}, context.Cause(ctx)
		}
	}
}

// write writes requests until the session ends.
func (s *session) write() {
	for {
		select {
		case line := <-s.lines:
			if _, err := s.in.Write(line); err != nil {
				select {
				case <-s.done: // it has ended, and that says more
				case <-time.After(leaveTime):
					s.fail(fmt.Errorf("it does not take requests, and was killed: %w", err))
				}
				return
			}
		case <-s.done:
			return
		}
	}
}

// read hands out answers until there are no more.
func (s *session) read(out io.Reader, heard chan<- struct{}) {
	defer close(heard)
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, mostAnswer)
	for lines.Scan() {
		if err := s.take(lines.Bytes()); err != nil {
			s.fail(err)
			return
		}
	}
	if errors.Is(lines.Err(), bufio.ErrTooLong) {
		s.fail(fmt.Errorf("it wrote a line of more than %d MiB, and was killed", mostAnswer>>20))
	}
}

// take takes one line of the program.
func (s *session) take(line []byte) error {
	var a wire.Answer
	if err := json.Unmarshal(line, &a); err != nil {
		return fmt.Errorf("it said what is no answer, and was killed: %s", quote(string(line[:min(len(line), 500)])))
	}
	if a.Changed {
		s.p.wake(changeGap)
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	to, ok := s.pending[a.ID]
	if !ok {
		return fmt.Errorf("it answered request %d, which was not made, and was killed", a.ID)
	}
	delete(s.pending, a.ID)
	if to != nil {
		to <- a
	}
	return nil
}

// fail ends a session for a reason.
func (s *session) fail(err error) {
	s.mu.Lock()
	if s.err == nil {
		s.err = err
	}
	s.mu.Unlock()
	s.kill()
}

// over is called once, when the process has ended.
func (s *session) over(err error, said string) {
	how := "exit status 0"
	if err != nil {
		how = err.Error()
	}
	if said != "" {
		how += "; the last it said: " + said
	}
	s.fail(fmt.Errorf("it has ended (%s)", how))
	p := s.p
	p.mu.Lock()
	closed := p.closed
	if p.session == s {
		p.session = nil
		p.ended(s.err, time.Since(s.began))
		p.cfg.Log.Warn("a provider's session is over", "err", s.err)
	}
	p.mu.Unlock()
	s.in.Close()
	close(s.done)
	if !closed {
		p.wake(firstRest)
	}
}

// close lets the process end by itself, and kills it if it does not.
func (s *session) close() {
	s.in.Close()
	select {
	case <-s.done:
	case <-time.After(closeTime):
		s.fail(errors.New("the provider was closed"))
		<-s.done
	}
}
