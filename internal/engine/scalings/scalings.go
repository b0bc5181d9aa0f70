// Package scalings makes records of what the autoscaler decides, and reads them again.
package scalings

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/scale"
	"github.com/shoal-pool/shoal/internal/spec"
	"github.com/shoal-pool/shoal/internal/store"
	"github.com/shoal-pool/shoal/internal/usage"
)

// usualBoot is taken where no machine of a pool has ever been ready.
const usualBoot = time.Minute

// Spent is what the machines of a pool have cost since the day and the month began, where its clock is.
func Spent(tx *store.Tx, p shoal.Pool, now time.Time) (shoal.Ceiling, error) {
	y, mo, d := now.In(p.Scale.Zone()).Date()
	day := time.Date(y, mo, d, 0, 0, 0, 0, p.Scale.Zone())
	month := time.Date(y, mo, 1, 0, 0, 0, 0, p.Scale.Zone())
	intervals, err := tx.IntervalsSince(month)
	if err != nil {
		return shoal.Ceiling{}, err
	}
	intervals = slices.DeleteFunc(intervals, func(i store.Interval) bool {
		return i.Kind != shoal.ObjectMachine || i.Pool != p.Name || i.Price.Currency != p.Price.Currency
	})
	cost := func(since time.Time) float64 {
		return usage.Bill(usage.Input{Intervals: intervals, Since: since, Until: now}, usage.ByPool).Total.Cost
	}
	return shoal.Ceiling{PerDay: cost(day), PerMonth: cost(month)}, nil
}

// Of is the record of a decision.
func Of(s scale.State, d scale.Decision, x scale.Sample, now time.Time) api.Scaling {
	n := max(x.Machines, 1)
	r := api.Scaling{At: now, Sessions: x.Sessions - s.Waiting, Waiting: s.Waiting, Queue: x.Queue, CPU: x.CPU / n, Memory: x.Memory / n, GPU: x.GPU / n,
		Running: x.Machines, SpentDay: s.Spent.PerDay, Window: scale.BoundsOf(s.Pool, now).Window, Rule: d.Rule,
		Created: d.Create, Retired: len(d.Retire), Drained: len(d.Cordon), Restored: len(d.Restore), Reasons: d.Reasons}
	for _, m := range s.Machines {
		if m.Alive() {
			r.Machines++
		}
		if m.Alive() && len(m.Cordons) == 0 && m.Wanted == shoal.WantRun {
			r.Open++
		}
	}
	r.Sentence = scale.Sentence(d)
	return r
}

// Rollout counts the machines of a rollout, and says what keeps it.
func Rollout(s scale.State, d scale.Decision) api.RolloutStatus {
	out := api.RolloutStatus{Pool: s.Pool.Name, State: api.RolloutDone, Failed: s.Rollout.Failed}
	for _, m := range s.Machines {
		switch {
		case m.Wanted != shoal.WantRun || m.State == shoal.MachineStopping || m.State == shoal.MachineFailed:
		case m.State != shoal.MachineReady:
			out.Coming++
		case !m.Old():
			out.New++
		default:
			out.Old++
			if len(m.Cordons) > 0 {
				out.Draining++
			}
			if m.EndsAt.After(out.Ends) {
				out.Ends = m.EndsAt
			}
		}
	}
	switch {
	case s.Rollout.Paused:
		out.State = api.RolloutPaused
	case out.Old > 0 && s.Rollout.Halted():
		out.State = api.RolloutStopped
	case out.Old > 0:
		out.State = api.RolloutRunning
	}
	if i := slices.IndexFunc(d.Reasons, func(r shoal.Reason) bool { return r.Code == "rollout" }); i >= 0 {
		out.Sentence = d.Reasons[i].Sentence
	} else {
		out.Sentence = fmt.Sprintf("all machines of pool %s are as it is now", s.Pool.Name)
	}
	return out
}

// Same reports whether a record says what another says. To a pool's rules each change of a load matters; without, they
// are kept as exactly as a rehearsal of rules asks for.
func Same(a, b api.Scaling, rules bool) bool {
	step := loadStep
	if rules {
		step = 1
	}
	if abs(a.CPU-b.CPU) >= step || abs(a.Memory-b.Memory) >= step || abs(a.GPU-b.GPU) >= step {
		return false
	}
	return a.Machines == b.Machines && a.Open == b.Open && a.Sessions == b.Sessions && a.Waiting == b.Waiting && a.Queue == b.Queue &&
		a.Window == b.Window && a.Rule == b.Rule && !b.Acts() && slices.Equal(a.Reasons, b.Reasons)
}

// Telling picks of records, the newest first, those that tell something: the newest, those that act, and those that give another
// reason than the one before.
func Telling(records []api.Scaling, most int) []api.Scaling {
	var picked []api.Scaling
	for i, r := range records {
		if len(picked) < most && (i == 0 || r.Acts() || i+1 < len(records) && r.Sentence != records[i+1].Sentence && !records[i+1].Acts()) {
			picked = append(picked, r)
		}
	}
	return picked
}

// Past is what is on record as package scale goes through it. How large waiting tasks were is not: four fill a machine.
func Past(records []api.Scaling, machine shoal.Resources) []scale.Past {
	var past []scale.Past
	for _, r := range records {
		running := r.Running
		if running == 0 { // it was not always on record
			running = r.Machines
		}
		x := scale.Past{At: r.At, Machines: r.Machines, Sessions: r.Sessions + r.Waiting, Waiting: r.Waiting, CPU: r.CPU * running, Memory: r.Memory * running, GPU: r.GPU * running}
		if r.Queue > 0 {
			x.Queue = []scale.Queue{{Resources: shoal.Resources{CPUs: machine.CPUs / 4, Memory: machine.Memory / 4}, Tasks: r.Queue}}
		}
		past = append(past, x)
	}
	return past
}

// Rehearsed is what would have come of what is on record, oldest first, and what did.
func Rehearsed(p shoal.Pool, past []api.Scaling, until time.Time, boot time.Duration) (out api.Rehearsal) {
	asked := Past(past, p.Machine)
	would, metric := scale.Replay(p, asked, until, boot), scale.ReplayMetric(p, asked, until, boot)
	out.From, out.Was, out.WasMost, out.WasWaited = would.From, would.Was, would.WasMost, shoal.Duration(would.WasWaited.Round(time.Second))
	out.MachineHours, out.Most, out.Made, out.Waits, out.Waited = would.MachineHours, would.Most, would.Made, would.Waits, shoal.Duration(would.Waited.Round(time.Second))
	out.Metric = api.Rehearsed{MachineHours: metric.MachineHours, Most: metric.Most, Made: metric.Made, Waits: metric.Waits,
		Waited: shoal.Duration(metric.Waited.Round(time.Second)), Ended: metric.Ended, Crowded: metric.Crowded}
	out.Fixed, out.FixedHours = would.Fixed, float64(would.Fixed)*would.Until.Sub(would.From).Hours()
	before := 0
	for _, r := range past {
		out.WasMade += r.Created
		out.WasWaits, before = out.WasWaits+max(r.Waiting-before, 0), r.Waiting
	}
	return out
}

// UsualStart is how long machines take to be ready, in the middle.
func UsualStart(recent []shoal.Machine) time.Duration {
	var all []time.Duration
	for _, m := range recent {
		if !m.ReadyAt.IsZero() && !m.Started.IsZero() && m.ReadyAt.After(m.Started) {
			all = append(all, m.ReadyAt.Sub(m.Started))
		}
	}
	if len(all) == 0 {
		return usualBoot
	}
	slices.Sort(all)
	return max(all[len(all)/2], time.Second)
}

// Fixed is the size that a request asks for.
func Fixed(p shoal.Pool, r api.ScaleRequest, now time.Time) (*shoal.FixedSize, string, error) {
	switch {
	case p.Deleting:
		return nil, "", shoal.Errorf(shoal.KindConflict, "it is being deleted")
	case r.Auto && (r.Size != 0 || r.For != 0):
		return nil, "", shoal.Errorf(shoal.KindInvalid, "the size is either set or left to the autoscaler").
			WithHint("give --size N, or --auto alone")
	case r.Auto:
		return nil, fmt.Sprintf("lets pool %s scale by itself", p.Name), nil
	case r.Size < 0:
		return nil, "", shoal.Errorf(shoal.KindInvalid, "%d cannot be a size", r.Size).WithHint("give a number from 0 to %d", p.Size.Max)
	case r.Size > p.Size.Max:
		return nil, "", shoal.Errorf(shoal.KindInvalid, "%d machines are more than the pool may have (size.max is %d)", r.Size, p.Size.Max).
			WithHint("give a number up to %d, or raise size.max with `shoal apply`", p.Size.Max)
	case r.For < 0:
		return nil, "", shoal.Errorf(shoal.KindInvalid, "%s cannot be a duration", time.Duration(r.For)).WithHint("give a duration such as 2h")
	}
	f := &shoal.FixedSize{Size: r.Size}
	sentence := fmt.Sprintf("sets the size of pool %s to %d", p.Name, r.Size)
	if r.For > 0 {
		f.Until = now.Add(time.Duration(r.For)).Truncate(time.Second)
		sentence += " for " + r.For.String()
	}
	return f, sentence, nil
}

// The past that a rehearsal goes through.
const (
	week = 7 * 24 * time.Hour
	most = 90 * 24 * time.Hour
)

// Since is how much of the past a request wants gone through; an error if it makes no sense.
func Since(r api.RehearsalRequest) (time.Duration, error) {
	since := time.Duration(r.Since)
	if since == 0 {
		since = week
	}
	if since < 0 || since > most {
		return 0, shoal.Errorf(shoal.KindInvalid, "cannot go through %s of the past", r.Since).WithHint("give a duration up to %s", shoal.Duration(most))
	}
	if r.Pool != nil {
		if mistakes := spec.CheckPool(*r.Pool); len(mistakes) > 0 {
			return 0, spec.Invalid(mistakes)
		}
	}
	return since, nil
}

// Other is a pool with what another says of scaling; nil: as it is.
func Other(p shoal.Pool, other *shoal.Pool) shoal.Pool {
	if other == nil {
		return p
	}
	p.Size, p.Scale, p.Seats, p.Placement, p.Machine, p.Price, p.Fixed = other.Size, other.Scale, other.Seats, other.Placement, other.Machine, other.Price, nil
	return p
}

// The least change of a load that is worth a record.
const (
	loadStep   = 10 // percent of the processors
	memoryStep = 64 << 20
)

// Differs reports whether a load differs from another so much that it is worth a record.
func Differs(a, b shoal.Load) bool {
	first := reflect.ValueOf(b).IsZero() && !reflect.ValueOf(a).IsZero()
	if !maps.Equal(a.Homes, b.Homes) || a.GPUs != b.GPUs || a.GPUNote != b.GPUNote || abs(a.GPUPercent-b.GPUPercent) >= loadStep || abs(int64(a.GPUMemory)-int64(b.GPUMemory)) >= memoryStep {
		return true
	}
	return first || abs(a.CPUPercent-b.CPUPercent) >= loadStep || abs(int64(a.Memory)-int64(b.Memory)) >= memoryStep
}

func abs[T int | int64](n T) T {
	if n < 0 {
		return -n
	}
	return n
}
