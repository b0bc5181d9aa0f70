package app

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/gateway/remote"
	"github.com/shoal-pool/shoal/internal/gateway/sshfront"
	"github.com/shoal-pool/shoal/internal/reach"
)

// runGateway serves as a gateway alone: with no store, no providers, and nothing that needs root.
func runGateway(ctx context.Context, opts Options) error {
	opts, err := opts.withDefaults()
	if err != nil {
		return err
	}
	unlock, err := only(opts.Data)
	if err != nil {
		return err
	}
	defer unlock()
	key, err := loadKey(opts.path("keys", userCAFile))
	if err != nil {
		return err
	}
	mirrorKey, err := loadBytes(opts.path("keys", "mirror"), agentKeySize)
	if err != nil {
		return err
	}
	cfg := remote.Config{Servers: opts.Servers, Dir: opts.Data, TokenFile: opts.TokenFile, Key: key.PublicKey(), Seal: mirrorKey,
		OfflineFor: opts.OfflineFor, Dial: opts.Dial, Log: opts.Log}
	g, err := remote.Open(ctx, cfg)
	if err != nil {
		return err
	}
	dial := opts.Dial
	if dial == nil {
		dial = machineDialer().DialContext
	}
	way := reach.New(reach.Config{Dial: dial, HostCA: g.HostCA(), Machine: g.Machine, Here: func(string) bool { return false }, Back: g.Back, Log: opts.Log})
	front, err := sshfront.New(sshfront.Config{HostKey: g.HostKey(), UserCA: key, HostCA: g.HostCA(), Directory: g, Router: g, Dial: way.Dial,
		Environ: g.Environ, Lingers: opts.Linger > 0, Waits: true, Log: opts.Log})
	if err != nil {
		return err
	}
	following, stop := context.WithCancel(context.WithoutCancel(ctx)) // until the last of those who are here has gone
	defer stop()
	var parts errgroup.Group
	parts.Go(func() error { return g.Run(following, forgetting{front, way}) })
	parts.Go(func() error {
		defer stop()
		return letIn(ctx, opts, g, front)
	})
	if err := parts.Wait(); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// settles is for how long a gateway that is told to end, and lingers, takes people as before: whatever leads them to it, such as the balancers of a
// cluster, takes that long to notice.
const settles = 10 * time.Second

// letIn lets people in once it is known whom.
func letIn(ctx context.Context, opts Options, g *remote.Gateway, front *sshfront.Front) error {
	if err := g.Ready(ctx); err != nil {
		return err
	}
	door := opts.Listeners.SSH
	if door == nil {
		var err error
		if door, err = listenTCP(net.ListenConfig{}, opts.SSHListen, "--ssh-listen"); err != nil {
			return err
		}
	}
	opts.Log.Info("serving", "gateway", string(g.Name()), "ssh", door.Addr(), "data", opts.Data)
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	longer := min(settles, opts.Linger)
	defer context.AfterFunc(ctx, func() {
		if longer > 0 {
			opts.Log.Info("told to end: people are taken for a moment longer", "for", longer)
		}
		time.AfterFunc(longer, stop)
	})()
	err := front.Serve(serving, door)
	lingering, cancel := context.WithTimeout(context.WithoutCancel(ctx), opts.Linger-longer)
	defer cancel()
	front.Linger(lingering)
	return err
}

// forgetting forgets the way to a machine that is gone, too.
type forgetting struct {
	*sshfront.Front
	way *reach.Reach
}

// MachineGone is of remote.Front.
func (f forgetting) MachineGone(id shoal.MachineID) {
	f.Front.MachineGone(id)
	f.way.Gone(id)
}

// only makes this process the only gateway on its data directory, which must be no server's.
func only(data string) (unlock func(), err error) {
	if err := makeDirs(data, filepath.Join(data, "keys")); err != nil {
		return nil, err
	}
	if _, err := os.Stat(filepath.Join(data, "admin.token")); err == nil {
		return nil, shoal.Errorf(shoal.KindConflict, "cannot serve as a gateway on %s: it is the data directory of a server", data).
			WithHint("give the gateway one of its own with --data")
	}
	f, err := os.OpenFile(filepath.Join(data, "serve.lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, shoal.Errorf(shoal.KindConflict, "cannot serve as a gateway on %s: another process does", data).
			WithHint("each gateway has a data directory and a name of its own")
	}
	return func() { f.Close() }, nil
}
