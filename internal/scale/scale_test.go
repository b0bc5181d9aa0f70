package scale_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/scale"
)

func start() time.Time { return time.Date(2026, 5, 4, 9, 0, 0, 0, time.UTC) }

func pool(change ...func(*shoal.Pool)) shoal.Pool {
	p := shoal.Pool{Name: "lab", Uses: []shoal.Use{shoal.UseInteractive, shoal.UseBatch}, Seats: 8, Size: shoal.Size{Max: 10},
		Machine: shoal.Resources{CPUs: 4000, Memory: 8 << 30}, Scale: shoal.Scale{Idle: shoal.Idle{After: shoal.Duration(30 * time.Minute)}}}
	for _, c := range change {
		c(&p)
	}
	return p
}

func sized(lo, hi, spare int) func(*shoal.Pool) {
	return func(p *shoal.Pool) { p.Size = shoal.Size{Min: lo, Max: hi, Spare: spare} }
}

func fixed(n int) func(*shoal.Pool) {
	return func(p *shoal.Pool) { p.Fixed = &shoal.FixedSize{Size: n} }
}

func machine(id string, change ...func(*scale.Machine)) scale.Machine {
	m := scale.Machine{Known: true, Machine: shoal.Machine{ID: shoal.MachineID(id), Pool: "lab", State: shoal.MachineReady, Health: shoal.HealthUp,
		Wanted: shoal.WantRun, Since: start(), Started: start(), ReadyAt: start(), IdleAt: start(), Resources: pool().Machine}}
	for _, c := range change {
		c(&m)
	}
	return m
}

func in(s shoal.MachineState) func(*scale.Machine) {
	return func(m *scale.Machine) {
		m.State, m.IdleAt, m.ReadyAt = s, time.Time{}, time.Time{}
		m.Known = false
	}
}

func going(m *scale.Machine) { m.State, m.Wanted = shoal.MachineStopping, shoal.WantDelete }

func unstarted(m *scale.Machine) { m.Started = time.Time{} }
func outdated(m *scale.Machine)  { m.Outdated = "new packages" }
func unknown(m *scale.Machine)   { m.Known = false }
func stale(m *scale.Machine)     { m.Stale = true }
func suspect(m *scale.Machine)   { m.Suspect = true }

func down(m *scale.Machine) {
	m.Health, m.Known = shoal.HealthDown, false
	m.Cordons = append(m.Cordons, shoal.Cordon{Owner: shoal.CordonHealth, Since: start()})
}

// dead is down where there can be an agent.
func dead(m *scale.Machine) {
	if m.State == shoal.MachineReady {
		down(m)
	}
}

func ill(d time.Duration) func(*scale.Machine) {
	return func(m *scale.Machine) {
		m.Ill = []shoal.Ill{{Endpoint: "desktop", Reason: "nothing listens", Since: start().Add(-d)}}
	}
}

func sessions(n int) func(*scale.Machine) {
	return func(m *scale.Machine) { m.Sessions, m.IdleAt = n, time.Time{} }
}

func tasks(n int, r shoal.Resources) func(*scale.Machine) {
	return func(m *scale.Machine) {
		m.Tasks, m.IdleAt = n, time.Time{}
		for range n {
			m.Used = m.Used.Add(r)
		}
	}
}

func by(owner shoal.CordonOwner) func(*scale.Machine) {
	return func(m *scale.Machine) { m.Cordons = append(m.Cordons, shoal.Cordon{Owner: owner, Since: start()}) }
}

func idleFor(d time.Duration) func(*scale.Machine) {
	return func(m *scale.Machine) { m.IdleAt = start().Add(-d) }
}

func cpu(n shoal.MilliCPU) shoal.Resources { return shoal.Resources{CPUs: n * 1000, Memory: 1 << 30} }

func queue(n int, r shoal.Resources) []scale.Queue {
	return []scale.Queue{{Resources: r, Tasks: n}}
}

func seat(user shoal.UserName, n shoal.MilliCPU) func(*scale.Machine) {
	return func(m *scale.Machine) { m.Seats = map[shoal.UserName]shoal.Resources{user: cpu(n)} }
}

func of(user shoal.UserName, q []scale.Queue) []scale.Queue {
	q[0].User = user
	return q
}

func firm(q []scale.Queue) []scale.Queue {
	q[0].Firm = true
	return q
}

type decideCase struct {
	name    string
	state   scale.State
	create  int
	retire  string // ids
	cordon  string
	restore string
	roll    string
	force   string
	says    string // a code among the reasons, or of Because
}

func all(ms ...scale.Machine) []scale.Machine { return ms }

func growing() []decideCase {
	return []decideCase{
		{name: "nothing", state: scale.State{Pool: pool()}},
		{name: "50 at once, 64 seats", state: scale.State{Pool: pool(func(p *shoal.Pool) { p.Seats = 64 }), Waiting: 50}, create: 1, says: "waiting"},
		{name: "50 at once, 8 seats", state: scale.State{Pool: pool(), Waiting: 50}, create: 7, says: "waiting"},
		{name: "50 at once, the rest waits", state: scale.State{Pool: pool(sized(0, 3, 0)), Waiting: 50}, create: 3, says: "max"},
		{name: "no overshoot", state: scale.State{Pool: pool(), Waiting: 50, Machines: all(machine("a", in(shoal.MachineRequested)), machine("b", in(shoal.MachineBooting)),
			machine("c", in(shoal.MachineBooting)), machine("d"), machine("e"), machine("f"), machine("g"))}},
		{name: "free seats are used", state: scale.State{Pool: pool(), Waiting: 9, Machines: all(machine("a", sessions(5)))}, create: 1},
		{name: "an ill machine is not counted on", state: scale.State{Pool: pool(), Waiting: 1, Machines: all(machine("a", ill(0), sessions(1)))}, create: 1},
		{name: "who waits does not wait for a suspect's seat", state: scale.State{Pool: pool(), Waiting: 1, Machines: all(machine("a", suspect, sessions(1)))}, create: 1},
		{name: "nobody waits, and a suspect's seats count", state: scale.State{Pool: pool(sized(0, 10, 7)), Machines: all(machine("a", suspect, sessions(1)))}},
		{name: "nor for more than one other", state: scale.State{Pool: pool(), Waiting: 1, Machines: all(machine("a", suspect), machine("b", in(shoal.MachineBooting)))}},
		{name: "a draining machine takes nobody", state: scale.State{Pool: pool(), Waiting: 1, Machines: all(machine("a", by(shoal.CordonOperator)))}, create: 1},
		{name: "nor one that is down", state: scale.State{Pool: pool(), Waiting: 1, Machines: all(machine("a", down))}, create: 1},
		{name: "silence for a moment does not matter", state: scale.State{Pool: pool(), Waiting: 1, Machines: all(machine("a", unknown))}},
		{name: "min", state: scale.State{Pool: pool(sized(2, 4, 0)), Machines: all(machine("a"))}, create: 1, says: "min"},
		{name: "spare", state: scale.State{Pool: pool(sized(0, 4, 4)), Machines: all(machine("a", sessions(6)))}, create: 1, says: "spare"},
		{name: "spare is there", state: scale.State{Pool: pool(sized(0, 4, 2)), Machines: all(machine("a", sessions(6)))}},
		{name: "ending machines count", state: scale.State{Pool: pool(sized(0, 1, 0)), Waiting: 1, Machines: all(machine("a", in(shoal.MachineStopping)))}, says: "max"},
		{name: "failed ones do not", state: scale.State{Pool: pool(sized(0, 1, 0)), Waiting: 1, Machines: all(machine("a", in(shoal.MachineFailed)))}, create: 1},
		{name: "fixed", state: scale.State{Pool: pool(fixed(5)), Machines: all(machine("a"))}, create: 4, says: "fixed"},
		{name: "fixed until now", state: scale.State{Pool: pool(func(p *shoal.Pool) { p.Fixed = &shoal.FixedSize{Size: 5, Until: start()} })}},
		{name: "deleting", state: scale.State{Pool: pool(func(p *shoal.Pool) { p.Deleting = true }), Waiting: 5}, says: "deleting"},
		{name: "tasks", state: scale.State{Pool: pool(), Queue: queue(9, cpu(1))}, create: 3, says: "queue"},
		{name: "tasks, capped", state: scale.State{Pool: pool(), Queue: queue(100_000, cpu(1))}, create: 10, says: "queue"},
		{name: "tasks use what is free", state: scale.State{Pool: pool(), Queue: queue(9, cpu(1)), Machines: all(machine("a", tasks(2, cpu(1))), machine("b", in(shoal.MachineBooting)))}, create: 1},
		{name: "tasks leave free what people are entitled to", state: scale.State{Pool: pool(), Queue: queue(1, cpu(4)), Machines: all(machine("a", sessions(1), seat("alice", 1)))}, create: 1},
		{name: "but not from themselves", state: scale.State{Pool: pool(), Queue: of("alice", queue(2, cpu(4))), Machines: all(machine("a", sessions(1), seat("alice", 1)))}, create: 1},
		{name: "firm tasks have what is not reserved", state: scale.State{Pool: pool(), Reserved: cpu(2), Queue: firm(queue(3, cpu(1))), Machines: all(machine("a", tasks(1, cpu(1)), func(m *scale.Machine) { m.Firm = cpu(1) }))}, create: 1},
		{name: "firm tasks that are too large", state: scale.State{Pool: pool(), Reserved: cpu(2), Queue: firm(queue(1, cpu(3)))}, says: "impossible"},
		{name: "tasks by memory", state: scale.State{Pool: pool(), Queue: queue(4, shoal.Resources{CPUs: 100, Memory: 4 << 30})}, create: 2},
		{name: "tasks fill each other's gaps", state: scale.State{Pool: pool(), Queue: []scale.Queue{{Resources: cpu(1), Tasks: 2}, {Resources: cpu(3), Tasks: 2}}}, create: 2},
		{name: "a machine for each node of a task", state: scale.State{Pool: pool(), Queue: []scale.Queue{{Resources: cpu(1), Tasks: 3, Each: 1}}}, create: 3},
		{name: "impossible tasks", state: scale.State{Pool: pool(), Queue: queue(3, cpu(5))}, says: "impossible"},
		{name: "seats and tasks share machines", state: scale.State{Pool: pool(), Waiting: 9, Queue: queue(12, cpu(1))}, create: 3},
		{name: "jobs only", state: scale.State{Pool: pool(func(p *shoal.Pool) { p.Uses = []shoal.Use{shoal.UseBatch} }), Waiting: 5}},
		{name: "logins only", state: scale.State{Pool: pool(func(p *shoal.Pool) { p.Uses = []shoal.Use{shoal.UseInteractive} }), Queue: queue(5, cpu(1))}},
		{name: "the cordon is taken back first", state: scale.State{Pool: pool(), Waiting: 9, Machines: all(machine("a", by(shoal.CordonAutoscaler), sessions(1)))},
			create: 1, restore: "a"},
		{name: "in a full pool too, also for tasks", state: scale.State{Pool: pool(sized(0, 2, 0)), Queue: queue(9, cpu(1)), Machines: all(machine("a", tasks(4, cpu(1))), machine("b", by(shoal.CordonAutoscaler), sessions(1)))},
			restore: "b"},
		{name: "also an empty one", state: scale.State{Pool: pool(sized(0, 2, 0)), Queue: queue(9, cpu(1)), Machines: all(machine("a", tasks(4, cpu(1))), machine("b", by(shoal.CordonAutoscaler)))},
			restore: "b"},
	}
}

func shrinking() []decideCase {
	long := idleFor(time.Hour)
	return []decideCase{
		{name: "idle", state: scale.State{Pool: pool(), Machines: all(machine("a", long), machine("b"))}, retire: "a"},
		{name: "all idle", state: scale.State{Pool: pool(), Machines: all(machine("a", long), machine("b", long))}, retire: "a b"},
		{name: "min stays, the longest goes", state: scale.State{Pool: pool(sized(1, 3, 0)), Machines: all(machine("a", long), machine("b", idleFor(2*time.Hour)))}, retire: "b", says: "min"},
		{name: "spare stays", state: scale.State{Pool: pool(sized(0, 3, 8)), Machines: all(machine("a", long), machine("b", long))}, retire: "a"},
		{name: "somebody waits", state: scale.State{Pool: pool(), Waiting: 1, Machines: all(machine("a", long))}},
		{name: "tasks wait", state: scale.State{Pool: pool(sized(0, 1, 0)), Queue: queue(1, cpu(1)), Machines: all(machine("a", long))}},
		{name: "somebody is there", state: scale.State{Pool: pool(), Machines: all(machine("a", sessions(1)))}},
		{name: "a task is there", state: scale.State{Pool: pool(), Machines: all(machine("a", tasks(1, cpu(1))))}},
		{name: "nobody knows", state: scale.State{Pool: pool(), Machines: all(machine("a", long, unknown))}},
		{name: "ill for a moment", state: scale.State{Pool: pool(), Machines: all(machine("a", idleFor(2*time.Minute), ill(time.Second)))}},
		{name: "ill", state: scale.State{Pool: pool(), Machines: all(machine("a", idleFor(2*time.Minute), ill(2*time.Minute)))}, retire: "a"},
		{name: "ill, and somebody is there", state: scale.State{Pool: pool(), Machines: all(machine("a", ill(time.Hour), sessions(1)))}},
		{name: "ill, and nothing is known", state: scale.State{Pool: pool(), Machines: all(machine("a", idleFor(time.Hour), ill(time.Hour), unknown))}},
		{name: "the operator's", state: scale.State{Pool: pool(), Machines: all(machine("a", long, by(shoal.CordonOperator)))}},
		{name: "outdated", state: scale.State{Pool: pool(), Machines: all(machine("a", idleFor(2*time.Minute), outdated), machine("b", idleFor(5*time.Minute)))}, retire: "a"},
		{name: "outdated and not yet empty for long", state: scale.State{Pool: pool(), Machines: all(machine("a", outdated))}},
		{name: "outdated and needed: a new one first", state: scale.State{Pool: pool(sized(1, 2, 0)), Machines: all(machine("a", long, outdated))}, create: 1, says: "outdated"},
		{name: "outdated and needed: the new one boots", state: scale.State{Pool: pool(sized(1, 2, 0)), Machines: all(machine("a", long, outdated), machine("b", in(shoal.MachineBooting)))}},
		{name: "outdated and needed: the new one is ready", state: scale.State{Pool: pool(sized(1, 2, 0)), Machines: all(machine("a", long, outdated), machine("b"))}, retire: "a"},
		{name: "outdated and no room", state: scale.State{Pool: pool(sized(1, 1, 0), surge(0)), Machines: all(machine("a", long, stale))}, retire: "a"},
		{name: "changed while it boots", state: scale.State{Pool: pool(), Waiting: 1, Machines: all(machine("a", in(shoal.MachineBooting), stale))}, retire: "a", create: 1},
		{name: "nobody needs the request", state: scale.State{Pool: pool(), Machines: all(machine("a", in(shoal.MachineRequested), unstarted, func(m *scale.Machine) { m.Since = start().Add(-time.Minute) }))}, retire: "a"},
		{name: "but it was just made", state: scale.State{Pool: pool(), Machines: all(machine("a", in(shoal.MachineRequested), unstarted))}},
		{name: "or it boots", state: scale.State{Pool: pool(), Machines: all(machine("a", in(shoal.MachineBooting)))}},
		{name: "fixed: empty ones at once, the others when they are empty", state: scale.State{Pool: pool(fixed(1)), Machines: all(machine("a", sessions(3)), machine("b", sessions(1)), machine("c"))},
			retire: "c", cordon: "b", says: "fixed"},
		{name: "fixed: what is on its way first", state: scale.State{Pool: pool(fixed(1)), Machines: all(machine("a"), machine("b", in(shoal.MachineBooting)))}, retire: "b"},
		{name: "fixed: cordoned already", state: scale.State{Pool: pool(fixed(1)), Machines: all(machine("a", sessions(3)), machine("b", sessions(1), by(shoal.CordonAutoscaler)))}},
		{name: "fixed: and now empty", state: scale.State{Pool: pool(fixed(1)), Machines: all(machine("a", sessions(3)), machine("b", by(shoal.CordonAutoscaler)))}, retire: "b"},
		{name: "fixed: larger again", state: scale.State{Pool: pool(fixed(2)), Machines: all(machine("a", sessions(3)), machine("b", by(shoal.CordonAutoscaler)))}, restore: "b"},
		{name: "max was lowered", state: scale.State{Pool: pool(sized(0, 1, 0)), Machines: all(machine("a", sessions(1)), machine("b", sessions(2)))}, cordon: "a"},
		{name: "deleting", state: scale.State{Pool: pool(func(p *shoal.Pool) { p.Deleting = true }), Machines: all(machine("a", sessions(1)), machine("b"), machine("c", by(shoal.CordonOperator)),
			machine("d", in(shoal.MachineRequested)))}, retire: "b c d", cordon: "a", says: "deleting"},
		{name: "silent for long", state: scale.State{Pool: pool(), Machines: all(machine("a", down, func(m *scale.Machine) { m.Cordons[0].Since = start().Add(-time.Hour) }))}, retire: "a"},
		{name: "many silent: one at a time", state: scale.State{Pool: pool(sized(3, 3, 0)), Machines: all(silent("a"), silent("b"), silent("c"))}, retire: "a"},
		{name: "many silent: as many as the pool says", state: scale.State{Pool: pool(sized(3, 3, 0), func(p *shoal.Pool) { p.Repair.AtOnce = 2 }), Machines: all(silent("a"), silent("b"), silent("c"))}, retire: "a b"},
		{name: "many silent: the next once the new one is ready", state: scale.State{Pool: pool(sized(3, 3, 0)), Machines: all(silent("a"), silent("b"), machine("c", in(shoal.MachineBooting)))}},
		{name: "many silent: new ones one at a time", state: scale.State{Pool: pool(sized(3, 9, 0)), Machines: all(machine("a", down), machine("b", down), machine("c", down))}, create: 1, says: "min"},
		{name: "many silent, and somebody waits", state: scale.State{Pool: pool(sized(3, 9, 0)), Waiting: 9, Machines: all(machine("a", down), machine("b", down), machine("c", down))}, create: 2},
		{name: "many ill: one at a time", state: scale.State{Pool: pool(), Machines: all(machine("a", idleFor(2*time.Minute), ill(2*time.Minute)), machine("b", idleFor(2*time.Minute), ill(2*time.Minute)))}, retire: "a"},
		{name: "silent, somebody there", state: scale.State{Pool: pool(), Machines: all(machine("a", down, sessions(1), func(m *scale.Machine) { m.Cordons[0].Since = start().Add(-time.Hour) }))}},
	}
}

func rolling() []decideCase {
	long := idleFor(time.Hour)
	held := scale.Hold{Until: start().Add(time.Hour), Reason: "no room"}
	ends := func(d time.Duration) func(*scale.Machine) {
		return func(m *scale.Machine) { m.EndsAt = start().Add(d) }
	}
	rolled := by(shoal.CordonRollout)
	halted := scale.Rollout{Failed: 3, Why: "no such image"}
	return []decideCase{
		{name: "somebody is there: a new one comes first", state: scale.State{Pool: pool(), Machines: all(machine("a", sessions(1), stale), machine("b", sessions(1), stale))}, create: 1, says: "outdated"},
		{name: "as many at a time as may be above the most", state: scale.State{Pool: pool(sized(0, 2, 0), surge(2)), Machines: all(machine("a", sessions(8), stale), machine("b", sessions(8), stale))}, create: 2},
		{name: "the new one boots", state: scale.State{Pool: pool(), Machines: all(machine("a", sessions(1), stale), machine("b", in(shoal.MachineBooting)))}},
		{name: "the new one is ready", state: scale.State{Pool: pool(), Machines: all(machine("a", sessions(2), stale), machine("c", sessions(1), stale), machine("b"))}, roll: "a c", says: "rollout"},
		{name: "and the seats of some are needed", state: scale.State{Pool: pool(sized(0, 4, 8)), Machines: all(machine("a", sessions(2), stale), machine("c", sessions(1), stale), machine("b", sessions(3)))}, create: 1, roll: "c"},
		{name: "the last one is empty", state: scale.State{Pool: pool(), Machines: all(machine("a", rolled, stale), machine("b", sessions(1)))}, retire: "a"},
		{name: "tasks wait: as many go as there are more than may be", state: scale.State{Pool: pool(sized(0, 2, 0)), Queue: queue(99, cpu(4)), Machines: all(machine("a", tasks(1, cpu(4)), stale), machine("c", tasks(1, cpu(4)), stale), machine("b", tasks(1, cpu(4))))}, roll: "a"},
		{name: "no room: one at a time", state: scale.State{Pool: pool(sized(2, 2, 0), surge(0)), Machines: all(machine("a", sessions(2), stale), machine("b", sessions(1), stale))}, roll: "b"},
		{name: "no room: and that is on its way", state: scale.State{Pool: pool(sized(2, 2, 0), surge(0)), Machines: all(machine("a", sessions(2), stale), machine("b", sessions(1), stale, rolled))}},
		{name: "no room: the only one stays open", state: scale.State{Pool: pool(sized(1, 1, 0), surge(0)), Machines: all(machine("a", sessions(2), stale))}, says: "rollout"},
		{name: "the provider has no room: the same", state: scale.State{Pool: pool(), Held: held, Machines: all(machine("a", sessions(2), stale))}},
		{name: "no room, and logins wait: it is taken back", state: scale.State{Pool: pool(sized(0, 2, 0), surge(0)), Waiting: 1, Machines: all(machine("a", sessions(8)), machine("b", sessions(1), stale, rolled))}, restore: "b"},
		{name: "but not for tasks", state: scale.State{Pool: pool(sized(0, 2, 0), surge(0)), Queue: queue(9, cpu(1)), Machines: all(machine("a", tasks(4, cpu(1))), machine("b", sessions(1), stale, rolled))}},
		{name: "with room a new one is made instead", state: scale.State{Pool: pool(), Waiting: 1, Machines: all(machine("a", sessions(8)), machine("b", sessions(1), stale, rolled))}, create: 1},
		{name: "paused", state: scale.State{Pool: pool(), Rollout: scale.Rollout{Paused: true}, Machines: all(machine("a", sessions(1), stale), machine("b"))}, says: "rollout"},
		{name: "paused: it is taken back first", state: scale.State{Pool: pool(), Rollout: scale.Rollout{Paused: true}, Waiting: 1, Machines: all(machine("a", sessions(8)), machine("b", sessions(1), stale, rolled))}, restore: "b"},
		{name: "stopped by failures", state: scale.State{Pool: pool(), Rollout: halted, Machines: all(machine("a", sessions(1), stale))}, says: "rollout"},
		{name: "stopped by failures, and the new one has gone", state: scale.State{Pool: pool(), Rollout: halted, Machines: all(machine("a", sessions(1), stale, rolled))}, restore: "a"},
		{name: "rolled back", state: scale.State{Pool: pool(), Machines: all(machine("a", sessions(1), rolled), machine("b", long, stale))}, retire: "b", restore: "a"},
		{name: "the deadline is to come", state: scale.State{Pool: pool(), Machines: all(machine("a", sessions(1), stale, rolled, ends(time.Minute)), machine("b", sessions(1)))}},
		{name: "the deadline", state: scale.State{Pool: pool(), Machines: all(machine("a", sessions(1), stale, rolled, ends(0)), machine("b", sessions(1)))}, force: "a"},
		{name: "the deadline, and what has come for it waits for its people", state: scale.State{Pool: pool(), Machines: all(machine("a", sessions(1), stale, rolled, ends(0)), machine("b", long), machine("c", sessions(1)))}, force: "a"},
		{name: "also while it ends", state: scale.State{Pool: pool(), Machines: all(machine("a", sessions(1), stale, rolled, ends(0), going), machine("b", long), machine("c", sessions(1)))}},
		{name: "the deadline, and another comes", state: scale.State{Pool: pool(), Machines: all(machine("a", sessions(1), stale, ends(0)), machine("b", in(shoal.MachineBooting)))}},
		{name: "the deadline, and no room", state: scale.State{Pool: pool(sized(0, 2, 0), surge(0)), Machines: all(machine("a", sessions(1), stale, ends(0)), machine("b", sessions(1), stale, ends(0)))}, force: "a"},
		{name: "the deadline, paused", state: scale.State{Pool: pool(), Rollout: scale.Rollout{Paused: true}, Machines: all(machine("a", sessions(1), stale, rolled, ends(0)), machine("b", sessions(1)))}},
		{name: "the deadline, and an operator has it", state: scale.State{Pool: pool(), Machines: all(machine("a", sessions(1), stale, by(shoal.CordonOperator), ends(0)), machine("b", sessions(1)))}},
		{name: "a smaller pool, while old ones are there", state: scale.State{Pool: pool(fixed(1)), Machines: all(machine("a", sessions(1), stale), machine("b", sessions(2), stale))}, cordon: "a"},
		{name: "one above the most, while old ones are there", state: scale.State{Pool: pool(sized(0, 1, 0)), Machines: all(machine("a", sessions(1), stale, rolled), machine("b"))}},
	}
}

func surge(n int) func(*shoal.Pool) { return func(p *shoal.Pool) { p.Rollout.Surge = &n } }

// silent is a machine that has not answered for an hour.
func silent(id string) scale.Machine {
	return machine(id, down, func(m *scale.Machine) { m.Cordons[0].Since = start().Add(-time.Hour) })
}

func ids(changes []scale.Change) string {
	var all []string
	for _, c := range changes {
		all = append(all, string(c.Machine))
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

func TestDecide(t *testing.T) {
	t.Parallel()
	for _, c := range slices.Concat(growing(), shrinking(), rolling()) {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			d := scale.Decide(c.state, start())
			restore := strings.Trim(fmt.Sprint(d.Restore), "[]")
			if d.Create != c.create || ids(d.Retire) != c.retire || ids(d.Cordon) != c.cordon || ids(d.Roll) != c.roll || ids(d.Force) != c.force || restore != c.restore {
				t.Errorf("%+v", d)
			}
			says := slices.ContainsFunc(append(d.Reasons, d.Because), func(r shoal.Reason) bool { return r.Code == c.says })
			if c.says != "" && !says {
				t.Errorf("it does not say %q: %+v", c.says, d)
			}
			if d.Create > 0 && d.Because.Sentence == "" {
				t.Errorf("no reason to create: %+v", d)
			}
		})
	}
}

func TestNext(t *testing.T) {
	t.Parallel()
	d := scale.Decide(scale.State{Pool: pool(), Machines: all(machine("a", idleFor(10*time.Minute)))}, start())
	if !d.Next.Equal(start().Add(20 * time.Minute)) {
		t.Errorf("next at %s", d.Next)
	}
	d = scale.Decide(scale.State{Pool: pool(sized(1, 1, 0)), Machines: all(machine("a", idleFor(10*time.Minute)))}, start())
	if !d.Next.IsZero() {
		t.Errorf("next at %s though it stays", d.Next)
	}
}

func draw(t *rapid.T) scale.State {
	s := scale.State{Pool: pool(), Waiting: rapid.IntRange(0, 30).Draw(t, "waiting")}
	s.Pool.Size.Max = rapid.IntRange(0, 8).Draw(t, "max")
	s.Pool.Size.Min = rapid.IntRange(0, s.Pool.Size.Max).Draw(t, "min")
	s.Pool.Seats = rapid.IntRange(1, 4).Draw(t, "seats")
	s.Pool.Size.Spare = rapid.IntRange(0, 5).Draw(t, "spare")
	switch rapid.IntRange(0, 5).Draw(t, "hand") {
	case 0:
		s.Pool.Fixed = &shoal.FixedSize{Size: rapid.IntRange(0, 8).Draw(t, "fixed")}
	case 1:
		s.Pool.Deleting = true
	}
	surge(rapid.IntRange(0, 2).Draw(t, "surge"))(&s.Pool)
	s.Rollout.Paused = rapid.IntRange(0, 6).Draw(t, "paused") == 0
	if rapid.IntRange(0, 4).Draw(t, "failing") == 0 {
		s.Rollout.Failed = rapid.IntRange(1, 5).Draw(t, "failures")
	}
	if rapid.IntRange(0, 6).Draw(t, "no room") == 0 {
		s.Held.Until = start().Add(time.Hour)
	}
	states := []shoal.MachineState{shoal.MachineReady, shoal.MachineReady, shoal.MachineReady, shoal.MachineRequested, shoal.MachineBooting,
		shoal.MachineStopping, shoal.MachineStopped, shoal.MachineFailed}
	for i := range rapid.IntRange(0, 9).Draw(t, "machines") {
		m := machine(fmt.Sprint("m-", i), idleFor(time.Duration(rapid.IntRange(0, 90).Draw(t, "idle"))*time.Minute))
		if st := rapid.SampledFrom(states).Draw(t, "state"); st != shoal.MachineReady {
			in(st)(&m)
		} else {
			if n := rapid.IntRange(0, 3).Draw(t, "sessions"); n > 0 {
				sessions(n)(&m)
			}
			if n := rapid.IntRange(0, 2).Draw(t, "tasks"); n > 0 {
				tasks(n, cpu(1))(&m)
			}
			m.Known = rapid.IntRange(0, 3).Draw(t, "known") > 0
			if rapid.IntRange(0, 4).Draw(t, "end") == 0 {
				m.EndsAt = start().Add(time.Duration(rapid.IntRange(-1, 1).Draw(t, "ends")) * time.Minute)
			}
		}
		for _, mark := range []func(*scale.Machine){outdated, stale, dead, by(shoal.CordonOperator), by(shoal.CordonAutoscaler), by(shoal.CordonRollout), unstarted} {
			if rapid.IntRange(0, 6).Draw(t, "mark") == 0 {
				mark(&m)
			}
		}
		if rapid.IntRange(0, 6).Draw(t, "unwanted") == 0 {
			m.Wanted = shoal.WantDelete
		}
		s.Machines = append(s.Machines, m)
	}
	for range rapid.IntRange(0, 3).Draw(t, "queues") {
		s.Queue = append(s.Queue, scale.Queue{Resources: cpu(shoal.MilliCPU(rapid.IntRange(0, 5).Draw(t, "cpus"))), Tasks: rapid.IntRange(0, 20).Draw(t, "queued")})
	}
	return s
}

func alive(s scale.State) (n int) {
	for _, m := range s.Machines {
		if m.Alive() || m.State == shoal.MachineStopped && m.Wanted == shoal.WantRun {
			n++
		}
	}
	return n
}

// Whatever the pool: it never grows beyond its maximum, and a machine with somebody on it, or of which
// that is not known, or that an operator holds, is never taken.
func TestInvariants(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := draw(t)
		d := scale.Decide(s, start())
		limit := s.Pool.Size.Max
		if s.Pool.Fixed != nil {
			limit = min(limit, s.Pool.Fixed.Size)
		}
		most := limit
		if slices.ContainsFunc(s.Machines, func(m scale.Machine) bool { return m.State == shoal.MachineReady && m.Old() }) {
			most += s.Pool.Surge()
		}
		if d.Create > 0 && (alive(s)+d.Create > most || s.Pool.Deleting || limit == 0) {
			t.Fatalf("%d machines and %d more are more than %d", alive(s), d.Create, most)
		}
		byID := map[shoal.MachineID]scale.Machine{}
		serving := 0
		for _, m := range s.Machines {
			byID[m.ID] = m
			if m.Accepts() {
				serving++
			}
		}
		for _, c := range d.Retire {
			m := byID[c.Machine]
			operator := slices.ContainsFunc(m.Cordons, func(c shoal.Cordon) bool { return c.Owner == shoal.CordonOperator })
			busy := m.Sessions > 0 || m.Tasks > 0
			silent := m.Health == shoal.HealthDown
			if busy || m.Wanted != shoal.WantRun || m.State == shoal.MachineReady && !m.Known && !silent || operator && !s.Pool.Deleting || c.Reason.Sentence == "" {
				t.Fatalf("%+v goes: %+v", m, c.Reason)
			}
			if m.Accepts() {
				serving--
			}
		}
		for _, c := range d.Force {
			m := byID[c.Machine]
			if !m.Old() || m.EndsAt.IsZero() || start().Before(m.EndsAt) || s.Rollout.Stopped() || m.Wanted != shoal.WantRun || c.Reason.Sentence == "" ||
				slices.ContainsFunc(m.Cordons, func(c shoal.Cordon) bool { return c.Owner == shoal.CordonOperator }) {
				t.Fatalf("%+v is ended: %+v", m, c.Reason)
			}
		}
		for _, c := range d.Roll {
			if m := byID[c.Machine]; !m.Old() || s.Rollout.Stopped() || len(m.Cordons) > 0 || c.Reason.Sentence == "" {
				t.Fatalf("%+v takes nobody new: %+v", m, c.Reason)
			}
		}
		for _, c := range d.Cordon {
			if byID[c.Machine].Accepts() {
				serving--
			}
			if slices.ContainsFunc(d.Retire, func(r scale.Change) bool { return r.Machine == c.Machine }) || slices.Contains(d.Restore, c.Machine) {
				t.Fatalf("%s twice: %+v", c.Machine, d)
			}
		}
		for _, id := range d.Restore {
			m := byID[id]
			if m.Cordons = nil; m.Accepts() {
				serving++
			}
		}
		before := 0
		for _, m := range s.Machines {
			if m.Accepts() {
				before++
			}
		}
		// Nothing is taken below the minimum, unless there are too many or it is replaced.
		held := !s.Held.Until.IsZero() // an old one makes room for a new one
		if limit == s.Pool.Size.Max && s.Pool.Fixed == nil && !s.Pool.Deleting && !held && alive(s) < limit && serving < min(before, s.Pool.Size.Min) {
			t.Fatalf("%d of %d machines are left, and the minimum is %d: %+v", serving, before, s.Pool.Size.Min, d)
		}
	})
}

// While machines run that could take people, one does, unless an operator or a schedule wants none. Machines that
// cannot (their agents are silent, somebody else keeps them) and those whose time is over do not count.
func TestOneAccepts(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := draw(t)
		limit := s.Pool.Size.Max
		if s.Pool.Fixed != nil {
			limit = min(limit, s.Pool.Fixed.Size)
		}
		if limit == 0 || s.Pool.Deleting {
			return
		}
		d := scale.Decide(s, start())
		in := func(all []scale.Change, id shoal.MachineID) bool {
			return slices.ContainsFunc(all, func(c scale.Change) bool { return c.Machine == id })
		}
		could, does := 0, 0
		for _, m := range s.Machines {
			ours := !slices.ContainsFunc(m.Cordons, func(c shoal.Cordon) bool { return c.Owner != shoal.CordonAutoscaler && c.Owner != shoal.CordonRollout })
			if m.State != shoal.MachineReady || m.Wanted != shoal.WantRun || m.Health == shoal.HealthDown || !ours || in(d.Retire, m.ID) || in(d.Force, m.ID) {
				continue
			}
			could++
			if (len(m.Cordons) == 0 || slices.Contains(d.Restore, m.ID)) && !in(d.Cordon, m.ID) && !in(d.Roll, m.ID) {
				does++
			}
		}
		if could > 0 && does == 0 {
			t.Fatalf("%d machines could take people, and none does: %+v\n%+v", could, d, s)
		}
	})
}

// Carried out, a decision leaves nothing to decide: the same state with what was decided asks for nothing more.
func TestNoOvershoot(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := draw(t)
		for round := range 12 {
			d := scale.Decide(s, start())
			if d.Create+len(d.Retire)+len(d.Cordon)+len(d.Restore)+len(d.Roll)+len(d.Force) == 0 {
				return
			}
			if round == 11 {
				t.Fatalf("it does not come to rest: %+v\n%+v", d, s)
			}
			for i := range s.Machines {
				m := &s.Machines[i]
				at := func(c scale.Change) bool { return c.Machine == m.ID }
				switch {
				case slices.ContainsFunc(d.Retire, at), slices.ContainsFunc(d.Force, at):
					m.Wanted = shoal.WantDelete
					if m.State == shoal.MachineReady || m.State == shoal.MachineBooting {
						m.State = shoal.MachineStopping
					}
				case slices.ContainsFunc(d.Cordon, at):
					by(shoal.CordonAutoscaler)(m)
				case slices.ContainsFunc(d.Roll, at):
					by(shoal.CordonRollout)(m)
				case slices.Contains(d.Restore, m.ID):
					m.Cordons = slices.DeleteFunc(m.Cordons, func(c shoal.Cordon) bool {
						return c.Owner == shoal.CordonAutoscaler || c.Owner == shoal.CordonRollout
					})
				}
			}
			for range d.Create {
				m := machine(fmt.Sprint("n-", round, "-", len(s.Machines)), in(shoal.MachineRequested), unstarted)
				s.Machines = append(s.Machines, m)
			}
			if round > 0 && d.Create > 0 && len(d.Retire) == 0 && len(s.Machines) > 40 {
				t.Fatalf("it makes machines for ever: %+v", s)
			}
		}
	})
}
