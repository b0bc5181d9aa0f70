package sched_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/sched"
)

// ran is the end of a task that ran for so long.
func ran(job, position int, d time.Duration) sched.End {
	e := end(job, position)
	e.Ran = d
	return e
}

// brief has job 1, of user a, end so many brief tasks one after another on a machine of one processor.
func brief(n int, changes ...sched.Change) *sched.State {
	s := sched.New()
	s.Apply(machines(1), job(1, "a", 1000, 1))
	for i := range n {
		start(s)
		s.Apply(ran(1, i, time.Millisecond))
	}
	s.Apply(changes...)
	return s
}

// lines says what a plan places where: "1/16@m-1 1/17>1/16 …".
func lines(p sched.Plan) string {
	var all []string
	for _, s := range p.Starts {
		if s.Behind.Job != "" {
			all = append(all, fmt.Sprintf("%s/%d>%s/%d", s.Job, s.Position, s.Behind.Job, s.Behind.Position))
		} else {
			all = append(all, fmt.Sprintf("%s/%d@%s", s.Job, s.Position, s.Machines[0]))
		}
	}
	return strings.Join(all, " ")
}

func TestBriefTasksAreLinedUp(t *testing.T) {
	t.Parallel()
	unshiftable := func(j *sched.PutJob) { j.Unshiftable = true }
	for _, c := range []struct {
		name    string
		ended   int
		changes []sched.Change
		behind  int
		first   string
	}{
		{"brief ones", 16, nil, 32, "1/16@m-1 1/17>1/16 1/18>1/17"},
		{"too few to know", 15, nil, 0, "1/15@m-1"},
		{"a long one among them", 15, []sched.Change{sched.Start{Placement: sched.Placement{Task: end(1, 15).Task, Machines: []shoal.MachineID{"m-1"}}}, ran(1, 15, time.Second)}, 0, "1/16@m-1"},
		{"somebody else waits", 16, []sched.Change{job(2, "b", 1, 1)}, 0, "1/16@m-1"},
		{"her own next job", 16, []sched.Change{with(job(1, "a", 1000, 1), func(j *sched.PutJob) { j.Next = 999 }), job(2, "a", 60, 1)}, 30, "1/999@m-1 2/0>1/999 2/1>2/0"},
		{"another shape", 16, []sched.Change{machines(2), with(job(1, "a", 17, 1), func(j *sched.PutJob) { j.Next = 17 }), job(2, "a", 40, 2)}, 0, "2/0@m-1"},
		{"there is room", 16, []sched.Change{machines(1, 2000)}, 0, ""},
		{"must not", 16, []sched.Change{with(job(1, "a", 1000, 1), func(j *sched.PutJob) { j.Next = 16 }, unshiftable)}, 0, "1/16@m-1"},
		{"the last ones", 16, []sched.Change{with(job(1, "a", 20, 1), func(j *sched.PutJob) { j.Next = 16 })}, 2, "1/16@m-1 1/17>1/16 1/18>1/17"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := brief(c.ended, c.changes...)
			plan := s.Plan(time.Time{}, 1000)
			n := 0
			for _, p := range plan.Starts {
				if p.Behind.Job != "" {
					n++
				}
			}
			if got := lines(plan); n != c.behind || !strings.HasPrefix(got, c.first) {
				t.Errorf("%d behind others, want %d; %s, want %s …", n, c.behind, got, c.first)
			}
		})
	}
}

// TestLine has those that wait for a place take up nothing, and get it one after another.
func TestLine(t *testing.T) {
	t.Parallel()
	s := brief(16)
	for _, p := range s.Plan(time.Time{}, 1000).Starts {
		s.Apply(sched.Start{Placement: p})
	}
	using := func() int {
		for _, u := range s.Usage(time.Time{}) {
			return u.Tasks
		}
		return 0
	}
	s.Apply(end(1, 18)) // called back, in the middle of the line
	for _, next := range []int{16, 17, 19, 20} {
		if n := using(); n != 1 || start(s) != "" {
			t.Fatalf("%d run before task %d has ended, want one, and nothing else starts", n, next)
		}
		s.Apply(ran(1, next, time.Millisecond))
	}
	s.Apply(sched.Again{Task: end(1, 18).Task})
	if s.Plan(time.Time{}, 1000).Starts != nil {
		t.Error("a place is given away that somebody waits for")
	}
	for i := 21; i <= 48; i++ {
		s.Apply(ran(1, i, time.Millisecond))
	}
	if got := lines(s.Plan(time.Time{}, 1000)); !strings.HasPrefix(got, "1/18@m-1 1/49>1/18") {
		t.Errorf("then %s, want the one that was called back, and a line behind it", got)
	}
}

// TestLinesProperty starts and ends brief tasks of jobs of several sizes in any order: no machine ever has more than it
// holds, every task is started once and the state is the one that is made anew from what runs.
func TestLinesProperty(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := sched.New()
		s.Apply(machines(2, 3), job(1, "a", 60, 1), job(2, "a", 30, 1), job(3, rapid.SampledFrom([]string{"a", "b"}).Draw(t, "user"), 10, 2))
		var order []sched.Start // of what has not ended
		started, lined := map[sched.Task]int{}, 0
		for len(started) < 100 || len(order) > 0 {
			for _, p := range s.Plan(time.Time{}, rapid.IntRange(1, 40).Draw(t, "budget")).Starts {
				s.Apply(sched.Start{Placement: p})
				order = append(order, sched.Start{Placement: p})
				if started[p.Task]++; started[p.Task] > 1 {
					t.Fatalf("task %v is started twice", p.Task)
				}
				if p.Behind.Job != "" {
					lined++
				}
			}
			used := map[shoal.MachineID]int{}
			there := map[sched.Task]bool{}
			for _, o := range order {
				if !there[o.Behind] {
					used[o.Machines[0]]++
					if o.Job == "3" {
						used[o.Machines[0]]++
					}
				}
				there[o.Task] = true
			}
			if used["m-1"] > 2 || used["m-2"] > 3 {
				t.Fatalf("machines have %v", used)
			}
			if len(order) == 0 {
				continue
			}
			i := rapid.IntRange(0, len(order)-1).Draw(t, "end")
			e := sched.End{Task: order[i].Task, Ran: time.Millisecond}
			s.Apply(e)
			for k := range order { // whoever came behind it is behind the one before it now
				if order[k].Behind == e.Task {
					order[k].Behind = order[i].Behind
					if !there[order[i].Behind] || order[i].Behind.Job == "" {
						order[k].Behind = sched.Task{}
					}
				}
			}
			order = slices.Delete(order, i, i+1)
		}
		if lined == 0 {
			t.Fatal("nothing was lined up")
		}
	})
}
