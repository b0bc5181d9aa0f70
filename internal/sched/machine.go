package sched

import (
	"cmp"
	"slices"
	"time"

	"github.com/shoal-pool/shoal"
)

// The classes differ in what they may use of a machine on which people may log in.
const (
	loan    = iota // all but the seats of those who are there
	firm           // what no seat is ever entitled to
	classes        // how many there are
)

// places are the machines of a pool that take tasks, by what a class finds left of them.
type places struct {
	open  index // not kept for anybody
	short index // kept: for tasks that are gone before they are needed
	long  index // kept: what is beside what they are kept for, for all others
}

type machine struct {
	Machine
	known bool            // it is on record
	used  shoal.Resources // by what was started, and what is kept for a refill
	firm  shoal.Resources // by that of it which is not preemptible
	runs  []*run          // by end
	soft  int             // runs that something more urgent may take the place of
	going int             // runs that were told to go

	kept      bool // for the pool's head
	keptUntil instant
	filed     [classes]filed
	whole     *shoal.Resources // its key in the pool's index of whole machines
}

// filed is where a machine is in the indexes of a class.
type filed struct {
	first, second *index
	left, beside  shoal.Resources
}

// run is a task that was started and has not ended, or places that are kept for one.
type run struct {
	task       Task
	job        *job
	pool       *pool
	account    *account
	shape      *shape
	machines   []*machine
	rate       int64
	priority   Priority
	backfilled bool
	going      bool // told to go
	hold       bool
	claim      bool    // a hold that counts for limits like the task it is for
	placed     instant // charged from here
	begun      instant // its time limit counts from here
	until      instant // gone then at the latest, if it is going or a hold

	before, next *run // whose place it takes, and who takes its
}

// run makes one of a task, which takes up nothing yet.
func (j *job) run(position int, sh *shape, ids []shoal.MachineID) *run {
	machines := make([]*machine, len(ids))
	for i, id := range ids {
		machines[i] = j.pool.machine(id)
	}
	return &run{task: Task{j.id, position}, job: j, pool: j.pool, account: j.account, shape: sh, machines: machines,
		rate: j.pool.rate(sh.resources, len(ids)), priority: j.priority}
}

// lowly reports whether something more urgent may take its place.
func (r *run) lowly() bool { return r.priority == Low && r.shape.preemptible && !r.hold }

// end is when it is gone at the latest.
func (r *run) end() instant {
	if r.hold {
		return r.until
	}
	e := r.pool.ends(r.shape, r.begun)
	if r.going {
		e = min(e, r.until)
	}
	return e
}

// ends is when a task that begins at a time is gone at the latest.
func (p *pool) ends(sh *shape, begun instant) instant {
	limit := sh.limit
	if limit <= 0 {
		limit = time.Duration(p.Limits.DefaultTimeLimit)
	}
	if limit <= 0 {
		return never
	}
	return begun + instant(limit)
}

func compareEnds(a, b *run) int { return cmp.Compare(a.end(), b.end()) }

// occupy takes up what a task needs.
func (r *run) occupy() {
	for _, m := range r.machines {
		m.used = m.used.Add(r.shape.resources)
		if !r.shape.preemptible {
			m.firm = m.firm.Add(r.shape.resources)
		}
		if r.lowly() {
			m.soft++
			r.pool.soft[m] = struct{}{}
		}
		if r.going {
			m.going++
			r.pool.leaving[m] = struct{}{}
		}
		i, _ := slices.BinarySearchFunc(m.runs, r, compareEnds)
		m.runs = slices.Insert(m.runs, i, r)
		r.pool.reindex(m)
	}
	if r.hold && !r.claim {
		return
	}
	all := times(r.shape.resources, len(r.machines))
	u, g := r.account.person, r.account.party
	u.tasks, g.tasks, r.job.running = u.tasks+1, g.tasks+1, r.job.running+1
	u.using, g.using = u.using.Add(all), g.using.Add(all)
}

// vacate gives it back.
func (r *run) vacate() {
	for _, m := range r.machines {
		m.used = m.used.Sub(r.shape.resources)
		if !r.shape.preemptible {
			m.firm = m.firm.Sub(r.shape.resources)
		}
		if r.lowly() {
			if m.soft--; m.soft == 0 {
				delete(r.pool.soft, m)
			}
		}
		if r.going {
			if m.going--; m.going == 0 {
				delete(r.pool.leaving, m)
			}
		}
		if i := slices.Index(m.runs, r); i >= 0 {
			m.runs = slices.Delete(m.runs, i, i+1)
		}
		r.pool.reindex(m)
		r.pool.tidy(m)
	}
	if r.hold && !r.claim {
		return
	}
	all := times(r.shape.resources, len(r.machines))
	u, g := r.account.person, r.account.party
	u.tasks, g.tasks, r.job.running = u.tasks-1, g.tasks-1, r.job.running-1
	u.using, g.using = u.using.Sub(all), g.using.Sub(all)
}

// change changes when it ends.
func (r *run) change(change func()) {
	if r.before != nil { // it takes up nothing yet
		change()
		return
	}
	r.vacate()
	change()
	r.reach()
	r.occupy()
	r.pool.dirty = true
}

// reach makes sure that its machines are known: they may have been forgotten for a moment.
func (r *run) reach() {
	for _, m := range r.machines {
		r.pool.machines[m.ID] = m
	}
}

// machine returns a machine, which need not be on record.
func (p *pool) machine(id shoal.MachineID) *machine {
	m := p.machines[id]
	if m == nil {
		m = &machine{Machine: Machine{ID: id, Pool: p.Name}}
		p.machines[id] = m
	}
	return m
}

// tidy forgets a machine that is neither on record nor used.
func (p *pool) tidy(m *machine) {
	if !m.known && len(m.runs) == 0 {
		delete(p.machines, m.ID)
	}
}

// sit notes who is logged in on a machine.
func (p *pool) sit(m *machine, sessions []Sitting) {
	for _, s := range m.Sessions {
		u := p.person(s.User)
		u.seats = slices.DeleteFunc(u.seats, func(o *machine) bool { return o == m })
	}
	delete(p.seated, m)
	for _, s := range sessions {
		if u := p.person(s.User); !slices.Contains(u.seats, m) {
			u.seats = append(u.seats, m)
		}
		p.seated[m] = struct{}{}
	}
}

// stand notes which machines are on their way.
func (p *pool) stand(m *machine, now Standing) {
	if delete(p.starting, m); now == Starting {
		p.starting[m] = struct{}{}
	}
}

// seat is what a user's sessions on a machine give her a right to and her own tasks do not use; those of which gone is true
// do not count.
func (p *pool) seat(m *machine, user shoal.UserName, gone func(*run) bool) shoal.Resources {
	active, away := 0, 0
	for _, s := range m.Sessions {
		switch {
		case s.User != user:
		case s.Active:
			active++
		default:
			away++
		}
	}
	var used shoal.Resources
	for _, r := range m.runs {
		if r.account.person.name == user && !r.hold && (gone == nil || !gone(r)) {
			used = used.Add(r.shape.resources)
		}
	}
	return p.Entitled(active, away, used)
}

// left is what a class finds left of a machine, as if the tasks of which gone is true were not there.
func (p *pool) left(m *machine, class int, gone func(*run) bool) shoal.Resources {
	used, firmly := m.used, m.firm
	if gone != nil {
		for _, r := range m.runs {
			if gone(r) {
				used = used.Sub(r.shape.resources)
				if !r.shape.preemptible {
					firmly = firmly.Sub(r.shape.resources)
				}
			}
		}
	}
	left := m.Resources.Sub(used)
	if !p.Interactive {
		return left
	}
	for i, s := range m.Sessions {
		if !slices.ContainsFunc(m.Sessions[:i], func(o Sitting) bool { return o.User == s.User }) {
			left = left.Sub(p.seat(m, s.User, gone))
		}
	}
	if class == firm {
		left = least(left, p.base(m, class).Sub(firmly))
	}
	return left
}

// rests reports whether a task would take a seat that is not lent again yet.
func (p *pool) rests(m *machine, class int, q shoal.Resources, now instant) bool {
	return class == loan && now < p.resting[m] && !q.Fits(p.left(m, class, nil).Sub(p.Seat))
}

// base is what a class could use of a machine without tasks and logins.
func (p *pool) base(m *machine, class int) shoal.Resources {
	if class == firm {
		return m.Resources.Sub(p.Reserved())
	}
	return m.Resources
}

// earliest is when a task of a shape has room on a machine at the latest, if nothing more is started there.
func (p *pool) earliest(m *machine, sh *shape, now instant) instant {
	class := p.class(sh.needs)
	left := p.left(m, class, nil)
	if p.rests(m, class, sh.resources, now) {
		now = p.resting[m]
	}
	if sh.resources.Fits(left) {
		return now
	}
	simple := class == loan && (!p.Interactive || len(m.Sessions) == 0)
	for _, r := range m.runs {
		end := r.end()
		if end == never {
			break
		}
		if simple {
			left = left.Add(r.shape.resources)
		} else {
			left = p.left(m, class, func(o *run) bool { return o.end() <= end })
		}
		if sh.resources.Fits(left) {
			return max(end, now)
		}
	}
	return never
}

// beside is what of a kept machine a task may use that may still be there when the head comes.
func (p *pool) beside(m *machine, class int) shoal.Resources {
	var gone func(*run) bool
	if m.keptUntil != never {
		gone = func(r *run) bool { return r.end() <= m.keptUntil }
	}
	needs := p.head.shape.needs
	left := p.left(m, loan, gone).Sub(needs.resources)
	if class == firm {
		firmly := p.left(m, firm, gone)
		if p.class(needs) == firm {
			firmly = firmly.Sub(needs.resources)
		}
		left = least(left, firmly)
	}
	return left
}

// reindex files a machine anew after a change.
func (p *pool) reindex(m *machine) {
	p.version++
	open := m.known && m.Standing == Open
	for class := range classes {
		var now filed
		if open && (class == loan || p.Interactive) {
			at := &p.classes[class]
			now.first, now.left = &at.open, p.left(m, class, nil)
			if m.kept {
				now.first, now.second = &at.short, &at.long
				now.beside = least(now.left, p.beside(m, class))
			}
		}
		was := &m.filed[class]
		if *was == now {
			continue
		}
		if was.first != nil {
			was.first.remove(slot{was.left, m})
		}
		if was.second != nil {
			was.second.remove(slot{was.beside, m})
		}
		if now.first != nil {
			now.first.insert(slot{now.left, m})
		}
		if now.second != nil {
			now.second.insert(slot{now.beside, m})
		}
		*was = now
	}
	if m.whole != nil && (!open || *m.whole != m.Resources) {
		p.whole.remove(slot{*m.whole, m})
		m.whole = nil
	}
	if m.whole == nil && open {
		r := m.Resources
		m.whole = &r
		p.whole.insert(slot{r, m})
	}
}
