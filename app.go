package shoal

import "time"

// The protocols of endpoints.
const (
	ProtocolHTTP = "http"
	ProtocolRDP  = "rdp"
	ProtocolTCP  = "tcp"
)

// The affinities of endpoints: by what a visitor is led to a machine.
const (
	AffinityUser   = "user"   // who she is
	AffinitySource = "source" // from where she comes
)

// EndpointJupyter is the name of JupyterHub's endpoint, which needs no command: its hub's spawner gives each server's.
const EndpointJupyter = "jupyter"

// Endpoint is a front end of a pool beside ssh.
type Endpoint struct {
	Name     string `json:"name"`
	Protocol string `json:"protocol"` // http, rdp, tcp
	// Port is that of the machine, for rdp and tcp. An app of http is told its own, in SHOAL_PORT.
	Port     int    `json:"port,omitempty"`
	Listen   int    `json:"listen,omitempty"`   // rdp, tcp: the gateway's port; default Port
	Affinity string `json:"affinity,omitempty"` // user (default), source
	// Command is run by sh as the user, once for each user who asks for it, and listens on 127.0.0.1:$SHOAL_PORT.
	Command string            `json:"command,omitempty"`
	Env     map[string]string `json:"env,omitempty"`
	// StripPrefix: the app wants / in place of $SHOAL_BASE_URL.
	StripPrefix bool   `json:"stripPrefix,omitempty"`
	Ready       *Probe `json:"ready,omitempty"`
	Share       string `json:"share,omitempty"` // private: only the user herself gets there
	// IdleEnd is after how long without use that ends which would keep its user's machine: a desktop to which nobody is
	// connected, a notebook server with kernels or terminals. Zero: never.
	IdleEnd Duration `json:"idleEnd,omitempty"`
}

// Probe says how an app is asked whether it is well, and in the case of rdp and tcp the machine's port.
type Probe struct {
	Path     string   `json:"path,omitempty"`     // http: below the app's base; any answer below 500 is a good one
	Interval Duration `json:"interval,omitempty"` // between two probes once it runs
	Timeout  Duration `json:"timeout,omitempty"`  // within which it must have come up
	// Threshold is how many probes in a row must fail until what runs is taken for ill.
	Threshold int `json:"threshold,omitempty"`
}

// Endpoint returns the pool's endpoint of a name.
func (p Pool) Endpoint(name string) (Endpoint, bool) {
	for _, e := range p.Endpoints {
		if e.Name == name {
			return e, true
		}
	}
	return Endpoint{}, false
}

// Of returns the endpoint that a kind of part is a connection to: its name, or rdp for the one of that protocol.
func (p Pool) Of(kind string) (Endpoint, bool) {
	for _, e := range p.Endpoints {
		if e.Name == kind || e.Protocol == ProtocolRDP && kind == ProtocolRDP {
			return e, true
		}
	}
	return Endpoint{}, false
}

// AppState is how far a user's app is.
type AppState string

// The states of an app.
const (
	AppWaiting  AppState = "waiting"  // for a machine
	AppStarting AppState = "starting" // on its machine, not ready
	AppRunning  AppState = "running"
	AppEnded    AppState = "ended" // it was stopped, or ended with success
	AppFailed   AppState = "failed"
)

// Ended reports whether a state is one that stays.
func (s AppState) Ended() bool { return s == AppEnded || s == AppFailed }

// App is one user's own instance of a pool's http endpoint: a web app that runs as her on her machine.
type App struct {
	ID       AppID     `json:"id"`
	User     UserName  `json:"user"`
	Pool     PoolName  `json:"pool"`
	Endpoint string    `json:"endpoint"`
	Name     string    `json:"name,omitempty"` // of one of several: JupyterHub's named servers
	Session  SessionID `json:"session,omitempty"`
	Machine  MachineID `json:"machine,omitempty"`
	State    AppState  `json:"state"`
	Reason   string    `json:"reason,omitempty"`
	Since    time.Time `json:"since"`              // of State
	Progress string    `json:"progress,omitempty"` // what is being done, until it runs
	Unknown  bool      `json:"unknown,omitempty"`  // its machine does not answer: nothing is known of it now
	Ill      string    `json:"ill,omitempty"`      // why its probes fail, while it runs
	Address  string    `json:"address,omitempty"`  // host:port where the gateway reaches it, while it runs
	BaseURL  string    `json:"baseURL,omitempty"`  // the path below which it is reached, with / at both ends
	URL      string    `json:"url,omitempty"`      // the whole, for a browser; where it is filled in, it is not stored
	// StripPrefix is the endpoint's: the front end takes BaseURL off.
	StripPrefix bool   `json:"stripPrefix,omitempty"`
	Stopping    bool   `json:"stopping,omitempty"` // it is to end, and has not yet
	ExitCode    int    `json:"exitCode,omitempty"`
	Log         string `json:"log,omitempty"` // its last lines, of one that failed
	Kernels     int    `json:"kernels,omitempty"`
	Terminals   int    `json:"terminals,omitempty"`
	// LastActivity is when somebody last used it, as far as the gateway, the hub or its owner have told.
	LastActivity time.Time `json:"lastActivity,omitzero"`
	Started      time.Time `json:"started,omitzero"` // since when it is ready
	// Ends is when it is ended, with the kernels and terminals that keep it, unless somebody uses it before.
	Ends  time.Time `json:"ends,omitzero"`
	Ended time.Time `json:"ended,omitzero"`
	Meta
}

// Live reports whether the app runs or is about to.
func (a App) Live() bool { return !a.State.Ended() }
