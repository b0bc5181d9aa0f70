package api

import (
	"time"

	"github.com/shoal-pool/shoal"
)

// Shape is what makes a pool's machines what they are: a machine made of another is replaced.
type Shape struct {
	Image          string           `json:"image"`
	OS             string           `json:"os,omitempty"`
	Machine        shoal.Resources  `json:"machine"`
	ProviderConfig map[string]any   `json:"providerConfig,omitempty"`
	Mounts         []shoal.Mount    `json:"mounts,omitempty"`
	Home           shoal.Home       `json:"home,omitzero"`
	Setup          *shoal.Setup     `json:"setup,omitempty"`
	Endpoints      []shoal.Endpoint `json:"endpoints,omitempty"`
}

// ShapeOf is the shape of a pool's machines.
func ShapeOf(p shoal.Pool) Shape {
	return Shape{p.Image, p.OS, p.Machine, p.ProviderConfig, p.Mounts, p.Home, p.Setup, p.Endpoints}
}

// Give gives a pool the shape.
func (s Shape) Give(p shoal.Pool) shoal.Pool {
	p.Image, p.OS, p.Machine, p.ProviderConfig, p.Mounts, p.Home, p.Setup, p.Endpoints = s.Image, s.OS, s.Machine, s.ProviderConfig, s.Mounts, s.Home, s.Setup, s.Endpoints
	return p
}

// Revision is one shape that a pool's machines have had.
type Revision struct {
	N      int       `json:"n"`
	At     time.Time `json:"at"`
	Digest string    `json:"digest"` // as machines carry it
	Shape  Shape     `json:"shape"`
	Done   time.Time `json:"done,omitzero"`   // when the last machine of another shape had gone
	Halted time.Time `json:"halted,omitzero"` // when it stopped by itself, until it goes on
}

// The states of a rollout.
const (
	RolloutDone    = "done"
	RolloutRunning = "running"
	RolloutPaused  = "paused"
	RolloutStopped = "stopped" // by itself: new machines did not become ready
)

// RolloutStatus is how far the machines of a pool have come to be as the pool says.
type RolloutStatus struct {
	Pool      shoal.PoolName `json:"pool"`
	State     string         `json:"state"`
	Since     time.Time      `json:"since"`            // of the latest revision
	New       int            `json:"new"`              // machines that run as the pool is now
	Coming    int            `json:"coming"`           // that start
	Old       int            `json:"old"`              // that run and are to be replaced
	Draining  int            `json:"draining"`         // of them, those that take nobody new
	Ends      time.Time      `json:"ends,omitzero"`    // when the last old one ends at the latest
	Failed    int            `json:"failed,omitempty"` // new ones in a row that did not become ready
	Sentence  string         `json:"sentence"`
	Revisions []Revision     `json:"revisions"` // the newest first
}

// RolloutRequest stops a rollout, lets it go on, or goes back to a former revision.
type RolloutRequest struct {
	Action   string `json:"action"`             // pause, resume or undo
	Revision int    `json:"revision,omitempty"` // to undo to. Default: the one before
}
