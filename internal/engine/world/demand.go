package world

import (
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/batch/after"
	"github.com/shoal-pool/shoal/internal/scale"
	"github.com/shoal-pool/shoal/internal/store"
)

// Demand is what jobs want of pools. It is not changed once it is made.
type Demand struct {
	Queues map[shoal.PoolName][]scale.Queue
	Jobs   map[shoal.PoolName]int // that have not ended
	needs  map[shoal.JobID]needs  // of those that run
	read   time.Time
	cost   time.Duration
}

// needs is what a task of a job uses.
type needs struct {
	shoal.Resources
	firm bool // it is never told to go
}

func needsOf(j shoal.Job) needs { return needs{j.Spec.Resources, !j.Spec.GivesWay()} }

// Reading a hundred thousand jobs takes a second: what took long is believed for a while.
const (
	cheapDemand  = 20 * time.Millisecond
	demandFactor = 10
)

// demandOf returns the demand, as it is or, if it takes long to read, as it was a moment ago.
func (r *Reader) demandOf(tx *store.Tx, seated map[shoal.PoolName]map[shoal.UserName]bool) (*Demand, error) {
	r.mu.Lock()
	last := r.demand
	r.mu.Unlock()
	if last != nil && last.cost > cheapDemand && time.Since(last.read) < demandFactor*last.cost {
		return last, nil
	}
	began := time.Now()
	d, err := r.readDemand(tx, seated)
	if err != nil {
		return nil, err
	}
	d.read, d.cost = time.Now(), time.Since(began)
	r.mu.Lock()
	r.demand = d
	r.mu.Unlock()
	return d, nil
}

func (r *Reader) readDemand(tx *store.Tx, seated map[shoal.PoolName]map[shoal.UserName]bool) (*Demand, error) {
	d := &Demand{Queues: map[shoal.PoolName][]scale.Queue{}, Jobs: map[shoal.PoolName]int{}, needs: map[shoal.JobID]needs{}}
	type line struct {
		pool shoal.PoolName
		size shoal.Resources
		each int
		firm bool
		user shoal.UserName
	}
	at := map[line]int{}
	err := tx.EachActiveJob(func(j shoal.Job) error {
		d.Jobs[j.Spec.Pool]++
		if j.Counts.Starting+j.Counts.Running > 0 {
			d.needs[j.ID] = needsOf(j)
		}
		if j.Counts.Queued <= 0 || j.Blocked || j.Cancel || r.Held != nil && r.Held(j.User) != "" {
			return nil
		}
		n := demandOfJob(j)
		k := line{pool: j.Spec.Pool, size: j.Spec.Resources, firm: !j.Spec.GivesWay()}
		if seated[j.Spec.Pool][j.User] {
			k.user = j.User
		}
		if j.Spec.Nodes.Min > 1 {
			k.each = n // the nodes of a task are on different machines
		}
		i, ok := at[k]
		if !ok {
			i = len(d.Queues[k.pool])
			at[k] = i
			d.Queues[k.pool] = append(d.Queues[k.pool], scale.Queue{Resources: k.size, Each: k.each, Firm: k.firm, User: k.user})
		}
		d.Queues[k.pool][i].Tasks += n * j.Spec.Nodes.Least()
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
