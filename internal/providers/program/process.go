package program

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/shoal-pool/shoal/provider"
	"github.com/shoal-pool/shoal/provider/wire"
)

// The bounds of what a program says.
const (
	mostAnswer = 16 << 20
	mostTail   = 2 << 10 // of standard error, kept for what is said of a failure
	mostLines  = 20      // of standard error, logged in a minute
	leaveTime  = time.Second / 2
)

// command is a process of the program, in a group of its own so that it can be killed with what it has started.
func (p *Provider) command(ctx context.Context, mode wire.Mode) (*exec.Cmd, error) {
	if !p.cfg.Anyone {
		if err := Trust(p.cfg.Path); err != nil {
			return nil, provider.Errorf(provider.Transient, "%w", err)
		}
	}
	cmd := exec.CommandContext(ctx, p.cfg.Path, string(mode))
	cmd.Dir = p.cfg.Dir
	cmd.Env = append(os.Environ(), wire.EnvInstallation+"="+p.cfg.Installation, wire.EnvDir+"="+p.cfg.Dir,
		wire.EnvControlDir+"="+p.cfg.ControlDir, wire.EnvBinDir+"="+p.cfg.BinDir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = leaveTime // a child that holds its output is not waited for
	return cmd, nil
}

// once runs a process for one request.
func (p *Provider) once(ctx context.Context, r wire.Request, most time.Duration) (wire.Answer, error) {
	var a wire.Answer
	ctx, cancel := context.WithTimeoutCause(ctx, most, fmt.Errorf("it did not answer %s within %s, and was killed", r.Op, most))
	defer cancel()
	select {
	case p.slots <- struct{}{}:
		defer func() { <-p.slots }()
	case <-ctx.Done():
		return a, provider.Errorf(provider.Transient, "%w", context.Cause(ctx))
	}
	r.Protocol = wire.Protocol
	in, err := json.Marshal(r)
	if err != nil {
		return a, provider.Errorf(provider.Invalid, "cannot write it down: %w", err)
	}
	run, kill := context.WithCancelCause(ctx)
	defer kill(nil)
	cmd, err := p.command(run, wire.Once)
	if err != nil {
		return a, err
	}
	out := &bounded{most: mostAnswer, over: func() { kill(fmt.Errorf("it wrote more than %d MiB, and was killed", mostAnswer>>20)) }}
	said := &tail{log: p.cfg.Log}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(append(in, '\n')), out, said
	err = cmd.Run()
	if errors.Is(err, exec.ErrWaitDelay) {
		err = nil // it has ended, and something that it started holds its output
	}
	if cause := context.Cause(run); cause != nil && err != nil {
		return a, provider.Errorf(provider.Transient, "%w", cause)
	}
	failed, ok := errors.AsType[*exec.ExitError](err)
	if err != nil && !ok && !errors.Is(err, syscall.EPIPE) { // it need not read all that it is told
		return a, provider.Errorf(provider.Transient, "cannot run it: %w", err)
	}
	return answered(out.kept.Bytes(), failed, said.last())
}

// answered reads what a process has left: its answer, how it ended, and the last that it said besides.
func answered(out []byte, failed *exec.ExitError, said string) (wire.Answer, error) {
	a, err := parse(out)
	if failed == nil {
		switch {
		case err != nil:
			return wire.Answer{}, provider.Errorf(provider.Transient, "%w", err)
		case a.Error != nil:
			return wire.Answer{}, refusal(*a.Error, a.Error.Code)
		}
		return a, nil
	}
	e := wire.Error{Message: said}
	if err == nil && a.Error != nil {
		e = *a.Error
	}
	if clean(e.Message) == "" {
		e.Message = "it ended with " + failed.ProcessState.String() + " and said nothing"
	}
	return wire.Answer{}, refusal(e, wire.CodeOf(failed.ExitCode()))
}

// parse reads one answer. None at all is an empty one.
func parse(out []byte) (a wire.Answer, err error) {
	if len(bytes.TrimSpace(out)) == 0 {
		return a, nil
	}
	if err := json.Unmarshal(out, &a); err != nil {
		return wire.Answer{}, fmt.Errorf("its answer is not what the protocol allows (%s): %s", clean(err.Error()), quote(string(out[:min(len(out), 500)])))
	}
	return a, nil
}

// refusal is an error that the program gave.
func refusal(e wire.Error, code provider.Code) error {
	if wire.Exit(code) == 1 { // no code of ours
		code = provider.Transient
	}
	message := clean(e.Message)
	if message == "" {
		message = "it refused, and did not say why"
	}
	err := provider.Errorf(code, "%s", message)
	err.Until = e.Until
	return err
}

// bounded keeps what is written to it, up to a bound.
type bounded struct {
	kept bytes.Buffer // not embedded: its ReadFrom knows no bound
	most int
	over func()
}

func (b *bounded) Write(data []byte) (int, error) {
	if b.kept.Len()+len(data) > b.most {
		b.over()
		return 0, errors.New("too much")
	}
	return b.kept.Write(data)
}

// tail logs what is written to it, within reason, and keeps the end.
type tail struct {
	log *slog.Logger

	mu      sync.Mutex
	kept    []byte
	line    []byte
	lines   int // in this minute
	skipped int
	minute  time.Time
}

func (t *tail) Write(data []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.kept = append(t.kept, data[max(0, len(data)-mostTail):]...)
	t.kept = t.kept[max(0, len(t.kept)-mostTail):]
	for _, b := range data {
		if b != '\n' {
			if len(t.line) < mostTail {
				t.line = append(t.line, b)
			}
			continue
		}
		t.say(clean(string(t.line)))
		t.line = t.line[:0]
	}
	return len(data), nil
}

// say logs a line. The mutex is held.
func (t *tail) say(line string) {
	if line == "" {
		return
	}
	if now := time.Now(); now.Sub(t.minute) >= time.Minute {
		if t.skipped > 0 {
			t.log.Info("the provider said more than is logged", "lines", t.skipped)
		}
		t.minute, t.lines, t.skipped = now, 0, 0
	}
	if t.lines++; t.lines > mostLines {
		t.skipped++
		return
	}
	t.log.Info("the provider says", "text", line)
}

// last is the last line that was written.
func (t *tail) last() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	lines := strings.Split(strings.TrimSpace(string(t.kept)), "\n")
	return lines[len(lines)-1]
}
