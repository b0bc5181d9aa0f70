// Package cgroups keeps the control groups of a machine's users: a slice for each, and in it a leaf for
// her logins and one for each of her tasks.
package cgroups

import (
	"time"

	"github.com/shoal-pool/shoal"
)

// Config says where groups are made.
type Config struct {
	// Parent is the group below which all are made, relative to each hierarchy's root; empty: the root itself.
	Parent string `json:"parent,omitempty"`
	// Resources are the machine's; zero: what the kernel says.
	Resources shoal.Resources `json:"resources,omitzero"`
}

// Tree is the groups of one machine.
type Tree struct{}

// Group is one leaf.
type Group struct{}

// Usage is what the processes of a group have used.
type Usage struct {
	MaxMemory shoal.Bytes
	CPU       time.Duration
	OOMKilled bool
}

// Open finds out whether groups can be made here. An error says why not; a caller goes on with a nil Tree.
func Open(cfg Config) (*Tree, error) {
	return nil, shoal.Errorf(shoal.KindUnavailable, "cannot make control groups: not built yet")
}

// User returns the leaf for a user's logins, making it if need be. On a nil Tree it is the zero Group, whose methods do nothing.
func (t *Tree) User(uid int) (Group, error) { return Group{}, nil }

// Task makes a leaf for a task of a user.
func (t *Tree) Task(uid int, name string, r shoal.Resources) (Group, error) { return Group{}, nil }

// System returns the leaf for the machine's own processes: init puts itself there before it starts anything.
func (t *Tree) System() (Group, error) { return Group{}, nil }

// Add moves a process into the group.
func (g Group) Add(pid int) error { return nil }

// Files are those to which a starting process writes its own pid.
func (g Group) Files() []string { return nil }

// Usage reads what was used.
func (g Group) Usage() (Usage, error) { return Usage{}, nil }

// Pids lists the group's processes.
func (g Group) Pids() ([]int, error) { return nil, nil }

// Kill ends all processes of the group.
func (g Group) Kill() error { return nil }

// Remove removes the group, whose processes must have ended.
func (g Group) Remove() error { return nil }
