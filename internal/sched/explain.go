package sched

import (
	"time"

	"github.com/shoal-pool/shoal"
)

// Explanation is what stands between a job's next task and a machine.
type Explanation struct {
	Blocked  bool
	Machines int // of the pool, those below
	Room     int // it would fit now: others go first, or the next pass starts it, or it needs more of them at once
	Full     int
	Seated   int // full because of who is logged in
	Small    int // they could not hold it even if empty
	Kept     int // room, but kept for a task that goes before it
	Starting int
	Draining int
	Silent   int
	Leaving  int
	Ahead    int         // waiting tasks that go first: all of higher priority, and her own of jobs submitted before
	Turn     int         // the user's place among those of whom tasks of the same priority wait: 1 is next
	AtLimit  bool        // the user, her group or the job has as much running as it may
	Limit    string      // which limit that is: maxRunning, userTasks, userCPUs, userMemory, userGPUs, groupTasks …
	Head     shoal.JobID // for whom the machines below Kept are kept
	Promised time.Time   // it starts then at the latest, as long as no machine is lost and nothing more urgent comes
	Free     time.Time   // as many machines as it needs have room then at the latest, whoever gets it; zero: nobody knows
}

// Explain says why a job's next task is not started. The state knows no job that has ended. What is
// kept for whom is as the latest Plan left it.
func (s *State) Explain(id shoal.JobID, now time.Time) (Explanation, bool) {
	j := s.jobs[id]
	if j == nil {
		return Explanation{}, false
	}
	at := moment(now)
	p, t := j.pool, &j.part
	for _, g := range j.grown {
		if t.waiting() == 0 {
			t = g
		}
	}
	e := p.outlook(t, at)
	e.Blocked = j.blocked
	if _, e.Limit = p.most(t); j.full() {
		e.Limit = "maxRunning"
	}
	e.AtLimit = e.Limit != ""
	h := p.head
	if h != nil && (e.Kept > 0 || h.job() == j) {
		e.Head = h.job().id
	}
	if h != nil && h.is(t) && h.promised < never {
		e.Promised = max(h.promised, at).time()
	}
	e.Ahead, e.Turn = s.ahead(j, at)
	return e, true
}

// outlooks are what was found for shapes, as long as no machine changes: lists ask for many jobs at once.
type outlooks struct {
	version int
	at      instant
	of      map[outlookKey]Explanation
}

type outlookKey struct {
	shape *shape
	first bool // what is kept is not kept from it
}

// outlook is what the machines of a pool have against a task. It may be a second old.
func (p *pool) outlook(t *part, now instant) Explanation {
	o := &p.outlooks
	if o.of == nil || o.version != p.version || now < o.at || now > o.at+instant(time.Second) {
		*o = outlooks{p.version, now, map[outlookKey]Explanation{}}
	}
	key := outlookKey{t.shape, p.head == nil || t.job.priority > p.head.priority || p.head.is(t)}
	if e, ok := o.of[key]; ok {
		return e
	}
	var e Explanation
	p.count(&e, t, now, key.first)
	w := &pass{pool: p, now: now}
	if all := w.candidates(t.shape); len(all) >= t.shape.nodes.Min {
		e.Free = w.choose(all, t.shape.nodes.Min, t.shape)[t.shape.nodes.Min-1].at.time()
	}
	o.of[key] = e
	return e
}

// count sorts the machines of a pool by what each has against a task.
func (p *pool) count(e *Explanation, t *part, now instant, first bool) {
	class, q := p.class(t.shape.needs), t.shape.resources
	end := p.ends(t.shape, now)
	for _, m := range p.machines {
		if !m.known {
			continue
		}
		e.Machines++
		switch {
		case m.Standing == Starting:
			e.Starting++
		case m.Standing == Draining:
			e.Draining++
		case m.Standing == Silent:
			e.Silent++
		case m.Standing != Open:
			e.Leaving++
		case !q.Fits(p.base(m, class)):
			e.Small++
		case p.rests(m, class, q, now) && q.Fits(m.filed[class].left):
			e.Seated++
		case q.Fits(m.filed[class].left) && (!m.kept || first || m.keptUntil != never && end <= m.keptUntil || q.Fits(m.filed[class].beside)):
			e.Room++
		case q.Fits(m.filed[class].left):
			e.Kept++
		case q.Fits(m.Resources.Sub(m.used)):
			e.Seated++
		default:
			e.Full++
		}
	}
}

// ahead counts the tasks that go before those of a job, and finds its user's place in line.
func (s *State) ahead(j *job, now instant) (tasks, turn int) {
	s.rebase(now)
	weight := s.weight(now)
	share := s.shareOf(j.account.party.name)
	group, user := j.account.party.claim(weight, share), j.account.claim(weight)
	turn = 1
	for _, g := range j.pool.parties {
		claim := group
		if g != j.account.party {
			claim = g.claim(weight, s.shareOf(g.name))
		}
		for _, a := range g.accounts {
			if a != j.account && a.waits(j.priority) && (claim < group || g == j.account.party && a.claim(weight) < user) {
				turn++
			}
			for priority := j.priority + 1; priority < priorities; priority++ {
				for _, l := range a.queues[priority].list {
					tasks += l.bucket.tasks(-1)
				}
			}
		}
	}
	for _, l := range j.account.queues[j.priority].list {
		tasks += l.bucket.tasks(j.number)
	}
	return tasks, turn
}

// tasks counts what waits of jobs before a number; -1: of all.
func (b *bucket) tasks(before int64) (n int) {
	for _, e := range b.entries {
		if before >= 0 && e.number >= before {
			break
		}
		if e.part != nil {
			n += e.part.waiting()
		}
	}
	return n
}
