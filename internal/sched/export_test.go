package sched

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/shoal-pool/shoal"
)

// Dump writes everything that Apply builds, in one order, and what is wrong with it.
func (s *State) Dump() string {
	var lines []string
	add := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	for id, j := range s.jobs {
		known, _ := s.Job(id)
		add("job %+v running=%d", known, j.running)
		for t := range j.parts {
			add("part %s %v %+v queued=%v", id, t.again, t.shape.needs, t.queued)
			if t.shape.parts <= 0 || j.pool.shapes[t.shape.needs] != t.shape {
				add("SHAPE %+v", t.shape)
			}
		}
	}
	for _, all := range []map[Task]*run{s.tasks, s.holds} {
		for t, r := range all {
			add("task %v %v %v %v hold=%v going=%v backfilled=%v %v", t, names(r.machines), r.begun, r.end(), r.hold, r.going, r.backfilled, r.rate)
			if r.before != nil {
				add("behind %v %v", t, r.before.task)
			}
		}
	}
	for _, p := range s.pools {
		p.dump(add)
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func names(machines []*machine) (all []shoal.MachineID) {
	for _, m := range machines {
		all = append(all, m.ID)
	}
	return all
}

func (p *pool) dump(add func(string, ...any)) {
	for _, m := range p.machines {
		add("machine %+v known=%v used=%+v firm=%+v soft=%d runs=%d seated=%v", m.Machine, m.known, m.used, m.firm, m.soft, len(m.runs), p.left(m, loan, nil))
		if !slices.IsSortedFunc(m.runs, compareEnds) {
			add("DISORDER of runs on %s", m.ID)
		}
	}
	p.dumpIndexes(add)
	for _, u := range p.people {
		if u.tasks != 0 || u.using != (shoal.Resources{}) || len(u.seats) > 0 {
			slices.SortFunc(u.seats, func(a, b *machine) int { return strings.Compare(string(a.ID), string(b.ID)) })
			add("person %s %s %d %+v %v", p.Name, u.name, u.tasks, u.using, names(u.seats))
		}
	}
	for _, g := range p.parties {
		if g.tasks != 0 {
			add("group %s %s %d %+v", p.Name, g.name, g.tasks, g.using)
		}
		for _, a := range g.accounts {
			if a.planned != 0 {
				add("PLANNED %d", a.planned)
			}
			if a.rate != 0 {
				add("account %s %s %s %d", p.Name, g.name, a.person.name, a.rate)
			}
			for priority, q := range a.queues {
				if len(q.list) != len(q.of) {
					add("QUEUE %v", q)
				}
				for sh, b := range q.of {
					if l := q.list[b.at]; l != (line{b.first(), sh, b}) {
						add("LINE %v", l)
					}
					b.dump(add, fmt.Sprint(p.Name, " ", g.name, " ", a.person.name, " ", priority, sh.needs))
				}
			}
		}
	}
}

func (b *bucket) dump(add func(string, ...any), name string) {
	n := 0
	for i, e := range b.entries {
		if e.part == nil {
			continue
		}
		n++
		if i > 0 && b.entries[i-1].number >= e.number {
			add("DISORDER %v", b.entries)
		}
		add("bucket %s %s", name, e.part.job.id)
	}
	if n != b.live || n == 0 {
		add("BUCKET of %d says %d", n, b.live)
	}
}

// dumpIndexes writes where machines are filed, without regard to what is kept for a head.
func (p *pool) dumpIndexes(add func(string, ...any)) {
	for class := range p.classes {
		at := &p.classes[class]
		for i, x := range []*index{&at.open, &at.short, &at.long} {
			for _, c := range x.chunks {
				if len(c.slots) == 0 || !slices.IsSortedFunc(c.slots, slot.compare) {
					add("CHUNK %v", c.slots)
				}
				want := *c
				if want.measure(); want.most != c.most {
					add("CHUNK says %v", c.most)
				}
				for _, s := range c.slots {
					if i < 2 {
						add("index %s %d %s %v", p.Name, class, s.machine.ID, s.left)
					}
					if i < 2 && s.left != p.left(s.machine, class, nil) {
						add("STALE %v", s)
					}
					if s.machine.kept != (i > 0) || s.machine.kept && (p.head == nil || !slices.Contains(p.head.machines, s.machine)) {
						add("KEPT %v", s)
					}
				}
			}
		}
	}
	for _, s := range p.whole.chunks {
		for _, m := range s.slots {
			add("whole %s %s %v", p.Name, m.machine.ID, m.left)
		}
	}
}

// Running lists what was started and has not ended.
func (s *State) Running() []Task { return slices.Collect(maps.Keys(s.tasks)) }
