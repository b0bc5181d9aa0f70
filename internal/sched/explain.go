package sched

import (
	"time"

	"github.com/shoal-pool/shoal"
)

// Explanation is what stands between a job's next task and a machine.
type Explanation struct {
	Blocked  bool
	Machines int // of the pool, those below
	Room     int // it would fit now: others go first, or the next pass starts it
	Full     int
	Small    int // they could not hold it even if empty
	Kept     int // room, but kept for a larger task
	Starting int
	Draining int
	Silent   int
	Leaving  int
	Ahead    int         // waiting tasks that go first, in the order of priority and submission
	AtLimit  bool        // the user, her group or the job holds as much as it may
	Limit    string      // which of the limits that is: "userGPUs"
	Head     shoal.JobID // for whom the machines below Kept are kept
	Turn     int         // the user's place among those with tasks of its priority that wait: 1 is next
	Promised time.Time   // it starts then at the latest, as long as no machine is lost and nothing more urgent comes
	Free     time.Time   // then at the latest there is room for one like it, whoever gets it
}

// Explain says why a job's next task is not started. The state knows no job that has ended.
func (s *State) Explain(id shoal.JobID, _ time.Time) (Explanation, bool) {
	j := s.jobs[id]
	if j == nil {
		return Explanation{}, false
	}
	p := s.pool(j.Pool)
	e := Explanation{Blocked: j.Blocked, Machines: len(p.machines)}
	if most := p.Limits.PerUser.GPUs; most > 0 && j.Resources.GPUs > 0 && p.use[j.User].GPUs+j.Resources.GPUs > most {
		e.AtLimit, e.Limit = true, "userGPUs"
	}
	w := newPass(s, p, 0)
	for _, m := range p.machines {
		switch {
		case m.Standing == Starting:
			e.Starting++
		case m.Standing == Draining:
			e.Draining++
		case m.Standing == Silent:
			e.Silent++
		case m.Standing != Open:
			e.Leaving++
		case !j.Resources.Fits(m.Resources):
			e.Small++
		case !j.Resources.Fits(w.free(m)):
			e.Full++
		case !w.allowed(m.ID, j.Resources, j.Priority):
			e.Kept++
		default:
			e.Room++
		}
	}
	for priority := j.Priority; priority <= High; priority++ {
		for _, shapes := range p.queues[priority] {
			for _, b := range shapes {
				for _, other := range b.entries {
					if other.job != nil && (priority > j.Priority || other.number < j.Number) {
						e.Ahead += other.job.waiting()
					}
				}
			}
		}
	}
	return e, true
}

// Waiting is how many tasks of all jobs could start if there were room.
func (s *State) Waiting() int {
	n := 0
	for _, p := range s.pools {
		for _, users := range p.queues {
			for _, shapes := range users {
				for _, b := range shapes {
					for _, e := range b.entries {
						if e.job != nil {
							n += e.job.waiting()
						}
					}
				}
			}
		}
	}
	return n
}
