package local

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/host/gpu"
	"github.com/shoal-pool/shoal/internal/providers/local/cgroup"
	"github.com/shoal-pool/shoal/internal/providers/local/mounts"
	"github.com/shoal-pool/shoal/internal/providers/local/network"
	"github.com/shoal-pool/shoal/internal/providers/local/rootfs"
	"github.com/shoal-pool/shoal/provider"
)

// Config is how a provider is set up. Dir, ControlDir and Log are needed.
type Config struct {
	Dir        string // all of the provider's files; made if absent
	ControlDir string // bound at /run/shoal/control in every machine; made if absent
	BinDir     string // where shoal-agent and shoal lie; empty: none are provided
	// Subnet of the machines; zero: the one used before, else the first free /20 of 100.64.0.0/10.
	Subnet netip.Prefix
	// BridgeName is the host's interface to the machines; empty: "shoal-" and six characters made of Dir.
	BridgeName string
	// Init is the machines' first process; nil: the agent.
	Init []string
	// StopGrace is how long Stop leaves the first process to end by itself; zero: 10 s.
	StopGrace time.Duration
	// GPURoot is where the device nodes and the driver of the host's GPUs lie, as below a container of the driver; empty: /.
	GPURoot string
	// AppAccounts are the accounts of this host whose programs reach the ways in to machines' web apps, beside root's; nil: all.
	AppAccounts []int
	// Secret returns the value of a share's credentials; nil: shares cannot have any.
	Secret func(ctx context.Context, share shoal.ShareName, name string) ([]byte, error)
	// MountHelper is this program, which calls mounts.Child first; empty: there are no network shares.
	MountHelper string
	Log         *slog.Logger

	mounts mounts.Config // tests have shorter times
	images *rootfs.Store // tests share one, since making an image takes a second
}

// Provider makes machines on this host. It implements provider.Provider, provider.Checker and
// provider.UserChecker.
type Provider struct {
	cfg     Config
	tag     string
	lock    *os.File
	images  *rootfs.Store
	groups  *cgroup.Tree
	net     *network.Net
	shares  *mounts.Set
	clients *cgroup.Tree  // of the programs that mount shares
	changed chan struct{} // see Changed
	host    capacity
	gpus    gpu.Devices // of the host, as they were when the provider was opened
	runc    string      // the programs; tests have others
	nft     string

	ctx    context.Context // of all workers
	cancel context.CancelFunc
	work   sync.WaitGroup
	starts chan struct{} // bounds machines being started

	mu       sync.Mutex
	machines map[shoal.MachineID]*machine
}

var _ interface {
	provider.Provider
	provider.Checker
	provider.UserChecker
	provider.HomeMounter
	provider.Notifier
} = (*Provider)(nil)

// New opens the provider, adopts the machines that run and removes what is left of half-made ones.
// ctx bounds the opening only. One process at a time can have a directory open.
func New(ctx context.Context, cfg Config) (*Provider, error) {
	p := &Provider{cfg: cfg, starts: make(chan struct{}, runtime.NumCPU()), changed: make(chan struct{}, 1), machines: map[shoal.MachineID]*machine{}}
	p.ctx, p.cancel = context.WithCancel(context.WithoutCancel(ctx))
	if err := p.open(ctx); err != nil {
		p.cancel()
		p.work.Wait()
		if p.lock != nil {
			err = errors.Join(err, p.lock.Close())
		}
		return nil, fmt.Errorf("cannot open the local provider: %w", err)
	}
	p.work.Go(p.prepare)
	p.work.Go(func() { p.shares.Run(p.ctx) })
	return p, nil
}

func (p *Provider) open(ctx context.Context) error {
	if err := p.prerequisites(); err != nil {
		return err
	}
	if err := p.layout(); err != nil {
		return err
	}
	var err error
	if p.host, err = hostCapacity(); err != nil {
		return err
	}
	if p.gpus, err = gpu.Find(p.gpuRoot()); err != nil {
		return err
	}
	if p.images = p.cfg.images; p.images == nil {
		if p.images, err = rootfs.Open(p.path("images")); err != nil {
			return err
		}
	}
	if p.groups, err = cgroup.Open("shoal-" + p.tag); err != nil {
		return err
	}
	if err := p.openShares(); err != nil {
		return err
	}
	hosts, err := p.load()
	if err != nil {
		return err
	}
	p.net, err = network.Open(ctx, network.Config{Tag: p.tag, Bridge: p.cfg.BridgeName, Subnet: p.cfg.Subnet,
		File: p.path("network.json"), Nft: p.nft, Forwarding: forwardingDir(), AppAccounts: p.cfg.AppAccounts, Log: p.cfg.Log}, hosts)
	if err != nil {
		return err
	}
	if err := p.removeStrays(ctx); err != nil {
		return err
	}
	if err := p.shares.DropUnused(ctx); err != nil {
		p.cfg.Log.Warn("a share that no machine uses cannot be unmounted", "error", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, m := range p.machines {
		p.wake(m)
	}
	return nil
}

// prerequisites says at once what would otherwise fail at the first machine.
func (p *Provider) prerequisites() error {
	if os.Geteuid() != 0 {
		return shoal.Errorf(shoal.KindDenied, "local machines need root").WithHint("run `shoal serve` as root")
	}
	for _, tool := range []struct {
		path      *string
		name, pkg string
	}{{&p.runc, "runc", "runc"}, {&p.nft, "nft", "nftables"}} {
		var err error
		if *tool.path, err = lookTool(tool.name); err != nil {
			return shoal.Errorf(shoal.KindUnavailable, "local machines need %s: %w", tool.name, err).
				WithHint("apt-get install %s", tool.pkg)
		}
	}
	return nil
}

// layout makes the directories and takes the lock.
func (p *Provider) layout() error {
	dir, err := filepath.Abs(p.cfg.Dir)
	if err != nil {
		return err
	}
	p.cfg.Dir = dir
	sum := sha256.Sum256([]byte(dir))
	p.tag = hex.EncodeToString(sum[:3])
	if p.cfg.BridgeName == "" {
		p.cfg.BridgeName = "shoal-" + p.tag
	}
	if p.cfg.Init == nil {
		p.cfg.Init = []string{"/opt/shoal/bin/shoal-agent", "init"}
	}
	if p.cfg.StopGrace == 0 {
		p.cfg.StopGrace = 10 * time.Second
	}
	for _, d := range []string{dir, p.path("machines"), p.path("runc"), p.path("shares"), p.path("trash"), p.cfg.ControlDir} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return err
		}
	}
	// The way to the lowers must not be open to all, but bin is seen from machines.
	if err := os.MkdirAll(p.path("bin"), 0o755); err != nil {
		return err
	}
	if p.lock, err = os.OpenFile(p.path("lock"), os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return err
	}
	if err := unix.Flock(int(p.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return shoal.Errorf(shoal.KindConflict, "the directory %s is in use by another server: %w", dir, err)
	}
	return p.copyBinaries()
}

func (p *Provider) path(elem ...string) string {
	return filepath.Join(append([]string{p.cfg.Dir}, elem...)...)
}

// copyBinaries puts this installation's binaries where machines see them. Renaming swaps
// them: who runs the old one goes on with it.
func (p *Provider) copyBinaries() error {
	if p.cfg.BinDir == "" {
		return nil
	}
	for _, name := range []string{"shoal-agent", "shoal"} {
		from, to := filepath.Join(p.cfg.BinDir, name), p.path("bin", name)
		if sameFile(from, to) {
			continue
		}
		b, err := os.ReadFile(from)
		if errors.Is(err, fs.ErrNotExist) {
			return shoal.Errorf(shoal.KindInvalid, "machines need %s, and it is not in %s", name, p.cfg.BinDir).
				WithHint("put shoal and shoal-agent into one directory")
		}
		if err != nil {
			return err
		}
		if err := os.WriteFile(to+".new", b, 0o755); err != nil {
			return err
		}
		if err := os.Chmod(to+".new", 0o755); err != nil { // whatever the umask
			return err
		}
		if info, err := os.Stat(from); err == nil {
			_ = os.Chtimes(to+".new", info.ModTime(), info.ModTime()) // only spares the next copy
		}
		if err := os.Rename(to+".new", to); err != nil {
			return err
		}
	}
	return nil
}

func sameFile(a, b string) bool {
	x, err1 := os.Stat(a)
	y, err2 := os.Stat(b)
	return err1 == nil && err2 == nil && x.Size() == y.Size() && x.ModTime().Equal(y.ModTime())
}

// prepare makes the image host in advance, so that the first login does not wait for it, and drops
// those of former packages that no machine stands on.
func (p *Provider) prepare() {
	if _, err := p.images.Get(p.ctx, rootfs.Host, rootfs.Options{}); err != nil {
		if p.ctx.Err() == nil {
			p.cfg.Log.Warn("the image host cannot be made", "error", err)
		}
		return
	}
	if err := p.images.Prune(p.standsOn); err != nil {
		p.cfg.Log.Warn("images that nobody uses cannot be removed", "error", err)
	}
}

// standsOn reports whether a machine has a lower.
func (p *Provider) standsOn(root string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, m := range p.machines {
		if m.rec.Root == root {
			return true
		}
	}
	return false
}

// emptyOnClose is how long Close goes on removing files of deleted machines.
const emptyOnClose = 20 * time.Second

// Close ends the workers. Machines go on running and are adopted by the next New; where there is none,
// everything is removed that the provider changed on the host outside Dir.
func (p *Provider) Close(ctx context.Context) error {
	p.cancel()
	p.work.Wait()
	p.mu.Lock()
	last := len(p.machines) == 0
	for _, m := range p.machines {
		m.forget()
	}
	p.mu.Unlock()
	errs := []error{p.net.Close(ctx, last)}
	if last {
		// The end of the workers cut it short. What is not gone soon is left to the next New.
		soon, cancel := context.WithTimeout(ctx, emptyOnClose)
		trash, err := os.ReadDir(p.path("trash"))
		p.emptyTrash(soon, trash)
		cancel()
		errs = append(errs, err, p.shares.DropUnused(ctx), p.closeClients(ctx), p.groups.Close())
	}
	errs = append(errs, p.lock.Close())
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("cannot close the local provider: %w", err)
	}
	return nil
}

// Subnet is where the machines are.
func (p *Provider) Subnet() netip.Prefix { return p.net.Subnet() }

// Gateway is this host's address on the machines' network, from which it comes to them.
func (p *Provider) Gateway() netip.Addr { return p.net.Gateway() }

// Listen opens a port of that address to all machines, until the listener is closed; 0 is a free one.
func (p *Provider) Listen(ctx context.Context, port int) (net.Listener, error) {
	return p.net.Listen(ctx, port)
}

// Images lists the snapshots and the unpacked archives.
func (p *Provider) Images() ([]rootfs.Info, error) { return p.images.List() }

// Snapshot freezes the image host under a name that pools can use as their image.
func (p *Provider) Snapshot(ctx context.Context, name string) error {
	return p.images.Snapshot(ctx, name, rootfs.Options{})
}

// RemoveImage removes a snapshot or an unpacked archive that no machine uses.
func (p *Provider) RemoveImage(name string) error {
	list, err := p.images.List()
	if err != nil {
		return err
	}
	for _, i := range list {
		if i.Name == name && p.standsOn(i.Root()) {
			return shoal.Errorf(shoal.KindConflict, "cannot remove image %s: machines stand on it", name).
				WithHint("drain and delete the machines of the pools that use it")
		}
	}
	return p.images.Remove(name)
}

// forwardingDir is where the installations that share a switch for forwarding keep what it was before. Each network
// namespace has a switch of its own.
func forwardingDir() string {
	name, err := os.Readlink("/proc/self/ns/net") // net:[4026531833]
	if err != nil {
		return "/run/shoal-forwarding"
	}
	return "/run/shoal-forwarding-" + strings.Trim(name, "net:[]")
}
