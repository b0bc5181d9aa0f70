// Package world reads what is on record, as far as the engine decides by it.
package world

import (
	"fmt"
	"reflect"
	"sync"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/batch/gang"
	"github.com/shoal-pool/shoal/internal/sched"
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
	Firm      shoal.Resources // of that, by tasks that are never told to go
	Names     []string        // "alice (tmux)", for people
	seats     map[shoal.UserName]seats
}

// seats is what one user has on a machine.
type seats struct {
	active, away int             // sessions, of which away ones are disconnected
	used         shoal.Resources // by her own tasks
}

// Seats is what those who are logged in on a machine of a pool are entitled to beside what their own tasks use; others' tasks
// leave that alone.
func (c Crowd) Seats(p sched.Pool) map[shoal.UserName]shoal.Resources {
	if !p.Interactive || c.Sessions == 0 {
		return nil
	}
	all := make(map[shoal.UserName]shoal.Resources, c.Sessions)
	for user, s := range c.seats {
		if s.active+s.away == 0 {
			continue
		}
		all[user] = p.Entitled(s.active, s.away, s.used)
	}
	return all
}

func (c *Crowd) sit(user shoal.UserName, change func(*seats)) {
	if c.seats == nil {
		c.seats = map[shoal.UserName]seats{}
	}
	s := c.seats[user]
	change(&s)
	c.seats[user] = s
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
	if w.Demand, err = r.demandOf(tx, w.seated()); err != nil {
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
		c.sit(s.User, func(u *seats) {
			if s.State == shoal.SessionDisconnected {
				u.away++
			} else {
				u.active++
			}
		})
		c.Names = append(c.Names, describe(s))
		w.People[s.Machine] = c
	}
	return nil
}

// seated are the users who are on a machine, by pool. No tasks are read yet.
func (w *World) seated() map[shoal.PoolName]map[shoal.UserName]bool {
	all := map[shoal.PoolName]map[shoal.UserName]bool{}
	for _, m := range w.Machines {
		for user := range w.People[m.ID].seats {
			if all[m.Pool] == nil {
				all[m.Pool] = map[shoal.UserName]bool{}
			}
			all[m.Pool][user] = true
		}
	}
	return all
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

// GPUs says what is known of a machine's GPUs.
func GPUs(m shoal.Machine) string {
	l, all := m.Load, fmt.Sprintf("%d GPUs", m.Resources.GPUs)
	if m.Resources.GPUs == 1 {
		all = "1 GPU"
	}
	if reflect.ValueOf(l).IsZero() {
		return all + ", of which its agent has told nothing yet"
	}
	s := fmt.Sprintf("%s, %d%% busy, with %s of their memory in use", all, l.GPUPercent, l.GPUMemory)
	if l.GPUs != m.Resources.GPUs {
		s = fmt.Sprintf("%s, and its agent sees %d", all, l.GPUs)
	}
	if l.GPUNote != "" {
		s += "; " + l.GPUNote
	}
	return s
}

func (w *World) readTasks() error {
	attempts, err := w.Tx.LiveAttempts()
	if err != nil {
		return err
	}
	late := map[shoal.JobID]needs{} // of jobs that began after the demand was read
	for _, a := range attempts {
		need, ok := w.needs[a.Job]
		if !ok {
			if need, ok = late[a.Job]; !ok {
				j, err := w.Tx.Jobs().Get(a.Job)
				if err != nil && shoal.KindOf(err) != shoal.KindNotFound {
					return err
				}
				need = needsOf(j)
				late[a.Job] = need
			}
		}
		for _, node := range gang.Nodes(a) {
			c := w.People[node.Machine]
			c.Tasks++
			c.Used = c.Used.Add(need.Resources)
			if need.firm {
				c.Firm = c.Firm.Add(need.Resources)
			}
			c.sit(a.User, func(u *seats) { u.used = u.used.Add(need.Resources) })
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
