package engine

import (
	"maps"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/fleet"
	"github.com/shoal-pool/shoal/provider"
)

// memory is what the engine knows beside the store.
type memory struct {
	links   map[shoal.MachineID]link
	tracks  map[shoal.MachineID]track
	holds   map[shoal.PoolName]hold
	sights  map[string]sight // by provider
	moving  map[string]bool  // providers with machines on their way, by the last pass
	landed  time.Time        // when an effect last ended
	elastic map[shoal.PoolName]elastic
	glances map[shoal.MachineID]glance
	warned  map[shoal.MachineID]warned
	// suspects did not answer a front end, and their seats are not counted on until then.
	suspects map[shoal.MachineID]time.Time
	// flushAt is when loads are to be stored; zero: nothing to store.
	flushAt, flushed time.Time
}

// link is the stream of a machine's agent.
type link struct {
	up    bool
	since time.Time // of up
	seen  time.Time // last report
	load  shoal.Load
	// stored is what the store knows of load and seen.
	stored     shoal.Load
	storedSeen time.Time
}

// track is what is known of effects on one machine.
type track struct {
	fleet.Track
	provider string
	stuck    bool // it should have ended long ago; it no longer counts
	fails    int  // in a row
}

// hold keeps a pool from getting machines because its provider said so.
type hold struct {
	fleet.Hold
	fails int
}

// sight is what a provider last showed.
type sight struct {
	seen     *fleet.Seen
	err      string    // of the last try
	tried    time.Time // when it ended
	failing  time.Time // since when tries fail; zero: the last one succeeded
	failures int
}

func newMemory() memory {
	return memory{links: map[shoal.MachineID]link{}, tracks: map[shoal.MachineID]track{}, holds: map[shoal.PoolName]hold{},
		sights: map[string]sight{}, moving: map[string]bool{}, elastic: map[shoal.PoolName]elastic{}, glances: map[shoal.MachineID]glance{},
		warned: map[shoal.MachineID]warned{}, suspects: map[shoal.MachineID]time.Time{}}
}

// recall copies the memory for a pass.
func (e *Engine) recall() memory {
	e.mu.Lock()
	defer e.mu.Unlock()
	m := e.memory
	m.links, m.tracks, m.holds, m.sights = maps.Clone(m.links), maps.Clone(m.tracks), maps.Clone(m.holds), maps.Clone(m.sights)
	m.elastic, m.glances, m.warned = maps.Clone(m.elastic), maps.Clone(m.glances), maps.Clone(m.warned)
	m.suspects = maps.Clone(m.suspects)
	return m
}

// runs reports whether a machine runs, as its provider was last seen.
func (e *Engine) runs(m shoal.Machine) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	seen := e.sights[m.Provider].seen
	return seen != nil && seen.Machines[m.ID].Phase == provider.PhaseRunning
}

// linked reports whether a machine's agent has its stream open.
func (e *Engine) linked(id shoal.MachineID) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.links[id].up
}

// forget drops what is remembered of machines that are no more. Effects under way are not forgotten,
// nor are recent ones: what a provider shows may be older than they.
func (e *Engine) forget(live map[shoal.MachineID]bool, pools map[shoal.PoolName]bool, now time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for id := range e.links {
		if !live[id] {
			delete(e.links, id)
			delete(e.glances, id)
		}
	}
	for id, t := range e.tracks {
		if !live[id] && !t.Busy && now.Sub(t.Ended) > trackFor && now.After(t.Next) {
			delete(e.tracks, id)
		}
	}
	for id := range e.warned {
		if !live[id] {
			delete(e.warned, id)
		}
	}
	maps.DeleteFunc(e.suspects, func(_ shoal.MachineID, until time.Time) bool { return !now.Before(until) })
	for name := range e.elastic {
		if !pools[name] {
			delete(e.elastic, name)
		}
	}
	for name, h := range e.holds {
		if !pools[name] || now.Sub(h.Until) > trackFor {
			delete(e.holds, name)
		}
	}
}

// trackFor is how long effects on machines without a row, and holds, are remembered.
const trackFor = 10 * time.Minute
