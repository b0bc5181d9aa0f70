// Package world reads what is on record, as far as the engine decides by it.
package world

import (
	"fmt"
	"sync"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/batch/gang"
	"github.com/shoal-pool/shoal/internal/store"
	"github.com/shoal-pool/shoal/provider"
)

// World is what is on record.
type World struct {
	Tx       *store.Tx // for what is read only when it is needed
	Pools    []shoal.Pool
	Shares   map[shoal.ShareName]shoal.Share
	Machines []shoal.Machine // but those gone
	People   map[shoal.MachineID]Crowd
	Waiting  map[shoal.PoolName]int // logins without a seat
	Sessions map[shoal.PoolName]int // that have not ended
	*Demand
}

// Crowd is who is on a machine.
type Crowd struct {
	Sessions  int
	Connected int // of them, with an open part
	Tasks     int
	Used      shoal.Resources // by those tasks
	Names     []string        // "alice (tmux)", for people
}

// Empty reports whether nobody is there.
func (c Crowd) Empty() bool { return c.Sessions == 0 && c.Tasks == 0 }

// Reader reads the world. The zero value is ready; its methods may be called from any goroutine.
type Reader struct {
	// Held says why nothing more of a user's jobs starts now; empty, or nil: it does.
	Held func(shoal.UserName) string

	mu     sync.Mutex // guards demand; never held while in the store
	demand *Demand    // as it was last read
}

// Read reads the world as tx sees it.
func (r *Reader) Read(tx *store.Tx) (*World, error) {
	w := &World{Tx: tx, Shares: map[shoal.ShareName]shoal.Share{}, People: map[shoal.MachineID]Crowd{}, Waiting: map[shoal.PoolName]int{}, Sessions: map[shoal.PoolName]int{}}
	var err error
	if w.Pools, err = tx.Pools().List(); err != nil {
		return nil, err
	}
	shares, err := tx.Shares().List()
	if err != nil {
		return nil, err
	}
	for _, s := range shares {
		w.Shares[s.Name] = s
	}
	if w.Machines, err = tx.LiveMachines(); err != nil {
		return nil, err
	}
	if err := w.readSessions(); err != nil {
		return nil, err
	}
	if w.Demand, err = r.demandOf(tx); err != nil {
		return nil, err
	}
	return w, w.readTasks()
}

func (w *World) readSessions() error {
	sessions, err := w.Tx.LiveSessions()
	if err != nil {
		return err
	}
	type wish struct {
		user shoal.UserName
		pool shoal.PoolName
	}
	seen := map[wish]bool{}
	for _, s := range sessions {
		w.Sessions[s.Pool]++
		if s.Machine == "" {
			// Several logins of one user share a seat, once there is one.
			if k := (wish{s.User, s.Pool}); s.State == shoal.SessionWaiting && !seen[k] {
				seen[k] = true
				w.Waiting[s.Pool]++
			}
			continue
		}
		c := w.People[s.Machine]
		c.Sessions++
		if len(s.Parts) > 0 {
			c.Connected++
		}
		c.Names = append(c.Names, describe(s))
		w.People[s.Machine] = c
	}
	return nil
}

// describe says who somebody is to a machine: "alice (connected)", "bob (tmux)".
func describe(s shoal.Session) string {
	what := ""
	switch {
	case len(s.Parts) > 0:
		what = "connected"
	case len(s.Pins) > 0:
		what = s.Pins[0].Kind
	case time.Now().Before(s.KeepUntil):
		what = "keeps it awake until " + s.KeepUntil.UTC().Format("2006-01-02 15:04 MST")
	default:
		return string(s.User)
	}
	if !s.Ends.IsZero() && s.Ending == "session" {
		what += ", unused; ends at " + s.Ends.UTC().Format("15:04 MST")
	}
	return fmt.Sprintf("%s (%s)", s.User, what)
}

func (w *World) readTasks() error {
	attempts, err := w.Tx.LiveAttempts()
	if err != nil {
		return err
	}
	late := map[shoal.JobID]shoal.Resources{} // of jobs that began after the demand was read
	for _, a := range attempts {
		need, ok := w.needs[a.Job]
		if !ok {
			if need, ok = late[a.Job]; !ok {
				j, err := w.Tx.Jobs().Get(a.Job)
				if err != nil && shoal.KindOf(err) != shoal.KindNotFound {
					return err
				}
				need = j.Spec.Resources
				late[a.Job] = need
			}
		}
		for _, node := range gang.Nodes(a) {
			c := w.People[node.Machine]
			c.Tasks++
			c.Used = c.Used.Add(need)
			w.People[node.Machine] = c
		}
	}
	return nil
}

// Pool returns a pool by its name.
func (w *World) Pool(name shoal.PoolName) (shoal.Pool, bool) {
	for _, p := range w.Pools {
		if p.Name == name {
			return p, true
		}
	}
	return shoal.Pool{}, false
}

// recentMachines is how many of a pool's machines are looked at for failures in a row.
const recentMachines = 50

// Recent returns machines of a pool, those gone included.
func (w *World) Recent(pool shoal.PoolName) ([]shoal.Machine, error) {
	recent, _, err := w.Tx.MachinesPage(store.MachineFilter{Pool: pool, Gone: true}, "", recentMachines)
	return recent, err
}

// Mounts resolves a pool's mounts. A share that is not there is left out: nothing can be mounted.
func (w *World) Mounts(p shoal.Pool) []provider.Mount {
	var all []provider.Mount
	for _, m := range p.Mounts {
		if s, ok := w.Shares[m.Share]; ok {
			all = append(all, provider.Mount{Share: s, Path: m.Path, ReadOnly: m.ReadOnly})
		}
	}
	return all
}
