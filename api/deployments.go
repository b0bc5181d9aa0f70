package api

import (
	"time"

	"github.com/shoal-pool/shoal"
)

// Deployment is on record of what `shoal deploy` made of a template, under its name. Secret values are no part of it.
type Deployment struct {
	Name     string `json:"name"`
	Group    string `json:"group,omitempty"`
	Location string `json:"location,omitempty"`
	Template string `json:"template"` // a file or an address
	// Parameters are their values as they are shown; Secure are the names of those that are secret.
	Parameters map[string]string `json:"parameters,omitempty"`
	Secure     []string          `json:"secure,omitempty"`
	Outputs    map[string]string `json:"outputs,omitempty"`
	Changes    []Change          `json:"changes,omitempty"`
	Secrets    []string          `json:"secrets,omitempty"` // names of those that were kept
	Notes      []string          `json:"notes,omitempty"`
	Access     []string          `json:"access,omitempty"` // commands by which people get in
	Failed     string            `json:"failed,omitempty"` // why, if it did
	// The server's: by whom, when for the first and when for the last time.
	By      string    `json:"by,omitempty"`
	Created time.Time `json:"created,omitzero"`
	Updated time.Time `json:"updated,omitzero"`
	// Runs counts how often it was deployed.
	Runs int `json:"runs,omitempty"`
}

// Pools are the pools that it made or changed.
func (d Deployment) Pools() []string {
	var all []string
	for _, c := range d.Changes {
		if c.Kind == shoal.ObjectPool {
			all = append(all, c.Name)
		}
	}
	return all
}
