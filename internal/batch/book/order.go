package book

import (
	"context"
	"slices"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/batch/gang"
	"github.com/shoal-pool/shoal/internal/batch/line"
	"github.com/shoal-pool/shoal/internal/batch/outcome"
	"github.com/shoal-pool/shoal/internal/launch"
	"github.com/shoal-pool/shoal/internal/store"
)

// Orders are the attempts that should be running on a machine. What is to be ended there is not among
// them, and is told to the agent after them, also if it never heard of it: so each end is reported.
func (b *Book) Orders(ctx context.Context, machine shoal.MachineID) ([]api.TaskOrder, error) {
	if err := b.begun(ctx); err != nil {
		return nil, err
	}
	type node struct {
		attempt        shoal.Attempt
		position, rank int
	}
	var nodes []node
	lives := map[shoal.TaskRef]*live{} // whoever stands in line behind one of them is here, too
	b.mu.Lock()
	for ref, l := range b.live {
		if rank, there := gang.Rank(l.attempt, machine); there && !gang.Nodes(l.attempt)[rank].State.Ended() {
			nodes = append(nodes, node{l.attempt, l.position, rank})
			lives[ref] = &live{attempt: l.attempt}
		}
	}
	b.mu.Unlock()
	if len(nodes) == 0 {
		return nil, nil
	}
	slices.SortFunc(nodes, func(x, y node) int { return outcome.CompareRefs(x.attempt.TaskRef, y.attempt.TaskRef) })
	var orders []api.TaskOrder
	var stops []api.Record
	err := b.cfg.Store.View(ctx, func(tx *store.Tx) error {
		orders, stops = nil, nil
		p := placing{Group: newGroup(b, tx, lives), machines: map[shoal.MachineID]*shoal.Machine{}}
		m, err := p.machine(machine)
		if err != nil || m == nil {
			return err
		}
		for _, n := range nodes {
			j, err := p.Job(n.attempt.Job)
			if err != nil {
				return err
			}
			switch {
			case gang.Nodes(n.attempt)[n.rank].Epoch != m.Epoch:
			case gang.Decided(n.attempt):
				stops = append(stops, gang.Stop(n.attempt.AttemptRef, gang.StopState(n.attempt)))
			case j.Cancel && !n.attempt.Release:
				stops = append(stops, gang.Stop(n.attempt.AttemptRef, shoal.JobCancelled))
			default:
				o, err := p.order(j.Job, n.attempt, n.position, n.rank)
				if err != nil {
					return err
				}
				orders = append(orders, o)
				if line.Overtaken(n.attempt, p.Attempt) { // it may not have heard
					stops = append(stops, line.Recall(n.attempt.AttemptRef))
				}
			}
		}
		return nil
	})
	for _, r := range stops {
		b.cfg.Send(machine, r)
	}
	return orders, err
}

// order is what the agent of a rank needs to run an attempt.
func (p *placing) order(j shoal.Job, a shoal.Attempt, position, rank int) (api.TaskOrder, error) {
	pool, err := p.Tables.Named(j.Spec.Pool)
	if err != nil {
		return api.TaskOrder{}, err
	}
	t := launch.Task{Job: j, Attempt: a, Position: position, Pool: pool}
	if j.Items > 0 && position >= 0 {
		if t.Item, _, err = p.Tx.Item(j.ID, position); err != nil {
			return api.TaskOrder{}, err
		}
	}
	for _, node := range gang.Nodes(a) {
		m, err := p.machine(node.Machine)
		if err != nil {
			return api.TaskOrder{}, err
		}
		if m == nil {
			m = &shoal.Machine{ID: node.Machine}
		}
		t.Nodes = append(t.Nodes, launch.NodeOf(*m, node.GPUs))
	}
	if len(t.Nodes) > 1 {
		if t.SSH, err = gang.Keys(p.b.cfg.Key, a.AttemptRef); err != nil {
			return api.TaskOrder{}, err
		}
	}
	if t.Secrets, t.Refused, err = p.b.cfg.Secrets.ForTask(p.Tx, j); err != nil {
		return api.TaskOrder{}, err
	}
	o := launch.Order(t, rank)
	o.Hold = gang.Held(a)
	if line.Before(a, p.Attempt) != nil {
		o.After = a.Behind
	}
	if a.Release {
		o.TimeLimit = shoal.Duration(releaseLimit)
	}
	return o, nil
}
