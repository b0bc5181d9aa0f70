package sim

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/sched"
	"github.com/shoal-pool/shoal/internal/usage"
)

// People are who uses the pool.
type People struct {
	Users   int
	Comes   float64 // so many of all come on a working day
	Weekend float64 // and on Saturdays and Sundays
	Jobs    int     // arrays that are sent away in a day
	Tasks   int     // of each, in the middle
}

// session is somebody who has come, and waits or is seated.
type session struct {
	id      shoal.SessionID
	user    shoal.UserName
	arrived time.Time
	seated  time.Time // by the server's clock
	since   time.Time // the same, as it was
	stays   time.Duration
	load    int // percent of a machine's processors
	machine *machine
	away    bool // she has left, and nobody knows
	over    bool
}

// task is one of a job's.
type task struct {
	rank    int
	needs   shoal.Resources
	takes   time.Duration
	waits   time.Time // since when
	machine *machine
	run     int // counts tries
	placed  time.Time
}

// around draws a time of the day.
func (w *world) around(hour, spread float64) time.Duration {
	h := hour + w.rng.NormFloat64()*spread
	return time.Duration(math.Min(math.Max(h, 0.1), 23.5) * float64(time.Hour)).Round(time.Second)
}

// populate plans who comes when, and the jobs. Working days begin at nine, or so; many go for lunch.
func (w *world) populate() {
	zone := w.Pool.Scale.Zone()
	for day := w.Start; day.Before(w.end); day = day.AddDate(0, 0, 1) {
		y, mo, d := day.In(zone).Date()
		midnight := time.Date(y, mo, d, 0, 0, 0, 0, zone)
		comes := w.People.Comes
		if wd := midnight.Weekday(); wd == time.Saturday || wd == time.Sunday {
			comes = w.People.Weekend
		}
		for u := range w.People.Users {
			if w.rng.Float64() >= comes {
				continue
			}
			name := userName(u)
			w.visit(name, midnight.Add(w.around(9, 0.8)), time.Duration((2.5+w.rng.NormFloat64()*0.7)*float64(time.Hour)))
			if w.rng.Float64() < 0.85 {
				w.visit(name, midnight.Add(w.around(13.3, 0.6)), time.Duration((3.6+w.rng.NormFloat64())*float64(time.Hour)))
			}
			if w.rng.Float64() < 0.08 {
				w.visit(name, midnight.Add(w.around(20.5, 1)), time.Duration(w.rng.ExpFloat64()*float64(time.Hour)))
			}
		}
		for range w.People.Jobs {
			n := 1 + w.rng.IntN(2*w.People.Tasks)
			takes := time.Duration((5 + w.rng.ExpFloat64()*20) * float64(time.Minute)).Round(time.Second)
			w.plan(midnight.Add(w.around(16, 4)), func() {
				for range n {
					w.ranks++
					w.tasks = append(w.tasks, &task{rank: w.ranks, needs: shoal.Resources{CPUs: 1000, Memory: 1 << 30}, takes: takes, waits: w.real})
				}
				w.out.Tasks += n
			})
		}
	}
}

func userName(n int) shoal.UserName { return shoal.UserName(fmt.Sprintf("u%03d", n)) }

// visit plans that somebody comes. Whoever is there already stays longer instead.
func (w *world) visit(user shoal.UserName, at time.Time, stays time.Duration) {
	stays = max(stays, 5*time.Minute).Round(time.Second)
	w.plan(at, func() { w.come(user, stays) })
}

func (w *world) come(user shoal.UserName, stays time.Duration) {
	for _, s := range w.sessions {
		if s.user == user {
			return
		}
	}
	w.ranks++
	s := &session{id: shoal.SessionID(fmt.Sprintf("s-%07d", w.ranks)), user: user, arrived: w.real, stays: stays, load: 3 + w.rng.IntN(20)}
	w.sessions[s.id] = s
	w.waiting = append(w.waiting, s)
	w.out.Logins++
}

// sit gives somebody a seat.
func (w *world) sit(s *session, m *machine) {
	if !m.Accepts() {
		w.breach("%s is seated on machine %s, which takes nobody", s.user, m.ID)
	}
	s.machine, s.seated, s.since = m, w.now, w.real
	m.users[s.id], m.IdleAt = s, time.Time{}
	w.out.waits = append(w.out.waits, w.real.Sub(s.arrived))
	w.in(s.stays, func() { w.leave(s) })
}

// leave is somebody who goes home. Where her machine's agent is not heard from nobody knows.
func (w *world) leave(s *session) {
	switch {
	case s.over:
	case s.machine.quiet.IsZero():
		w.conclude(s)
	default:
		s.away = true
	}
}

// conclude ends a session.
func (w *world) conclude(s *session) {
	s.over = true
	delete(w.sessions, s.id)
	delete(s.machine.users, s.id)
	w.book = append(w.book, usage.Interval{Kind: shoal.ObjectSession, ID: string(s.id), Machine: s.machine.ID, Pool: w.Pool.Name, User: s.user, Start: s.seated, End: w.now})
}

// drop ends a session whose machine is lost: she comes again.
func (w *world) drop(s *session) {
	w.conclude(s)
	if left := s.since.Add(s.stays).Sub(w.real); left > time.Minute {
		w.visit(s.user, w.real.Add(time.Duration(5+w.rng.IntN(60))*time.Second), left)
	}
}

// place starts tasks that wait where there is room.
func (w *world) place() {
	for len(w.tasks) > 0 {
		t := w.tasks[0]
		i := slices.IndexFunc(w.order, func(m *machine) bool { return m.Accepts() && t.needs.Fits(w.room(m)) })
		if i < 0 {
			return
		}
		m := w.order[i]
		w.tasks = w.tasks[1:]
		t.machine, t.run, t.placed = m, t.run+1, w.now
		m.tasks[t], m.IdleAt = true, time.Time{}
		run := t.run
		w.in(t.takes, func() {
			if t.run == run && t.machine == m && m.tasks[t] && m.quiet.IsZero() {
				delete(m.tasks, t)
				w.attempt(t)
				w.out.TasksDone++
			}
		})
	}
}

// attempt puts a try that has ended on the books.
func (w *world) attempt(t *task) {
	a := shoal.Attempt{User: "jobs", Machine: t.machine.ID, Placed: t.placed, Ended: w.now, State: shoal.JobSucceeded}
	w.ranks++
	a.Job, a.Attempt = shoal.JobID(strconv.Itoa(w.ranks)), t.run
	w.attempts = append(w.attempts, a)
}

func (m *machine) used() (sum shoal.Resources) {
	for t := range m.tasks {
		sum = sum.Add(t.needs)
	}
	return sum
}

// seats is what people on a machine are entitled to. They have no tasks: jobs are another's.
func (w *world) seats(m *machine) map[shoal.UserName]shoal.Resources {
	seat := sched.PoolOf(w.Pool).Seat
	all := map[shoal.UserName]shoal.Resources{}
	for _, s := range m.users {
		all[s.user] = all[s.user].Add(seat)
	}
	return all
}

// room is what a task finds on a machine.
func (w *world) room(m *machine) shoal.Resources {
	left := m.Resources.Sub(m.used())
	for _, seat := range w.seats(m) {
		left = left.Sub(seat)
	}
	return left
}

// requeue puts a task back whose machine is lost.
func (w *world) requeue(t *task) {
	delete(t.machine.tasks, t)
	w.attempt(t)
	t.machine, t.waits = nil, w.real
	w.tasks = append(w.tasks, t)
	slices.SortStableFunc(w.tasks, func(a, b *task) int { return cmp.Compare(b.run, a.run) })
}
