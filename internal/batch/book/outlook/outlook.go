// Package outlook says to the scheduler what is on record: jobs, machines with who sits there, pools,
// groups, and what users have used.
package outlook

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/batch/after"
	"github.com/shoal-pool/shoal/internal/batch/gang"
	"github.com/shoal-pool/shoal/internal/sched"
	"github.com/shoal-pool/shoal/internal/store"
)

// Job is a job as placement sees it, without tasks that must start again. A task is gone so long after its
// time limit at the latest. Of one that is held nothing starts.
func Job(j shoal.Job, account shoal.GroupName, grace time.Duration, held bool) sched.Job {
	number, _ := strconv.ParseInt(string(j.ID), 10, 64)
	s := sched.Job{ID: j.ID, Number: number, User: j.User, Group: account, Pool: j.Spec.Pool, Priority: sched.PriorityOf(j.Spec.Priority),
		Resources: j.Spec.Resources, Nodes: j.Spec.Nodes, MaxRunning: j.Spec.MaxRunning, Preemptible: j.Spec.GivesWay(),
		Unshiftable: j.Spec.Requeue == "never", Total: j.Counts.Total(), Next: j.Next, Gated: after.Gated(j.Spec), Blocked: j.Blocked || held}
	if j.Spec.TimeLimit > 0 {
		s.Limit = time.Duration(j.Spec.TimeLimit) + grace
	}
	if j.Cancel {
		s.Next, s.Gated = s.Total, false // nothing of it starts any more
	}
	return s
}

// Start is what placement knows of an attempt that is live. What waited for another's place counts as if it had it: that is
// soon so, and until then less is started there. One that was told to go is gone by a time.
func Start(a shoal.Attempt, position int, until time.Time) []sched.Change {
	task := sched.Task{Job: a.Job, Position: position}
	s := sched.Start{At: a.Placed, Placement: sched.Placement{Task: task, Memory: a.Memory, Backfilled: a.Backfilled}}
	for _, m := range gang.Nodes(a) {
		s.Machines = append(s.Machines, m.Machine)
	}
	changes := []sched.Change{s}
	if len(a.Members) > 0 && !a.Started.IsZero() {
		changes = append(changes, sched.Began{Task: task, At: a.Started})
	}
	if gang.Decided(a) && a.Cause == shoal.CausePreempted {
		changes = append(changes, sched.Preempting{Task: task, Until: until})
	}
	return changes
}

// World is what there is beside jobs.
type World struct {
	Machines map[shoal.MachineID]shoal.Machine
	Pools    map[shoal.PoolName]shoal.Pool
	Sitting  map[shoal.MachineID][]sched.Sitting
}

// Look reads what there is, and says it to the scheduler.
func Look(tx *store.Tx) (World, []sched.Change, shoal.Rev, error) {
	rev, err := tx.Rev()
	if err != nil {
		return World{}, nil, 0, err
	}
	machines, err := tx.LiveMachines()
	if err != nil {
		return World{}, nil, 0, err
	}
	sessions, err := tx.LiveSessions()
	if err != nil {
		return World{}, nil, 0, err
	}
	groups, err := tx.Groups().List()
	if err != nil {
		return World{}, nil, 0, err
	}
	pools, err := tx.Pools().List()
	if err != nil {
		return World{}, nil, 0, err
	}
	w, changes := Of(machines, sessions, pools, groups)
	return w, changes, rev, nil
}

// Of sorts what there is, and says it to the scheduler.
func Of(machines []shoal.Machine, sessions []shoal.Session, pools []shoal.Pool, groups []shoal.Group) (World, []sched.Change) {
	w := World{Machines: make(map[shoal.MachineID]shoal.Machine, len(machines)), Pools: map[shoal.PoolName]shoal.Pool{}, Sitting: map[shoal.MachineID][]sched.Sitting{}}
	for _, s := range sessions {
		if s.Machine != "" {
			w.Sitting[s.Machine] = append(w.Sitting[s.Machine], sched.Sitting{User: s.User, Active: s.State != shoal.SessionDisconnected})
		}
	}
	alive := map[shoal.PoolName]int{}
	places := make(sched.PutMachines, 0, len(machines))
	for _, m := range machines {
		w.Machines[m.ID] = m
		if m.Alive() {
			alive[m.Pool]++
		}
		place := sched.MachineOf(m)
		place.Sessions = w.Sitting[m.ID]
		slices.SortFunc(place.Sessions, func(a, b sched.Sitting) int { return cmp.Compare(a.User, b.User) })
		places = append(places, place)
	}
	var settings sched.PutPools
	for _, p := range pools {
		w.Pools[p.Name] = p
		s := sched.PoolOf(p)
		s.Room = max(Most(p)-alive[p.Name], 0)
		settings = append(settings, s)
	}
	weights := sched.PutGroups{}
	for _, g := range groups {
		if g.Weight > 0 {
			weights[g.Name] = g.Weight
		}
	}
	return w, []sched.Change{places, settings, weights}
}

// Gone says why nothing of an attempt can be running on a machine any more; empty if it can.
func (w World) Gone(id shoal.MachineID, epoch int) string {
	m, ok := w.Machines[id]
	switch {
	case !ok:
		return fmt.Sprintf("its machine %s is gone", id)
	case m.State == shoal.MachineFailed && m.Reason != "":
		return fmt.Sprintf("its machine %s failed: %s", m.ID, m.Reason)
	case m.State == shoal.MachineStopped || m.State == shoal.MachineFailed || m.State == shoal.MachineGone:
		return fmt.Sprintf("its machine %s is %s", m.ID, m.State)
	case m.State == shoal.MachineRequested || m.State == shoal.MachineBooting || m.Epoch != epoch:
		return fmt.Sprintf("its machine %s was started anew", m.ID)
	}
	return ""
}

// Most is how many machines a pool may have.
func Most(p shoal.Pool) int {
	if p.Fixed != nil {
		return p.Fixed.Size
	}
	return p.Size.Max
}
