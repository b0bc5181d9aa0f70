package agent

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/provider"
)

// Host is what the loop does to its machine. No method is called by two goroutines at once, but different ones may be.
type Host interface {
	// HostKey returns the public key of sshd, authorized_keys form.
	HostKey() (string, error)
	// Joined configures sshd and has it started, if the image has one yet. An empty certificate stands for the
	// one that is there.
	Joined(certificate string) error
	// Booted tells whether this start of the machine had become ready; MarkBooted remembers that it has.
	Booted() bool
	MarkBooted() error
	// Setup runs the pool's setup command unless it has succeeded on this machine before. log is the end of what it said.
	Setup(ctx context.Context, setup shoal.Setup) (log string, err error)
	// Accounts makes users, groups and whom sshd trusts, and ends what users run who have none any more. It is quick, and
	// touches no mount.
	Accounts(want api.Accounts, mounts []api.AgentMount) error
	// Files makes homes and group directories; with probe it also writes to each mount and logs in
	// through sshd. An error names the mounts that do not answer. Unmade are homes and directories of which each is a matter of
	// its user's alone; Load has the reasons.
	Files(ctx context.Context, want api.Accounts, mounts []api.AgentMount, probe bool) (unmade int, err error)
	// Load measures the machine.
	Load(have shoal.Resources) shoal.Load
}

// Desktop gives remote desktops. See package host/desktop.
type Desktop interface {
	// Serve configures them, and returns once they answer. What cannot be in this image is KindInvalid.
	Serve(ctx context.Context, o api.DesktopOrder) error
	// End begins to end the desktop of a user, and all that runs in it. One that is not there is no error.
	End(uid int) error
}

// Tasks runs the attempts of jobs. See package tasks.
type Tasks interface {
	Want(orders []api.TaskOrder)
	Start(o api.TaskOrder)
	Stop(o api.StopOrder)
	Forget(f api.ForgetTask)
	Resend(list []api.Resend)
	Changed() <-chan struct{}
	Collect(maxBytes int) (reports []api.TaskReport, output []api.Output, sent func())
	Running() map[shoal.UserName]int
}

// Apps runs users' web apps. See package host/apps.
type Apps interface {
	Want(orders []api.AppOrder, doors []string)
	Start(o api.AppOrder)
	Stop(id shoal.AppID)
	Changed() <-chan struct{}
	Collect() (reports []api.AppReport, sent func())
	Live() int
}

// Probes asks the machine's endpoints whether they answer. See package host/probes.
type Probes interface {
	Want(all []api.EndpointProbe)
	Changed() <-chan struct{}
	Collect() (reports []api.EndpointReport, sent func())
}

// Watcher sees who has what on the machine. See package activity.
type Watcher interface {
	Look() (api.Activity, error)
	Tell(user shoal.UserName, text string) error
	// End ends what a user has beside tasks, web apps and desktops, unless it was used within the time. With a negative
	// time it always does.
	End(ctx context.Context, user shoal.UserName, unused time.Duration) error
}

// Site asks the pool's own command whether something is in use on the machine. See package activity.
type Site interface {
	Want(command string)
	Ask(ctx context.Context)
	Held() string
	Changed() <-chan struct{}
}

// Fence ends the tasks that are not idempotent when the lease has run out. See package tasks.
type Fence interface {
	// Renew says until when they may run, by Config.Uptime.
	Renew(until time.Duration)
}

// Config is how an agent is set up. Fence, Uptime, Relay, Door, Replaced and TokenFile may be left out.
type Config struct {
	Join    provider.Join
	Version string
	Host    Host
	Tasks   Tasks
	Fence   Fence
	Watcher Watcher
	Desktop Desktop // nil: there are none
	Apps    Apps    // nil: there are none
	Probes  Probes  // nil: nothing is asked
	Site    Site    // nil: pools' commands are not asked
	// Uptime is the clock by which the lease is counted: it goes on while the machine is suspended. Nil: the
	// process's own.
	Uptime func() time.Duration
	// Notice takes what people are to read when they log in; may be nil.
	Notice func(text string)
	People *People // kept up to date by the agent
	Log    *slog.Logger
	// Dial reaches the control plane; nil: by the address in Join.
	Dial func(ctx context.Context) (net.Conn, error)
	// LetIn has the machine's sshd serve a connection from now on, whatever becomes of the agent. Nil: streams for sshd go to its port.
	LetIn func(*os.File) error
	// SSHPort is where sshd listens; 0: 22.
	SSHPort int
	// Address is the machine's own, at which the gateway would come to its ports; nil: the loopback.
	Address func() string
	// TokenFile keeps the durable token over a restart of the agent, not of the machine.
	TokenFile string
	// HubListen listens where notebook servers look for JupyterHub's API; nil: they find it by themselves.
	HubListen func() (net.Listener, error)
	// Relay is where users' requests come in.
	Relay net.Listener
	// Door says that somebody has come or gone.
	Door <-chan struct{}
	// Replaced tells that there is a newer agent: Run then returns ErrReplaced.
	Replaced func() bool
}

// ErrReplaced is returned by Run when another binary lies where this one did.
var ErrReplaced = errors.New("the agent was replaced")

// Agent is the loop of one machine.
type Agent struct {
	cfg     Config
	control *control
	wake    chan struct{} // capacity 1: there is something to report
	kick    chan struct{} // capacity 1: there is something to settle
	linked  chan struct{} // capacity 1: the control plane is there again
	joined  bool          // by this process; only link's
	gaps    int           // of the lease when the stream was opened; only link's
	lease   lease
	streams streams
	hub     struct {
		sync.Mutex
		open bool // notebook servers come to JupyterHub
	}

	handing sync.Mutex     // keeps the tasks of two snapshots in order
	working sync.WaitGroup // beside the loops

	mu     sync.Mutex
	rejoin context.CancelFunc // ends the stream, so that link joins again
	want   want
	out    outbox
}

// want is desired state, as received last.
type want struct {
	snapshot api.Snapshot // without accounts and tasks
	accounts api.Accounts
	tasks    *[]api.TaskOrder // of a snapshot, until they were handed over
	gaps     int              // of the lease when its stream was opened
	apps     *[]api.AppOrder  // of a snapshot, until they were handed over
	seq      int              // counts changes of accounts and mounts
	tried    int              // the newest of them that was tried to be put into effect
	attempt  chan struct{}    // closed when tried grows
	booted   bool
}

// outbox is what is to be reported.
type outbox struct {
	boot     *api.BootReport // nil: nothing new
	notYet   time.Time       // before, nothing is worth a report
	rev      shoal.Rev       // in effect
	revSent  shoal.Rev
	look     bool   // look at the machine at once
	looked   string // for which Look
	snapshot bool   // all that is known is to be sent: the other side may have forgotten it
	unmade   int    // homes and directories
}

// New makes an agent.
func New(cfg Config) (*Agent, error) {
	c, err := newControl(cfg)
	if err != nil {
		return nil, err
	}
	a := &Agent{cfg: cfg, control: c, wake: make(chan struct{}, 1), kick: make(chan struct{}, 1), linked: make(chan struct{}, 1)}
	c.newLead = a.rejoinNow
	a.want.attempt = make(chan struct{})
	a.streams.places = make(chan struct{}, mostStreams)
	if a.cfg.Uptime == nil {
		began := time.Now()
		a.cfg.Uptime = func() time.Duration { return time.Since(began) }
	}
	return a, nil
}

// Run runs the loop until ctx ends, then sends what there is still to report. It returns ErrReplaced when a newer
// agent should take over.
func (a *Agent) Run(ctx context.Context) error {
	if a.cfg.Host.Booted() {
		a.want.booted = true
		a.out.boot = &api.BootReport{Ready: true}
	}
	defer a.control.http.CloseIdleConnections()
	g, ctx := errgroup.WithContext(ctx)
	a.streams.life = ctx
	g.Go(func() error { return a.link(ctx) })
	g.Go(func() error { return a.settle(ctx) })
	g.Go(func() error { return a.report(ctx) })
	if a.cfg.Relay != nil {
		g.Go(func() error { return a.relay(ctx) })
	}
	err := g.Wait()
	a.working.Wait()
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// poke wakes a goroutine that waits on a channel of capacity 1.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
