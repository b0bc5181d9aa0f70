package engine

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/batch/after"
	"github.com/shoal-pool/shoal/internal/batch/gang"
	"github.com/shoal-pool/shoal/internal/scale"
	"github.com/shoal-pool/shoal/internal/store"
	"github.com/shoal-pool/shoal/provider"
)

// world is what is on record, as far as the engine decides by it.
type world struct {
	tx       *store.Tx // for what is read only when it is needed
	pools    []shoal.Pool
	shares   map[shoal.ShareName]shoal.Share
	machines []shoal.Machine // but those gone
	people   map[shoal.MachineID]crowd
	waiting  map[shoal.PoolName]int
	*demand
	sessions map[shoal.PoolName]int // that have not ended
}

// crowd is who is on a machine.
type crowd struct {
	sessions  int
	connected int // of them, with an open part
	tasks     int
	used      shoal.Resources
	names     []string // "alice (tmux)", for people
}

func (c crowd) empty() bool { return c.sessions == 0 && c.tasks == 0 }

// look reads the world.
func (e *Engine) look(tx *store.Tx) (*world, error) {
	w := &world{tx: tx, shares: map[shoal.ShareName]shoal.Share{}, people: map[shoal.MachineID]crowd{}, waiting: map[shoal.PoolName]int{}, sessions: map[shoal.PoolName]int{}}
	var err error
	if w.pools, err = tx.Pools().List(); err != nil {
		return nil, err
	}
	shares, err := tx.Shares().List()
	if err != nil {
		return nil, err
	}
	for _, s := range shares {
		w.shares[s.Name] = s
	}
	if w.machines, err = tx.LiveMachines(); err != nil {
		return nil, err
	}
	if err := w.lookAtSessions(tx); err != nil {
		return nil, err
	}
	return w, e.lookAtTasks(w, tx)
}

func (w *world) lookAtSessions(tx *store.Tx) error {
	sessions, err := tx.LiveSessions()
	if err != nil {
		return err
	}
	type wish struct {
		user shoal.UserName
		pool shoal.PoolName
	}
	seen := map[wish]bool{}
	for _, s := range sessions {
		w.sessions[s.Pool]++
		if s.Machine == "" {
			// Several logins of one user share a seat, once there is one.
			if k := (wish{s.User, s.Pool}); s.State == shoal.SessionWaiting && !seen[k] {
				seen[k] = true
				w.waiting[s.Pool]++
			}
			continue
		}
		c := w.people[s.Machine]
		c.sessions++
		if len(s.Parts) > 0 {
			c.connected++
		}
		c.names = append(c.names, describe(s))
		w.people[s.Machine] = c
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
	return fmt.Sprintf("%s (%s)", s.User, what)
}

func (e *Engine) lookAtTasks(w *world, tx *store.Tx) error {
	attempts, err := tx.LiveAttempts()
	if err != nil {
		return err
	}
	d, err := e.demandOf(tx)
	if err != nil {
		return err
	}
	w.demand = d
	late := map[shoal.JobID]shoal.Resources{} // of jobs that began after the demand was read
	for _, a := range attempts {
		need, ok := d.needs[a.Job]
		if !ok {
			if need, ok = late[a.Job]; !ok {
				j, err := tx.Jobs().Get(a.Job)
				if err != nil && shoal.KindOf(err) != shoal.KindNotFound {
					return err
				}
				need = j.Spec.Resources
				late[a.Job] = need
			}
		}
		for _, node := range gang.Nodes(a) {
			c := w.people[node.Machine]
			c.tasks++
			c.used = c.used.Add(need)
			w.people[node.Machine] = c
		}
	}
	return nil
}

// demand is what jobs want of pools. It is not changed once it is made.
type demand struct {
	queues map[shoal.PoolName][]scale.Queue
	jobs   map[shoal.PoolName]int          // that have not ended
	needs  map[shoal.JobID]shoal.Resources // of those that run
	read   time.Time
	cost   time.Duration
}

// Reading a hundred thousand jobs takes a second: what took long is believed for a while.
const (
	cheapDemand  = 20 * time.Millisecond
	demandFactor = 10
)

// demandOf returns the demand, as it is or, if it takes long to read, as it was a moment ago.
func (e *Engine) demandOf(tx *store.Tx) (*demand, error) {
	e.mu.Lock()
	last := e.demand
	e.mu.Unlock()
	if last != nil && last.cost > cheapDemand && time.Since(last.read) < demandFactor*last.cost {
		return last, nil
	}
	began := time.Now()
	d, err := readDemand(tx)
	if err != nil {
		return nil, err
	}
	d.read, d.cost = time.Now(), time.Since(began)
	e.mu.Lock()
	e.demand = d
	e.mu.Unlock()
	return d, nil
}

func readDemand(tx *store.Tx) (*demand, error) {
	d := &demand{queues: map[shoal.PoolName][]scale.Queue{}, jobs: map[shoal.PoolName]int{}, needs: map[shoal.JobID]shoal.Resources{}}
	type line struct {
		pool shoal.PoolName
		size shoal.Resources
		each int
	}
	at := map[line]int{}
	err := tx.EachActiveJob(func(j shoal.Job) error {
		d.jobs[j.Spec.Pool]++
		if j.Counts.Starting+j.Counts.Running > 0 {
			d.needs[j.ID] = j.Spec.Resources
		}
		if j.Counts.Queued <= 0 || j.Blocked || j.Cancel {
			return nil
		}
		n := demandOfJob(j)
		k := line{j.Spec.Pool, j.Spec.Resources, 0}
		if j.Spec.Nodes.Min > 1 {
			k.each = n // the nodes of a task are on different machines
		}
		i, ok := at[k]
		if !ok {
			i = len(d.queues[k.pool])
			at[k] = i
			d.queues[k.pool] = append(d.queues[k.pool], scale.Queue{Resources: k.size, Each: k.each})
		}
		d.queues[k.pool][i].Tasks += n * j.Spec.Nodes.Least()
		return nil
	})
	return d, err
}

// demandOfJob is how many of a job's waiting tasks ask for machines. Of those that become ready one by one
// it is not on record how many are: one asks, and the next once that runs.
func demandOfJob(j shoal.Job) int {
	n := j.Counts.Queued
	if most := j.Spec.MaxRunning; most > 0 {
		n = min(n, max(most-j.Counts.Starting-j.Counts.Running, 0))
	}
	if after.Gated(j.Spec) {
		n = min(n, 1)
	}
	return n
}

// pool returns a pool by its name.
func (w *world) pool(name shoal.PoolName) (shoal.Pool, bool) {
	for _, p := range w.pools {
		if p.Name == name {
			return p, true
		}
	}
	return shoal.Pool{}, false
}

// recentMachines is how many of a pool's machines are looked at for failures in a row.
const recentMachines = 50

// recent returns machines of a pool, those gone included.
func (w *world) recent(pool shoal.PoolName) ([]shoal.Machine, error) {
	recent, _, err := w.tx.MachinesPage(store.MachineFilter{Pool: pool, Gone: true}, "", recentMachines)
	return recent, err
}

// mounts resolves a pool's mounts. A share that is not there is left out: nothing can be mounted.
func (w *world) mounts(p shoal.Pool) []provider.Mount {
	var all []provider.Mount
	for _, m := range p.Mounts {
		if s, ok := w.shares[m.Share]; ok {
			all = append(all, provider.Mount{Share: s, Path: m.Path, ReadOnly: m.ReadOnly})
		}
	}
	return all
}

// desktop is where machines of the pool give remote desktops; 0: nowhere.
func desktop(p shoal.Pool) int {
	for _, e := range p.Endpoints {
		if e.Protocol == shoal.ProtocolRDP {
			return e.Port
		}
	}
	return 0
}

// digest is of all that makes a machine of the pool what it is: one with another digest is outdated.
func (w *world) digest(p shoal.Pool) string {
	mounts := w.mounts(p)
	for i := range mounts {
		mounts[i].Share.Meta = shoal.Meta{}
	}
	shape := struct {
		Image   string
		Machine shoal.Resources
		Config  map[string]any
		Mounts  []provider.Mount
		Home    shoal.Home
		Setup   *shoal.Setup
		Desktop int    `json:",omitempty"` // port
		OS      string `json:",omitempty"`
	}{p.Image, p.Machine, p.ProviderConfig, mounts, p.Home, p.Setup, desktop(p), p.OS}
	text, err := json.Marshal(shape)
	if err != nil { // a pool comes from JSON: it can be written as such
		return ""
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:8])
}
