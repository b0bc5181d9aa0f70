package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/host/accounts"
	"github.com/shoal-pool/shoal/internal/host/desktop"
	"github.com/shoal-pool/shoal/internal/host/localdisk"
	"github.com/shoal-pool/shoal/internal/host/passes"
	"github.com/shoal-pool/shoal/internal/host/sshd"
	"github.com/shoal-pool/shoal/internal/host/vault"
)

// machine is the Linux that the agent runs on, as the loop needs it.
type machine struct {
	state  string // this machine's directory on its disk
	keeper *accounts.Keeper
	sshd   *sshd.Server
	log    *slog.Logger
	load   loadMeter
	cpus   atomic.Int64 // what the machine has, as the server says, in thousandths; zero: not known yet
	// desktop gives remote desktops, where the pool has them.
	desktop *desktop.Server
	gpus    *gpus
	vault   *vault.Vault

	made map[string]bool // homes and group directories that are known to be there

	mu      sync.Mutex
	ending  map[int]chan struct{}     // of uids whose processes are being ended, or were: closed then
	trouble map[shoal.UserName]string // what could not be made last
}

// skelDir is what a new home begins with.
const skelDir = "/etc/skel"

func newMachine(state string, log *slog.Logger) (*machine, error) {
	v := openVault()
	server, err := sshd.New(sshd.Config{Dir: sshdDir, Etc: "/etc", Agent: agentPath, Port: sshPort, Log: sshdLog, Variables: allowed(v.Wanted()),
		Keys: passes.At(passes.Dir).KeysFile(), Mark: strings.Join(append([]string{passes.Mark}, localdisk.Names()...), ","), Client: passes.At(passes.Dir).ClientFiles()})
	if err != nil {
		return nil, err
	}
	m := &machine{state: state, sshd: server, vault: v, log: log, made: map[string]bool{}, ending: map[int]chan struct{}{},
		keeper: accounts.New(accounts.Config{Etc: "/etc", State: filepath.Join(state, "accounts.json"), Log: log,
			System: []accounts.System{{Name: "sshd", Home: "/run/sshd", Shell: "/usr/sbin/nologin"},
				{Name: sshd.ProbeUser, Home: "/", Shell: "/bin/sh"}}})}
	name, err := os.Hostname()
	if err != nil {
		return nil, err
	}
	m.desktop = desktop.New(desktop.Config{Root: "/", Dir: desktopDir, State: state, Agent: agentPath, Name: name, Start: tellInit,
		Account: func() (desktop.Owner, bool) { return account(desktop.Account) }})
	if err := m.keeper.Prepare(); err != nil {
		return nil, err
	}
	_ = os.Remove(troubleFile) // of an agent before
	return m, m.places()
}

// places makes the files and directories that sshd and the programs which tell who is there expect, where
// an image or its provider has not.
func (m *machine) places() error {
	// Kubernetes' empty directories may be written to by everybody, and sshd trusts nothing that lies there.
	for path, mode := range map[string]uint32{"/run": 0o755, "/dev/shm": 0o1777} {
		if info, err := os.Stat(path); err == nil && info.Mode().Perm()&0o002 != 0 && (info.Mode()&os.ModeSticky == 0 || path == "/run") {
			if err := unix.Chmod(path, mode); err != nil {
				return fmt.Errorf("everybody may write to %s: %w", path, err)
			}
		}
	}
	for _, d := range []struct {
		path string
		mode uint32
	}{{"/run/sshd", 0o755}, {"/run/lock", 0o1777}, {"/run/user", 0o755}, {"/var/log", 0o755}} {
		if _, err := os.Stat(d.path); err == nil {
			continue
		}
		if err := errors.Join(os.MkdirAll(d.path, 0o755), unix.Chmod(d.path, d.mode)); err != nil {
			return fmt.Errorf("cannot make %s: %w", d.path, err)
		}
	}
	group, err := os.ReadFile("/etc/group")
	if err != nil {
		return err
	}
	utmp, _ := accounts.FindGroup(group, "utmp") // root's where there is no such group
	for path, mode := range map[string]uint32{"/run/utmp": 0o664, "/var/log/wtmp": 0o664, "/var/log/btmp": 0o660, "/var/log/lastlog": 0o664} {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if errors.Is(err, os.ErrExist) {
			continue
		}
		if err == nil {
			err = errors.Join(f.Chown(0, utmp), unix.Fchmod(int(f.Fd()), mode), f.Close())
		}
		if err != nil {
			return fmt.Errorf("cannot make %s: %w", path, err)
		}
	}
	return nil
}

func (m *machine) HostKey() (string, error) { return m.sshd.HostKey() }

// Joined configures sshd and has init start it, or read its configuration again.
func (m *machine) Joined(certificate string) error {
	if err := m.keeper.Prepare(); err != nil { // a package may have replaced what it brings
		return err
	}
	changed, err := m.sshd.Configure(certificate)
	if err != nil {
		return err
	}
	if _, err := os.Stat(sshdPath); err != nil {
		return nil // setup may bring it; the login tells if not
	}
	if !changed && m.Booted() {
		return nil
	}
	return tellInit()
}

// tellInit has init start sshd, or reload it.
func tellInit() error {
	if os.Getppid() != 1 {
		return errors.New("cannot start sshd: the agent was not started by init")
	}
	return unix.Kill(1, unix.SIGHUP)
}

// letIn has sshd serve one connection. Its parent is the first process, as that of the sshd which listens is, so that it outlives this one.
func letIn(c *os.File) error {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	p, err := os.StartProcess(sshdPath, []string{sshdPath, "-i", "-f", sshdConfig, "-E", sshdLog},
		&os.ProcAttr{Dir: "/", Files: []*os.File{c, c, null}, Sys: &syscall.SysProcAttr{Setsid: true, Cloneflags: unix.CLONE_PARENT}})
	if err != nil {
		return err
	}
	return p.Release()
}

// bootedFile lies in /run: it holds for this start of the machine.
const bootedFile = agentDir + "/booted"

func (m *machine) Booted() bool {
	_, err := os.Stat(bootedFile)
	return err == nil
}

func (m *machine) MarkBooted() error { return os.WriteFile(bootedFile, nil, 0o600) }

// Accounts makes users and groups, says who may log in, and ends what those have running who may not.
func (m *machine) Accounts(want api.Accounts, mounts []api.AgentMount) error {
	out, err := m.keeper.Write(want)
	if err != nil {
		return errors.Join(err, m.shutOut(want))
	}
	principals, away := map[string]string{}, false
	for _, u := range out.Users {
		if !u.Disabled && u.Principal != "" {
			principals[string(u.Name)] = u.Principal
			if distant(u.Home, mounts) {
				away, principals[string(u.Name)] = true, sshd.WithEnv(u.Principal, localdisk.Variables(u.UID))
			}
		}
	}
	if away {
		if err := writeSettings(); err != nil {
			m.log.Warn("databases of notebooks stay on shares", "error", err)
		}
	}
	if err := m.sshd.Principals(principals); err != nil {
		return err
	}
	if err := m.sshd.Trust(want.CAKeys); err != nil {
		return err
	}
	if err := m.allow(want.Secrets); err != nil {
		return err
	}
	m.end(out.Gone)
	return nil
}

// shutOut does without files of accounts, for which there may be no room, what can be done about users who may not be here.
func (m *machine) shutOut(want api.Accounts) error {
	may, gone := map[string]bool{}, []int{}
	for _, u := range want.Users {
		if may[string(u.Name)] = !u.Disabled; u.Disabled && u.UID >= firstPerson {
			gone = append(gone, u.UID)
		}
	}
	m.end(gone)
	return m.sshd.Keep(func(user string) bool { return may[user] })
}

// Times of ending what disabled users run.
const (
	endGrace = 5 * time.Second
	endTime  = time.Minute
)

// end ends what the uids have running, each once until it comes back.
func (m *machine) end(uids []int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for uid := range m.ending {
		if !slices.Contains(uids, uid) {
			delete(m.ending, uid)
		}
	}
	var fresh []int
	done := make(chan struct{})
	for _, uid := range uids {
		if m.ending[uid] == nil {
			m.ending[uid] = done
			fresh = append(fresh, uid)
		}
	}
	if len(fresh) == 0 {
		return
	}
	go func() {
		defer close(done)
		ctx, cancel := context.WithTimeout(context.Background(), endTime)
		defer cancel()
		err := accounts.End(ctx, fresh, endGrace)
		if err == nil {
			err = m.keeper.Ended(fresh)
		}
		if err != nil {
			m.log.Error("what disabled users run does not end", "uids", fresh, "error", err)
			m.mu.Lock()
			defer m.mu.Unlock()
			for _, uid := range fresh {
				delete(m.ending, uid) // to be tried again
			}
		}
	}()
}

// afterEnd waits until nothing of a uid is being ended: what runs as it meanwhile would be as well.
func (m *machine) afterEnd(ctx context.Context, uid int) {
	m.mu.Lock()
	done := m.ending[uid]
	m.mu.Unlock()
	if done == nil {
		return
	}
	select {
	case <-done:
	case <-ctx.Done():
	}
}

// Files makes what is missing, each mount in a process of its own and all at the same time.
func (m *machine) Files(ctx context.Context, want api.Accounts, mounts []api.AgentMount, probe bool) (unmade int, err error) {
	works := accounts.Plan(want.Users, want.Groups, mounts, skelDir)
	done, errs := make([]accounts.Done, len(works)), make([]error, len(works)+1)
	var all sync.WaitGroup
	for i, w := range works {
		w = m.missing(w)
		w.Probe = probe && i < len(mounts)
		if w.Empty() {
			continue
		}
		all.Go(func() {
			if i < len(mounts) {
				done[i], errs[i] = doApart(ctx, w)
			} else {
				done[i], errs[i] = w.Do()
			}
		})
	}
	if probe {
		all.Go(func() { errs[len(works)] = m.login(ctx) })
	}
	all.Wait()
	var trouble []accounts.Problem
	fresh := map[string]bool{} // the paths of homes that were made now
	for i, d := range done {
		m.remember(works[i].Root, d, fresh)
		trouble = append(trouble, d.Problems...)
		if len(d.Awaited) > 0 {
			errs = append(errs, shoal.Errorf(shoal.KindUnavailable, "%d homes are not mounted yet, %s among them", len(d.Awaited), d.Awaited[0]))
		}
	}
	if err := m.roll(want, mounts, fresh); err != nil {
		errs = append(errs, fmt.Errorf("cannot say whose homes are archived: %w", err))
	}
	if err := m.troubled(trouble); err != nil {
		errs = append(errs, fmt.Errorf("cannot say whose homes are missing: %w", err))
	}
	return len(trouble), errors.Join(errs...)
}

// login proves that people can log in.
func (m *machine) login(ctx context.Context) error {
	if _, err := os.Stat(sshdPath); err != nil {
		return shoal.Errorf(shoal.KindInvalid, "nobody can log in: the image has no %s", sshdPath).
			WithHint("put openssh-server into the image, or have the pool's setup command install it")
	}
	return m.sshd.Probe(ctx)
}

// missing leaves out what is known to be there.
func (m *machine) missing(w accounts.Work) accounts.Work {
	w.Homes = slices.DeleteFunc(w.Homes, func(h accounts.Home) bool { return m.made[h.Key()] })
	w.GroupDirs = slices.DeleteFunc(w.GroupDirs, func(d accounts.Dir) bool { return m.made[d.Key(w.Root)] })
	return w
}

// remember notes what is there now, and which homes are fresh.
func (m *machine) remember(root string, d accounts.Done, fresh map[string]bool) {
	for _, h := range d.Homes {
		m.made[h.Key()] = true
		if h.New {
			fresh[h.Path] = true
		}
	}
	for _, x := range d.GroupDirs {
		m.made[x.Key(root)] = true
	}
}

// maxLog is how large sshd's log may grow; a login has four lines in it.
const maxLog = 4 << 20

// Load measures the machine. Since that is done with each heartbeat, it also keeps logs short.
func (m *machine) Load(have shoal.Resources) shoal.Load {
	if info, err := os.Stat(sshdLog); err == nil && info.Size() > maxLog {
		if err := os.Truncate(sshdLog, 0); err != nil { // sshd appends
			m.log.Warn("cannot cut sshd's log", "error", err)
		}
	}
	m.desktop.CutLogs()
	m.cpus.Store(int64(have.CPUs))
	l := m.load.read(have)
	m.gpus.load(&l)
	l.Homes = m.homes()
	return l
}
