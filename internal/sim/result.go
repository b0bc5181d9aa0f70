package sim

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/usage"
)

// Result is what came of a world.
type Result struct {
	Logins, Refused     int
	Tasks, TasksDone    int
	Created, Drained    int
	Rolled              int           // machines that took nobody new because they were old
	Evictions, Closed   int           // machines that the cloud took, that an operator closed
	Lies                int           // lists that were not true
	Jumped              time.Duration // of the server's clock, forward and back
	EndedByScaling      int           // sessions
	EndedByDeadline     int           // sessions, because their pool was changed and says that they do
	Peak                int           // machines at a time
	PeakSessions        int
	Bill                usage.Table   // by user
	Ledger              time.Duration // machine time, as the cloud counts it
	Overfull            float64       // part of all session time on machines with more sessions than seats
	Breaches            []string
	waits, boots        []time.Duration
	crowded, inSessions time.Duration
	lookedAt            time.Time
	hidden              time.Duration // of machines that were believed to be gone, and were not
}

// Wait is how long logins waited; of all but so many (0.95: of all but one in twenty).
func (r Result) Wait(quantile float64) time.Duration { return pick(r.waits, quantile) }

// Boot is how long machines took to start.
func (r Result) Boot(quantile float64) time.Duration { return pick(r.boots, quantile) }

// Cost is what the machines cost.
func (r Result) Cost() float64 { return r.Bill.Total.Cost }

// Idle is the part of machine time in which nobody was there.
func (r Result) Idle() float64 {
	return r.Bill.Total.IdleSeconds / math.Max(r.Bill.Total.MachineSeconds, 1)
}

func pick(all []time.Duration, quantile float64) time.Duration {
	if len(all) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(all))
	return sorted[min(int(math.Ceil(quantile*float64(len(sorted))))-1, len(sorted)-1)]
}

// breach notes that an invariant does not hold.
func (w *world) breach(format string, args ...any) {
	if len(w.out.Breaches) < 20 {
		w.out.Breaches = append(w.out.Breaches, w.now.Format("Mon 15:04:05 ")+fmt.Sprintf(format, args...))
	}
}

// finish closes the books and compares them with the cloud's.
func (w *world) finish() {
	for _, m := range w.order {
		if m.Stopped.IsZero() {
			m.Stopped = w.now
		}
		w.bill(m)
		for _, s := range m.sorted() {
			w.conclude(s)
		}
		for _, t := range m.work() {
			w.attempt(t)
		}
	}
	for id := range w.hidden {
		w.found(id)
	}
	in := usage.Input{Intervals: w.book, Attempts: w.attempts, Since: w.Start.Add(-w.out.Jumped), Until: w.now.Add(w.out.Jumped), Groups: w.groups()}
	w.out.Bill, w.out.Ledger = usage.Bill(in, usage.ByUser), w.cloud.total()
	for _, by := range []usage.By{usage.ByUser, usage.ByGroup, usage.ByPool, usage.ByJob, usage.ByMachine} {
		for _, in.Idle = range []usage.Idle{usage.IdleApart, usage.IdleShared} {
			w.audit(by, in)
		}
	}
	w.out.Overfull = w.out.crowded.Seconds() / math.Max(w.out.inSessions.Seconds(), 1)
}

// audit compares a bill with the cloud's ledger. A list that is not true hides machines, which the cloud counts until they
// are found again: for exactly so long the two differ.
func (w *world) audit(by usage.By, in usage.Input) {
	t := usage.Bill(in, by)
	if off := (w.out.Ledger - w.out.hidden).Seconds() - t.Total.MachineSeconds; math.Abs(off) >= 1 {
		w.breach("the bill by %s, idle time %s, comes to %.0f s, and the cloud's ledger to %.0f s, %.0f s of it hidden by lists that were not true",
			by, in.Idle, t.Total.MachineSeconds, w.out.Ledger.Seconds(), w.out.hidden.Seconds())
	}
	sum, idle := 0.0, 0.0
	for _, r := range t.Rows {
		sum += r.MachineSeconds
		if r.Key == usage.KeyIdle {
			idle += r.IdleSeconds
		}
	}
	if math.Abs(sum-t.Total.MachineSeconds) >= 1 || in.Idle == usage.IdleShared && idle > 0 && len(t.Rows) > 1 {
		w.breach("the rows of the bill by %s, idle time %s, come to %.0f s of %.0f s, %.0f s of it nobody's", by, in.Idle, sum, t.Total.MachineSeconds, idle)
	}
	if math.Abs(t.Total.Cost-t.Total.MachineSeconds/3600*w.Pool.Price.PerHour) >= 0.01 {
		w.breach("the bill by %s costs %.2f for %.0f s", by, t.Total.Cost, t.Total.MachineSeconds)
	}
}

// groups are of the users: one of three, and every fifth is in another as well.
func (w *world) groups() map[shoal.UserName][]shoal.GroupName {
	all := map[shoal.UserName][]shoal.GroupName{}
	for u := range w.People.Users {
		name := userName(u)
		all[name] = []shoal.GroupName{shoal.GroupName(fmt.Sprintf("g%d", u%3))}
		if u%5 == 0 {
			all[name] = append(all[name], "guests")
		}
	}
	return all
}

// Row is a policy's line in a table.
type Row struct {
	Name string
	Result
}

// Table compares policies; costs are parts of the first one's.
func Table(rows ...Row) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-28s %10s %8s %8s %10s %10s %8s %8s %10s\n", "policy", "cost", "of fixed", "idle", "wait p50", "wait p95", "ended", "overfull", "most")
	for _, r := range rows {
		fmt.Fprintf(&b, "%-28s %10.2f %7.0f%% %7.0f%% %10s %10s %8d %7.0f%% %10d\n", r.Name, r.Cost(), 100*r.Cost()/math.Max(rows[0].Cost(), 1e-9), 100*r.Idle(),
			r.Wait(0.5), r.Wait(0.95), r.EndedByScaling, 100*r.Overfull, r.Peak)
	}
	return b.String()
}
