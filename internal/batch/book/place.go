package book

import (
	"errors"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/batch/after"
	"github.com/shoal-pool/shoal/internal/batch/gang"
	"github.com/shoal-pool/shoal/internal/batch/line"
	"github.com/shoal-pool/shoal/internal/batch/outcome"
	"github.com/shoal-pool/shoal/internal/sched"
)

// carryOut starts what fits, and has go what must.
func (g *Group) carryOut(plan sched.Plan) error {
	p := placing{Group: g, machines: map[shoal.MachineID]*shoal.Machine{}}
	for _, start := range plan.Starts {
		if err := p.start(start); err != nil {
			return err
		}
	}
	for _, v := range plan.Preempt {
		if err := p.preempt(v); err != nil {
			return err
		}
	}
	return nil
}

// placing is a group that starts tasks.
type placing struct {
	*Group
	machines map[shoal.MachineID]*shoal.Machine // as they are now
	gpus     gang.Taken                         // by others
}

func (p *placing) start(s sched.Placement) error {
	j, err := p.Job(s.Job)
	if err != nil {
		return err
	}
	if j.Counts.Queued == 0 {
		p.b.seen = -1 // what was asked just now has changed it
		return nil
	}
	// The first that never started is the next to start: if it cannot, neither can those behind it.
	usable := !j.State.Ended() && !j.Cancel && (s.Position <= j.Next || after.Gated(j.Spec))
	var nodes []shoal.Member
	for _, id := range s.Machines {
		m, err := p.machine(id)
		if err != nil {
			return err
		}
		if m == nil || !m.Accepts() {
			usable = false
			continue
		}
		nodes = append(nodes, shoal.Member{Machine: m.ID, Epoch: m.Epoch, State: shoal.JobStarting})
	}
	array, err := p.b.array(j.Job)
	if err != nil {
		return err
	}
	a := &shoal.Attempt{User: j.User, Pool: j.Spec.Pool, State: shoal.JobStarting, Placed: p.Now, Memory: s.Memory, Backfilled: s.Backfilled}
	a.TaskRef = shoal.TaskRef{Job: j.ID, Index: array.Index(s.Position)}
	a.Attempt = 1
	if s.Position < j.Next || after.Gated(j.Spec) {
		last, err := p.Latest(a.TaskRef)
		if err != nil {
			return err
		}
		if last != nil {
			usable = usable && outcome.Repeats(j.Job, *last)
			a.Failures = last.Failures
		}
		a.Attempt = outcome.Following(last)
	}
	if s.Behind.Job != "" {
		a.Behind, err = p.standing(s.Behind, nodes)
		if err != nil {
			return err
		}
		usable = usable && a.Behind != nil
	}
	if !usable {
		p.b.seen = -1 // the plan was made on old news
		return nil
	}
	j.Next = max(j.Next, s.Position+1)
	for i := range nodes {
		if n := j.Spec.Resources.GPUs; n > 0 {
			nodes[i].GPUs = p.takeGPUs(*p.machines[nodes[i].Machine], n)
		}
	}
	a.Machine, a.Epoch, a.GPUs = nodes[0].Machine, nodes[0].Epoch, nodes[0].GPUs
	if len(nodes) > 1 {
		a.Members = nodes
	}
	p.Touch(j)
	j.Counts.Add(shoal.JobQueued, -1)
	j.Counts.Add(shoal.JobStarting, 1)
	p.Put(a)
	p.position[a.TaskRef] = s.Position
	p.changes = append(p.changes, sched.Start{Placement: s, At: p.Now})
	return errors.Join(p.b.cfg.Secrets.Given(p.Tx, j.Job, a.AttemptRef), p.command(j.Job, *a, s.Position))
}

// standing is the attempt of a task that another is to come behind; nil if it has ended, or did not start where it was to.
func (p *placing) standing(t sched.Task, nodes []shoal.Member) (*shoal.AttemptRef, error) {
	j, err := p.Job(t.Job)
	if err != nil {
		return nil, err
	}
	array, err := p.b.array(j.Job)
	if err != nil {
		return nil, err
	}
	a := p.Attempt(shoal.TaskRef{Job: t.Job, Index: array.Index(t.Position)})
	if a == nil || a.State.Ended() || gang.Decided(*a) || len(nodes) != 1 || a.Machine != nodes[0].Machine || a.Epoch != nodes[0].Epoch {
		return nil, nil
	}
	return &a.AttemptRef, nil
}

// recall takes back what waits for the place of an attempt, as far as it still does.
func (g *Group) recall(ref shoal.AttemptRef) {
	for next, ok := g.b.behind[ref]; ok; next, ok = g.b.behind[ref] {
		a := g.Attempt(next)
		if a == nil || a.State.Ended() {
			return
		}
		g.send(a.Machine, line.Recall(a.AttemptRef))
		ref = a.AttemptRef
	}
}

// command sends the orders of an attempt to its nodes.
func (p *placing) command(j shoal.Job, a shoal.Attempt, position int) error {
	for rank, m := range gang.Nodes(a) {
		if m.State.Ended() {
			continue
		}
		o, err := p.order(j, a, position, rank)
		if err != nil {
			return err
		}
		p.send(m.Machine, api.Record{Run: &o})
	}
	return nil
}

// preempt has a task told to go. That it must is on record before it is told.
func (p *placing) preempt(v sched.Preemption) error {
	j, err := p.Job(v.Job)
	if err != nil {
		return err
	}
	array, err := p.b.array(j.Job)
	if err != nil {
		return err
	}
	a := p.Attempt(shoal.TaskRef{Job: v.Job, Index: array.Index(v.Position)})
	if a == nil || a.State.Ended() || gang.Decided(*a) {
		return nil
	}
	a = p.Change(a)
	p.recall(a.AttemptRef)
	gang.Decide(a, shoal.CausePreempted, v.Reason)
	p.Stop(*a, shoal.JobPreempted)
	p.changes = append(p.changes, sched.Preempting{Task: v.Task, For: v.For, Until: p.Now.Add(graceful + slack)})
	return p.announce(j.Job, *a, v)
}

// announce tells those who log in that what they are entitled to is still being freed. Processors are
// theirs at once; memory and GPUs are not before the task is gone.
func (p *placing) announce(j shoal.Job, a shoal.Attempt, v sched.Preemption) error {
	if len(v.Users) == 0 {
		return nil
	}
	m, err := p.machine(v.Machine)
	if err != nil || m == nil {
		return err
	}
	used := shoal.Resources{}
	for _, l := range p.b.live {
		if _, there := gang.Rank(l.attempt, m.ID); there && line.Before(l.attempt, p.Attempt) == nil {
			used = used.Add(l.uses)
		}
	}
	seat := sched.PoolOf(p.b.world.Pools[m.Pool]).Seat
	for range p.b.world.Sitting[m.ID] {
		used.Memory += seat.Memory
	}
	if used.Memory <= m.Resources.Memory {
		return nil
	}
	for _, user := range v.Users {
		p.send(m.ID, api.Record{Message: &api.Message{User: user,
			Text: "a task of job " + outcome.Title(j) + " is making room for you on " + string(m.ID) + "; its memory is free in " + shoal.Duration(graceful).String() + " at the latest"}})
	}
	return nil
}

// machine returns a machine as the transaction sees it; nil if there is none.
func (p *placing) machine(id shoal.MachineID) (*shoal.Machine, error) {
	if m, ok := p.machines[id]; ok {
		return m, nil
	}
	if m, ok := p.seen(id); ok { // as it was looked at last, and it has not changed
		p.machines[id] = &m
		return &m, nil
	}
	m, err := p.Tx.Machines().Get(id)
	if shoal.KindOf(err) == shoal.KindNotFound {
		p.machines[id] = nil
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	p.machines[id] = &m
	return &m, nil
}

// seen is a machine as Run looked at it last, if nothing has changed since.
func (p *placing) seen(id shoal.MachineID) (m shoal.Machine, ok bool) {
	if p.own && p.from == p.b.seen {
		m, ok = p.b.world.Machines[id]
	}
	return m, ok
}

// takeGPUs chooses GPUs of a machine that no other attempt has.
func (p *placing) takeGPUs(m shoal.Machine, n int) []int {
	if p.gpus == nil {
		p.gpus = gang.Taken{}
		for ref := range p.b.live {
			if a := p.Attempt(ref); !a.State.Ended() {
				p.gpus.Add(gang.Nodes(*a)...)
			}
		}
	}
	free := gang.GPUs(m.Resources.GPUs, n, p.gpus[m.ID])
	p.gpus.Add(shoal.Member{Machine: m.ID, GPUs: free})
	return free
}

// array returns the indexes of a job that has begun.
func (b *Book) array(j shoal.Job) (shoal.Array, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if a, ok := b.arrays[j.ID]; ok {
		return a, nil
	}
	a, err := shoal.ParseArray(j.Spec.Array)
	if err == nil && j.Spec.Array != "" && !j.State.Ended() {
		b.arrays[j.ID] = a
	}
	return a, err
}
