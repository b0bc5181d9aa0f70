package local

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoal-pool/shoal/internal/providers/local/cgroup"
	"github.com/shoal-pool/shoal/internal/providers/local/mounts"
	"github.com/shoal-pool/shoal/internal/providers/local/rootfs"
)

// runTimeout bounds one call of runc. It takes a tenth of a second, unless a share hangs.
const runTimeout = 60 * time.Second

// launch starts a machine. Whatever a broken-off start left is cleared first, so it can be repeated.
func (p *Provider) launch(ctx context.Context, m *machine, rec record) error {
	conf, err := parseSettings(rec.Spec.Config)
	if err != nil {
		return permanent{err}
	}
	p.say(m, "its image is made ready")
	image, err := p.images.Get(ctx, rec.Spec.Image, conf.options())
	if err != nil {
		return permanentIf(err, errors.Is(err, rootfs.ErrNoImage))
	}
	p.say(m, "its shares are mounted")
	binds, err := p.shares.Ready(ctx, mounts.Machine{ID: rec.Spec.ID, Mounts: rec.Spec.Mounts, Homes: rec.Homes, Mask: m.mask()})
	if err != nil {
		return err
	}
	p.say(m, "waits for other machines to start")
	select {
	case p.starts <- struct{}{}:
		defer func() { <-p.starts }()
	case <-ctx.Done():
		return ctx.Err()
	}
	p.say(m, "")
	if err := p.newStart(ctx, m, &rec, image); err != nil {
		return err
	}
	if err := p.groups.Make(string(rec.Spec.ID), cgroup.Limits{MilliCPU: int64(rec.Spec.Resources.CPUs),
		Memory: int64(rec.Spec.Resources.Memory), Pids: conf.pids()}); err != nil {
		return err
	}
	if err := p.net.Admit(ctx, rec.Host); err != nil {
		return err
	}
	a := &assembly{p: p, dir: m.dir, rec: rec, image: image, binds: binds}
	if err := a.run(ctx); err != nil {
		return errors.Join(err, p.clear(ctx, m, rec.Host, string(rec.Spec.ID)))
	}
	return p.started(m, rec)
}

func permanentIf(err error, is bool) error {
	if is {
		return permanent{err}
	}
	return err
}

// sayAfter is how long a step may take before it is told.
const sayAfter = time.Second

// say tells what a starting machine waits for, if it does not pass at once.
func (p *Provider) say(m *machine, what string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	m.note = ""
	m.step++
	if n := m.step; what != "" {
		time.AfterFunc(sayAfter, func() {
			p.mu.Lock()
			defer p.mu.Unlock()
			if m.step == n {
				m.note = what
				p.tell()
			}
		})
	}
}

// newStart clears what is left of a former start and records what this one stands on.
func (p *Provider) newStart(ctx context.Context, m *machine, rec *record, image rootfs.Image) error {
	p.mu.Lock()
	fresh := m.run == nil && m.rec.Root == ""
	p.mu.Unlock()
	if !fresh {
		if err := p.clear(ctx, m, rec.Host, string(rec.Spec.ID)); err != nil {
			return err
		}
	}
	for _, name := range []string{"run.json", "pid"} {
		if err := os.Remove(filepath.Join(m.dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	m.run, m.ended = nil, ""
	m.rec.Root, m.rec.State = image.Root, image.State
	rec.Root, rec.State = image.Root, image.State
	return m.save()
}

// started records a machine whose first process runs.
func (p *Provider) started(m *machine, rec record) error {
	pid := readPID(filepath.Join(m.dir, "pid"))
	p.mu.Lock()
	defer p.mu.Unlock()
	m.run = &run{Starts: rec.Starts, PID: pid, StartTime: startTime(pid)}
	m.hold(p.groups.Path(string(rec.Spec.ID))) // if it has ended already, Observe says so
	return writeJSON(filepath.Join(m.dir, "run.json"), m.run)
}

// assembly is one start of a machine.
type assembly struct {
	p     *Provider
	dir   string
	rec   record
	image rootfs.Image
	binds []mounts.Bind
}

// run assembles the machine in namespaces of its own and starts it.
func (a *assembly) run(ctx context.Context) error {
	if err := a.prepare(); err != nil {
		return fmt.Errorf("cannot prepare its files: %w", err)
	}
	return onThread(func() error { return a.apart(ctx) })
}

// onThread runs fn on an operating system thread that nobody uses afterwards: it ends with fn. It is never
// the main thread, which cannot end, and as which the process is seen: /proc/self would show the
// namespaces that fn went to.
func onThread(fn func() error) error {
	done := make(chan error, 1)
	var try func()
	try = func() {
		runtime.LockOSThread()
		if unix.Gettid() != unix.Getpid() {
			done <- fn()
			return // still locked
		}
		defer runtime.UnlockOSThread()
		tried := make(chan struct{})
		go func() { // cannot get this thread, which is held meanwhile
			defer close(tried)
			try()
		}()
		<-tried
	}
	go try()
	return <-done
}

// apart runs on a thread of its own.
func (a *assembly) apart(ctx context.Context) error {
	if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("cannot make namespaces: %w", err)
	}
	// Nothing that is mounted from here on is seen on the host.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("cannot part from the host's mounts: %w", err)
	}
	netns, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	defer netns.Close()
	if err := a.p.net.Plug(a.rec.Host, netns); err != nil {
		return err
	}
	if err := a.mountRoot(); err != nil {
		return fmt.Errorf("cannot assemble its file system: %w", err)
	}
	s := a.container()
	if err := a.addGPUs(s); err != nil {
		return err
	}
	if err := writeJSON(filepath.Join(a.dir, "config.json"), s); err != nil {
		return err
	}
	return a.runc(ctx)
}

// runc starts the container from this thread's namespaces.
func (a *assembly) runc(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, runTimeout)
	defer cancel()
	log, err := os.OpenFile(filepath.Join(a.dir, "init.log"), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	runcLog := filepath.Join(a.dir, "runc.log")
	if err := os.Remove(runcLog); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	cmd := exec.CommandContext(ctx, a.p.runc, "--root", a.p.path("runc"), "--log", runcLog, "--log-format", "json",
		"run", "--detach", "--no-new-keyring", "--bundle", a.dir, "--pid-file", filepath.Join(a.dir, "pid"), string(a.rec.Spec.ID))
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Dir = "/"
	// If the server dies, so does runc: no start goes on behind the back of the next server.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	// A runc that waits for a dead file server may not end even when killed; the worker must not wait with it.
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err = <-ended:
	case <-ctx.Done():
		select {
		case err = <-ended:
		case <-time.After(time.Second):
			err = errors.New("it hangs")
		}
	}
	if ctx.Err() != nil {
		err = errors.Join(ctx.Err(), err)
	}
	if err != nil {
		if said := runcSaid(runcLog); said != "" {
			err = fmt.Errorf("%w: %s", err, said)
		}
		return fmt.Errorf("cannot run it: %w", err)
	}
	return nil
}

// runcSaid is the last error in runc's log.
func runcSaid(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	said := ""
	for line := range bytes.SplitSeq(b, []byte("\n")) {
		var entry struct{ Level, Msg string }
		if json.Unmarshal(line, &entry) == nil && entry.Level == "error" {
			said = entry.Msg
		}
	}
	return strings.ToValidUTF8(said, "?")
}
