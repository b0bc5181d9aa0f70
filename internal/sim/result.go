package sim

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/scale"
	"github.com/shoal-pool/shoal/internal/usage"
)

// Result is what came of a world.
type Result struct {
	Logins, Refused     int
	Tasks, TasksDone    int
	Created, Drained    int
	Evictions           int
	EndedByScaling      int // sessions
	Peak                int // machines at a time
	PeakSessions        int
	Bill                usage.Table   // by user
	Ledger              time.Duration // machine time, as the cloud counts it
	Overfull            float64       // part of all session time on machines with more sessions than seats
	Breaches            []string
	waits, boots        []time.Duration
	crowded, inSessions time.Duration
	lookedAt            time.Time
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

// judge looks at a decision before it is carried out.
func (w *world) judge(s scale.State, d scale.Decision) {
	limit, alive, queued := scale.BoundsOf(w.Pool, w.now).Max, 0, len(w.tasks)
	for _, m := range w.order {
		if m.Alive() {
			alive++
		}
	}
	if d.Create > 0 && alive+d.Create > limit {
		w.breach("%d machines and %d more are beyond %d", alive, d.Create, limit)
	}
	for _, c := range d.Retire {
		if m := w.machines[c.Machine]; w.honest() && (len(m.users)+len(m.tasks) > 0 || w.now.Before(m.silent) && m.State == shoal.MachineReady) {
			w.breach("machine %s goes with %d sessions and %d tasks: %s", m.ID, len(m.users), len(m.tasks), c.Reason.Sentence)
		}
		if c.Reason.Sentence == "" {
			w.breach("machine %s goes without a reason", c.Machine)
		}
	}
	now := shape{w.now, len(w.sessions), len(w.waiting), queued, scale.BoundsOf(w.Pool, w.now).Window, alive}
	if was := w.shrunk; w.honest() && d.Create > 0 && was != nil && now.sessions <= was.sessions && now.waiting <= was.waiting && now.queued <= was.queued &&
		now.window == was.window && w.now.Sub(was.at) < time.Minute && w.out.Evictions == 0 && len(w.Pool.Scale.Rules) == 0 {
		w.breach("machines are made though one just went, and nothing more is asked for: %s", d.Because.Sentence)
	}
	if len(d.Retire) > 0 && d.Create == 0 {
		w.shrunk = &now
	}
}

// honest reports whether the policy promises what ours does.
func (w *world) honest() bool { return w.Policy != nil && !w.careless() }

func (w *world) careless() bool { return w.Pool.Name == Careless }

// Careless is the name of a pool whose policy ends machines with people on them; it breaks no promise by that.
const Careless shoal.PoolName = "careless"

// look looks at the world after a pass.
func (w *world) look() {
	could, does, alive, seated := false, false, 0, 0
	for _, m := range w.order {
		if m.Alive() {
			alive++
		}
		could = could || m.State == shoal.MachineReady && m.Wanted == shoal.WantRun
		does = does || m.Accepts()
		seated += len(m.users)
		if over := len(m.users) - max(w.Pool.Seats, 1); over > 0 && w.honest() {
			w.breach("machine %s has %d sessions", m.ID, len(m.users))
		}
	}
	if could && !does && scale.BoundsOf(w.Pool, w.now).Max > 0 && w.honest() {
		w.breach("machines run, and none takes logins")
	}
	w.out.Peak, w.out.PeakSessions = max(w.out.Peak, alive), max(w.out.PeakSessions, seated)
	if !w.out.lookedAt.IsZero() {
		d := w.now.Sub(w.out.lookedAt)
		for _, m := range w.order {
			w.out.inSessions += d * time.Duration(len(m.users))
			if len(m.users) > w.Pool.Seats {
				w.out.crowded += d * time.Duration(len(m.users))
			}
		}
	}
	w.out.lookedAt = w.now
}

// finish closes the books and compares them with the cloud's.
func (w *world) finish() {
	for _, m := range w.order {
		w.bill(m)
		for _, s := range m.sorted() {
			w.book = append(w.book, usage.Interval{Kind: shoal.ObjectSession, ID: string(s.id), Machine: m.ID, Pool: w.Pool.Name, User: s.user, Start: s.seated})
		}
	}
	for t := range w.running {
		w.attempt(t, time.Time{})
	}
	in := usage.Input{Intervals: w.book, Attempts: w.attempts, Since: w.Start, Until: w.end}
	w.out.Bill, w.out.Ledger = usage.Bill(in, usage.ByUser), w.cloud.total()
	for _, by := range []usage.By{usage.ByUser, usage.ByPool, usage.ByMachine} {
		if got := usage.Bill(in, by).Total.MachineSeconds; math.Abs(got-w.out.Ledger.Seconds()) >= 1 {
			w.breach("the bill by %s comes to %.0f s, and the cloud's ledger to %.0f s", by, got, w.out.Ledger.Seconds())
		}
	}
	w.out.Overfull = w.out.crowded.Seconds() / math.Max(w.out.inSessions.Seconds(), 1)
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
