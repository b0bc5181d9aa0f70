package scale

import (
	"cmp"
	"maps"
	"slices"

	"github.com/shoal-pool/shoal"
)

// need is what a pool is short of, in machines, and by what.
type need struct {
	seats, tasks, min    int // further machines that each of these wants
	rules                int // and the rules
	rule                 string
	waiting, spare       int // logins and spare seats that find no free seat
	unplaced, impossible int // tasks for which the pool may have no machine; that no machine could run
	largest              shoal.Resources
}

func (n need) machines() int { return max(n.seats, n.tasks, n.min, n.rules) }

// short counts what does not fit on a set of machines.
func (p *plan) short(on []*Machine) need {
	n := need{min: p.Pool.Size.Min - len(on)}
	if p.Pool.Has(shoal.UseInteractive) {
		seats := max(p.Pool.Seats, 1)
		free, doubtful := 0, 0
		for _, m := range on {
			free += max(seats-m.Sessions, 0)
			if m.Suspect {
				doubtful += max(seats-m.Sessions, 0)
			}
		}
		n.waiting = max(p.Waiting-free+doubtful, 0)
		n.spare = max(p.Waiting+p.Pool.Size.Spare-free-n.waiting, 0)
		n.seats = (n.waiting + n.spare + seats - 1) / seats
	}
	if p.Pool.Has(shoal.UseBatch) && len(p.Queue) > 0 {
		p.pack(on, &n)
	}
	return n
}

// pack places waiting tasks, largest first, on what machines have free, and then on as many
// further machines as they fill, up to the pool's limit.
func (p *plan) pack(on []*Machine, n *need) {
	queue := slices.Clone(p.Queue)
	slices.SortStableFunc(queue, func(a, b Queue) int {
		return cmp.Or(cmp.Compare(b.Resources.GPUs, a.Resources.GPUs), cmp.Compare(b.Resources.Memory, a.Resources.Memory), cmp.Compare(b.Resources.CPUs, a.Resources.CPUs))
	})
	free := make([]room, len(on))
	for i, m := range on {
		free[i] = p.roomOf(m)
	}
	back := p.back()
	most := len(back) + max(p.limit-p.alive+len(p.serving)-len(on), 0) // without these there would be room for others
	for _, q := range queue {
		if q.Tasks <= 0 {
			continue
		}
		if !q.Resources.Fits(p.empty().of(q)) {
			n.impossible += q.Tasks
			if !q.Resources.Fits(n.largest) {
				n.largest = q.Resources
			}
			continue
		}
		left := q.Tasks
		for i := 0; left > 0; i++ {
			if i == len(free) {
				if n.tasks >= most {
					break
				}
				further := p.empty()
				if n.tasks < len(back) {
					further = p.roomOf(back[n.tasks])
				}
				n.tasks++
				free = append(free, further)
			}
			k := min(left, times(q.Resources, free[i].of(q)))
			if q.Each > 0 {
				k = min(k, q.Each)
			}
			free[i].take(q, shoal.Resources{CPUs: q.Resources.CPUs * shoal.MilliCPU(k), Memory: q.Resources.Memory * shoal.Bytes(k), GPUs: q.Resources.GPUs * k})
			left -= k
		}
		n.unplaced += left
	}
}

// room is what tasks do not use of a machine, of that what is not reserved, and what each user there keeps for herself.
type room struct {
	all, firm shoal.Resources
	seats     map[shoal.UserName]shoal.Resources
}

func (p *plan) roomOf(m *Machine) room {
	return room{m.Resources.Sub(m.Used), m.Resources.Sub(p.Reserved).Sub(m.Firm), m.Seats}
}

func (p *plan) empty() room { return room{all: p.Pool.Machine, firm: p.Pool.Machine.Sub(p.Reserved)} }

// of is what tasks of a queue find.
func (r room) of(q Queue) shoal.Resources {
	left := r.all
	for user, seat := range r.seats {
		if user != q.User {
			left = left.Sub(seat)
		}
	}
	if !q.Firm {
		return left
	}
	return shoal.Resources{CPUs: min(left.CPUs, r.firm.CPUs), Memory: min(left.Memory, r.firm.Memory), GPUs: min(left.GPUs, r.firm.GPUs)}
}

func (r *room) take(q Queue, uses shoal.Resources) {
	r.all = r.all.Sub(uses)
	if q.Firm {
		r.firm = r.firm.Sub(uses)
	}
	if seat, ok := r.seats[q.User]; ok {
		rest := seat.Sub(uses)
		r.seats = maps.Clone(r.seats)
		r.seats[q.User] = shoal.Resources{CPUs: max(rest.CPUs, 0), Memory: max(rest.Memory, 0), GPUs: max(rest.GPUs, 0)}
	}
}

// back is which machines can be had by taking cordons back, the first first. Old ones can be once their rollout has stopped.
func (p *plan) back() []*Machine {
	var all []*Machine
	for _, m := range p.reserve {
		if len(all)+len(p.serving) < p.limit && !p.retired(m.ID) && (!m.rolled() || !m.Old() || p.Rollout.Stopped()) {
			all = append(all, m)
		}
	}
	return all
}

// times is how often r fits into have. What asks for nothing fits a thousand times: a machine is
// still something that tasks can fill.
func times(r, have shoal.Resources) int {
	n := 1000
	if r.CPUs > 0 {
		n = min(n, int(max(have.CPUs, 0)/r.CPUs))
	}
	if r.Memory > 0 {
		n = min(n, int(max(have.Memory, 0)/r.Memory))
	}
	if r.GPUs > 0 {
		n = min(n, max(have.GPUs, 0)/r.GPUs)
	}
	return n
}
