package local

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/providers/local/mounts"
	"github.com/shoal-pool/shoal/internal/providers/local/network"
	"github.com/shoal-pool/shoal/internal/removal"
)

// machine is a machine in memory. All but dir is guarded by the provider's mutex; while busy
// is set, run and pidfd are changed by the worker alone, under the mutex.
type machine struct {
	dir   string
	rec   record
	run   *run // the newest start, nil before the first
	pidfd int  // of the run's process while it may live, else -1
	busy  bool // a worker is at it
	again bool // the intent changed while it was
	// launching is set while a start is under way, whose process is not known yet.
	launching bool
	removed   bool   // its name may be another's already
	trouble   string // why the last try failed
	note      string // what it is waiting for
	step      int    // counts what it waits for
	abort     context.CancelFunc
	ended     string // what is said about a run that ended by itself
}

// starting reports whether the start that was last asked for has neither succeeded nor failed.
func (m *machine) starting() bool { return m.run == nil || m.run.Starts != m.rec.Starts }

// alive asks the kernel whether the machine's first process lives.
func (m *machine) alive() bool {
	if m.pidfd < 0 {
		return false
	}
	fds := []unix.PollFd{{Fd: int32(m.pidfd), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, 0)
	return n == 0 || errors.Is(err, unix.EINTR)
}

// forget closes the process handle.
func (m *machine) forget() {
	if m.pidfd >= 0 {
		unix.Close(m.pidfd)
		m.pidfd = -1
	}
}

// obituary says what became of a machine that ended by itself, with the last it said.
func (m *machine) obituary() string {
	if m.ended == "" {
		m.ended = "its first process has ended"
		if last := plain(lastLine(filepath.Join(m.dir, "init.log"))); last != "" {
			m.ended += ": " + last
		}
	}
	return m.ended
}

// lastLine is the last line of a file that is not blank, shortened.
func lastLine(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() > 1024 {
		_, _ = f.Seek(-1024, io.SeekEnd)
	}
	b, _ := io.ReadAll(io.LimitReader(f, 1024))
	lines := bytes.Split(bytes.TrimSpace(b), []byte("\n"))
	return strings.ToValidUTF8(string(lines[len(lines)-1]), "?")
}

// plain is what a line of a log says to people who do not know logs. A line of the agent's that tells of no error says
// nothing of why the agent has ended.
func plain(line string) string {
	if !strings.HasPrefix(line, "time=") {
		return line
	}
	if !strings.Contains(line, " level=ERROR ") {
		return ""
	}
	text := value(line, "msg")
	if err := value(line, "error"); text != "" && err != "" {
		text += ": " + err
	}
	return text
}

// value is that of a key in a line that slog has written.
func value(line, key string) string {
	_, rest, _ := strings.Cut(line, " "+key+"=")
	if quoted, err := strconv.QuotedPrefix(rest); err == nil {
		text, _ := strconv.Unquote(quoted)
		return strings.Join(strings.Fields(text), " ")
	}
	text, _, _ := strings.Cut(rest, " ")
	return strings.TrimPrefix(text, `"`) // whose end is not there
}

// wake makes sure that a worker looks at the machine. The mutex is held.
func (p *Provider) wake(m *machine) {
	if m.busy {
		m.again = true
		return
	}
	if p.ctx.Err() != nil {
		return
	}
	m.busy = true
	p.work.Go(func() { p.attend(m) })
}

// How long a worker waits after a failure, at first and at most.
const (
	firstWait = 200 * time.Millisecond
	lastWait  = 30 * time.Second
	// tries bounds how often a start is tried before the machine has failed.
	tries = 3
)

// attend works on a machine until it is as wanted.
func (p *Provider) attend(m *machine) {
	wait, failures := firstWait, 0
	for {
		ctx, cancel := context.WithCancel(p.ctx)
		p.mu.Lock()
		m.again, m.abort = false, cancel
		rec := m.rec
		p.mu.Unlock()
		err := p.step(ctx, m, rec)
		cancel()
		p.mu.Lock()
		m.note, m.trouble = "", ""
		m.step++
		if err == nil && (!m.again || m.removed) || p.ctx.Err() != nil {
			m.busy, m.abort = false, nil
			p.mu.Unlock()
			return
		}
		changed := m.again
		if err != nil && !changed {
			failures++
			m.trouble = err.Error()
			if mounts.Waits(err) {
				failures = 0 // the machine waits with it, as long as it is wanted
				m.trouble += ": " + shoal.HintOf(err)
			}
			if rec.Want == wantRun && (failures >= tries || hopeless(err)) {
				p.giveUp(m, err)
				p.mu.Unlock()
				return
			}
		}
		p.mu.Unlock()
		if changed {
			wait, failures = firstWait, 0
			continue
		}
		select {
		case <-p.ctx.Done():
		case <-time.After(wait):
		}
		wait = min(2*wait, lastWait)
	}
}

// giveUp records that a machine has failed. The mutex is held.
func (p *Provider) giveUp(m *machine, err error) {
	m.rec.Failed = err.Error()
	m.busy, m.abort, m.note, m.trouble = false, nil, "", ""
	if err := m.save(); err != nil {
		p.cfg.Log.Error("a failed machine cannot be recorded", "machine", m.rec.Spec.ID, "error", err)
	}
	p.cfg.Log.Warn("a machine cannot be started", "machine", m.rec.Spec.ID, "error", err)
}

// permanent marks an error that trying again does not mend.
type permanent struct{ error }

func (p permanent) Unwrap() error { return p.error }

func hopeless(err error) bool {
	_, ok := errors.AsType[permanent](err)
	return ok
}

// step does what is needed for what was wanted when it began.
func (p *Provider) step(ctx context.Context, m *machine, rec record) error {
	p.mu.Lock()
	starting, alive := m.starting(), m.alive()
	p.mu.Unlock()
	switch rec.Want {
	case wantRun:
		if !starting || rec.Failed != "" {
			return nil // it runs, or has ended, which is for the control plane to judge
		}
		p.setLaunching(m, true)
		defer p.setLaunching(m, false)
		return p.launch(ctx, m, rec)
	case wantStop:
		return p.halt(ctx, m, rec, alive)
	default:
		if alive && rec.Spec.Grace > 0 {
			if p.sayGoodbye(ctx, m, rec.Spec.Grace); ctx.Err() != nil {
				return ctx.Err() // the next server goes on
			}
		}
		return p.remove(ctx, m, rec)
	}
}

func (p *Provider) setLaunching(m *machine, on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	m.launching = on
}

// halt ends what runs and keeps the disk.
func (p *Provider) halt(ctx context.Context, m *machine, rec record, alive bool) error {
	if alive {
		p.sayGoodbye(ctx, m, max(p.cfg.StopGrace, rec.Spec.Grace))
	}
	return p.clear(ctx, m, rec.Host, string(rec.Spec.ID))
}

// sayGoodbye asks the first process to end and gives it time, which a Delete cuts short where the machine was given no more than
// others.
func (p *Provider) sayGoodbye(ctx context.Context, m *machine, grace time.Duration) {
	p.mu.Lock()
	fd := m.pidfd
	p.mu.Unlock()
	if fd < 0 || unix.PidfdSendSignal(fd, unix.SIGTERM, nil, 0) != nil {
		return
	}
	deadline := time.After(grace)
	for wait := 5 * time.Millisecond; ; wait = min(2*wait, 200*time.Millisecond) {
		p.mu.Lock()
		alive, again := m.alive(), m.again
		p.mu.Unlock()
		if !alive || again && grace <= p.cfg.StopGrace {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-deadline:
			return
		case <-time.After(wait):
		}
	}
}

// killTimeout bounds one attempt to end a machine's processes: one that waits for a dead file server
// cannot be ended, and the worker comes back to it.
const killTimeout = 20 * time.Second

// clear ends all processes of a machine and removes what they had: control groups, interface,
// runc's state. It succeeds when there is nothing.
func (p *Provider) clear(ctx context.Context, m *machine, h network.Host, id string) error {
	// Ending must not be broken off by a new intent, only by its time limit.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), killTimeout)
	defer cancel()
	if err := p.groups.Kill(ctx, id); err != nil {
		return err
	}
	if err := p.net.Disconnect(ctx, h); err != nil {
		return err
	}
	if err := p.groups.Remove(ctx, id); err != nil {
		return err
	}
	if err := os.RemoveAll(p.path("runc", id)); err != nil {
		return err
	}
	for _, name := range []string{"pid", "config.json"} {
		if err := os.Remove(filepath.Join(m.dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	m.forget()
	return nil
}

// remove removes a machine with its disk, and last its record.
func (p *Provider) remove(ctx context.Context, m *machine, rec record) error {
	id := string(rec.Spec.ID)
	if err := p.clear(ctx, m, rec.Host, id); err != nil {
		return err
	}
	// The record goes with the directory at once; its contents, which may be many, afterwards.
	trash := p.path("trash", fmt.Sprintf("%s-%d", id, time.Now().UnixNano()))
	if err := os.Rename(m.dir, trash); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	p.mu.Lock()
	delete(p.machines, rec.Spec.ID)
	m.removed = true
	p.mu.Unlock()
	p.net.Release(rec.Host)
	if err := p.shares.DropUnused(context.WithoutCancel(ctx)); err != nil {
		p.cfg.Log.Warn("a share that no machine uses cannot be unmounted", "error", err)
	}
	if err := removal.Tree(ctx, trash); err != nil && ctx.Err() == nil {
		p.cfg.Log.Warn("the files of a deleted machine cannot be removed; the next start tries again", "error", err)
	}
	return nil
}

// emptyTrash removes the files of deleted machines, as far as it comes until ctx ends.
func (p *Provider) emptyTrash(ctx context.Context, trash []fs.DirEntry) {
	for _, e := range trash {
		if err := removal.Tree(ctx, p.path("trash", e.Name())); err != nil && ctx.Err() == nil {
			p.cfg.Log.Warn("the files of a deleted machine cannot be removed; the next start tries again", "error", err)
		}
	}
}

// removeStrays removes what belongs to no machine: directories without a record, control groups,
// what was being removed when the last server ended.
func (p *Provider) removeStrays(ctx context.Context) error {
	trash, err := os.ReadDir(p.path("trash"))
	if err != nil {
		return err
	}
	p.work.Go(func() { p.emptyTrash(p.ctx, trash) }) // it may take minutes, and nobody needs it
	names, err := p.groups.List()
	if err != nil {
		return err
	}
	for _, dir := range []string{"machines", "runc"} {
		entries, err := os.ReadDir(p.path(dir))
		if err != nil {
			return err
		}
		for _, e := range entries {
			names = append(names, e.Name())
		}
	}
	for _, name := range names {
		if p.find(shoal.MachineID(name)) != nil {
			continue
		}
		if err := p.removeStray(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

func (p *Provider) removeStray(ctx context.Context, name string) error {
	whole := ctx
	ctx, cancel := context.WithTimeout(ctx, killTimeout)
	defer cancel()
	if err := p.groups.Kill(ctx, name); err != nil {
		return err
	}
	if err := p.groups.Remove(ctx, name); err != nil {
		return err
	}
	return errors.Join(os.RemoveAll(p.path("runc", name)), removal.Tree(whole, p.path("machines", name)))
}
