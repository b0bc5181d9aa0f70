package api

import (
	"time"

	"github.com/shoal-pool/shoal"
)

// OpenApp asks for a user's app. If one is there that has not ended, of the same user, pool, endpoint and
// name, that is the answer, and all but these four is ignored.
type OpenApp struct {
	Pool     shoal.PoolName `json:"pool,omitempty"` // empty: the default pool
	Endpoint string         `json:"endpoint"`
	Name     string         `json:"name,omitempty"` // one of several of the endpoint jupyter
	User     shoal.UserName `json:"user,omitempty"` // the hub's token only; default: who asks
	// Command and Env are for the endpoint jupyter alone, where they add to the pool's own.
	Command string            `json:"command,omitempty"`
	Env     map[string]string `json:"env,omitempty"`
	BaseURL string            `json:"baseURL,omitempty"` // where the hub's proxy routes to it; default /shoal/app/POOL/ENDPOINT/
	Ready   *shoal.Probe      `json:"ready,omitempty"`
}

// AppActivity says how an app is used. A time that is older than what is known changes nothing.
type AppActivity struct {
	LastActivity time.Time `json:"lastActivity"`
	Kernels      int       `json:"kernels,omitempty"`
	Terminals    int       `json:"terminals,omitempty"`
}

// AppOrder is an app that a machine's agent is to run, as its user, under a supervisor that outlives the agent.
type AppOrder struct {
	ID       shoal.AppID    `json:"id"`
	User     shoal.UserName `json:"user"`
	Endpoint string         `json:"endpoint"`
	// Command is empty once the machine has said that it has the app: one it does not know then is over.
	Command string            `json:"command,omitempty"`
	Env     map[string]string `json:"env,omitempty"`
	BaseURL string            `json:"baseURL,omitempty"`
	Ready   shoal.Probe       `json:"ready,omitzero"`
	// Strip: the app wants / in place of BaseURL; the front end takes it off, so probes leave it out too.
	Strip bool `json:"strip,omitempty"`
}

// StopApp ends an app.
type StopApp struct {
	ID shoal.AppID `json:"id"`
}

// AppReport is news of an app.
type AppReport struct {
	ID       shoal.AppID    `json:"id"`
	State    shoal.AppState `json:"state"` // starting, running, ended, failed
	Reason   string         `json:"reason,omitempty"`
	Progress string         `json:"progress,omitempty"`
	Ill      string         `json:"ill,omitempty"`
	Port     int            `json:"port,omitempty"` // of the machine, where the gateway gets in
	ExitCode int            `json:"exitCode,omitempty"`
	Log      string         `json:"log,omitempty"` // its last lines
	// LastActivity is when its processes were last seen at work.
	LastActivity time.Time `json:"lastActivity,omitzero"`
}
