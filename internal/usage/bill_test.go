package usage_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/usage"
)

func at(s float64) time.Time { return time.Unix(1000, 0).Add(time.Duration(s * float64(time.Second))) }

func machine(id shoal.MachineID, start, end float64) usage.Interval {
	i := usage.Interval{Kind: shoal.ObjectMachine, ID: string(id), Machine: id, Pool: "lab", Start: at(start),
		Price: shoal.Price{PerHour: 3.6, Currency: "EUR"}}
	if end > 0 {
		i.End = at(end)
	}
	return i
}

func session(id string, user shoal.UserName, m shoal.MachineID, start, end float64) usage.Interval {
	i := usage.Interval{Kind: shoal.ObjectSession, ID: id, User: user, Machine: m, Pool: "lab", Start: at(start)}
	if end > 0 {
		i.End = at(end)
	}
	return i
}

func attempt(job shoal.JobID, user shoal.UserName, m shoal.MachineID, start, end float64) shoal.Attempt {
	a := shoal.Attempt{User: user, Machine: m, Placed: at(start), State: shoal.JobRunning}
	a.Job, a.Attempt = job, 1
	if end > 0 {
		a.State, a.Ended = shoal.JobSucceeded, at(end)
	}
	return a
}

func TestBill(t *testing.T) {
	t.Parallel()
	in := usage.Input{
		Intervals: []usage.Interval{
			machine("m-1", 0, 100), machine("m-2", 50, 0), // the second still runs
			session("s-1", "alice", "m-1", 10, 50), session("s-2", "bob", "m-1", 30, 70),
			session("s-3", "bob", "m-2", 90, 0), session("s-4", "zoe", "m-9", 0, 100), // a machine that is not billed
		},
		Attempts: []shoal.Attempt{attempt("7", "alice", "m-1", 40, 60)},
		Groups:   map[shoal.UserName][]shoal.GroupName{"bob": {"ops", "research"}},
		Since:    at(0), Until: at(150),
	}
	// m-1: idle 0-10, alice 10-30, alice+bob 30-40, alice+bob+7 40-50, bob+7 50-60, bob 60-70, idle 70-100
	// m-2: idle 50-90, bob 90-150
	third := 10.0 / 3
	alice, bob, job := 20+5+third, 5+third+5+10+60, third+5
	row := func(key string, session, task, idle float64) usage.Row {
		sum := session + task + idle
		return usage.Row{Key: key, SessionSeconds: session, TaskSeconds: task, IdleSeconds: idle, MachineSeconds: sum, Cost: sum / 1000, Currency: "EUR"}
	}
	for _, c := range []struct {
		by   usage.By
		want []usage.Row
	}{
		{usage.ByUser, []usage.Row{row("bob", bob, 0, 0), row("(idle)", 0, 0, 80), row("alice", alice, job, 0)}},
		{usage.ByGroup, []usage.Row{row("(idle)", 0, 0, 80), row("ops", bob/2, 0, 0), row("research", bob/2, 0, 0), row("(no group)", alice, job, 0)}},
		{usage.ByPool, []usage.Row{row("lab", alice+bob, job, 80)}},
		{usage.ByMachine, []usage.Row{row("m-1", alice+bob-60, job, 40), row("m-2", 60, 0, 40)}},
		{usage.ByJob, []usage.Row{row("(sessions)", alice+bob, 0, 0), row("(idle)", 0, 0, 80), row("7", 0, job, 0)}},
	} {
		got := usage.Bill(in, c.by)
		approx := cmpopts.EquateApprox(0, 1e-6)
		if diff := cmp.Diff(c.want, got.Rows, approx); diff != "" {
			t.Errorf("by %s:\n%s", c.by, diff)
		}
		if diff := cmp.Diff(row("total", alice+bob, job, 80), got.Total, approx); diff != "" {
			t.Errorf("by %s, total:\n%s", c.by, diff)
		}
	}
}

// When the clock was put forward by 5000 s, after 100 s, the bill counts the time that passed: of who had gone, who stays and what runs.
func TestClockSet(t *testing.T) {
	t.Parallel()
	was := session("7/3#1@m-1", "carol", "m-1", 60, 100)
	was.Kind = shoal.ObjectTask
	in := usage.Input{Since: at(0), Until: at(5200), Intervals: []usage.Interval{machine("m-1", 0, 100), machine("m-1", 5100, 0),
		session("s-1", "alice", "m-1", 0, 40), session("s-2", "bob", "m-1", 80, 100), session("s-2", "bob", "m-1", 5100, 0), was},
		Attempts: []shoal.Attempt{attempt("7", "carol", "m-1", 5060, 5150)}}
	byUser, byJob := map[string]float64{}, map[string]float64{}
	for _, r := range usage.Bill(in, usage.ByUser).Rows {
		byUser[r.Key] = r.MachineSeconds
	}
	for _, r := range usage.Bill(in, usage.ByJob).Rows {
		byJob[r.Key] = r.MachineSeconds
	}
	if diff := cmp.Diff(map[string]float64{"alice": 40, "(idle)": 20, "carol": 20 + 10 + 25, "bob": 10 + 25 + 50}, byUser); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[string]float64{"(sessions)": 40 + 10 + 25 + 50, "(idle)": 20, "7": 20 + 10 + 25}, byJob); diff != "" {
		t.Error(diff)
	}
}

func TestCurrencies(t *testing.T) {
	t.Parallel()
	free, euro, dollar := machine("m-1", 0, 10), machine("m-1", 10, 20), machine("m-2", 0, 10)
	free.Price, dollar.Price.Currency = shoal.Price{}, "USD"
	one := usage.Bill(usage.Input{Intervals: []usage.Interval{free, euro}, Since: at(0), Until: at(100)}, usage.ByPool)
	if len(one.Rows) != 1 || one.Rows[0].MachineSeconds != 20 || one.Total.Currency != "EUR" {
		t.Errorf("free and priced: %+v", one)
	}
	two := usage.Bill(usage.Input{Intervals: []usage.Interval{euro, dollar}, Since: at(0), Until: at(100)}, usage.ByPool)
	if len(two.Rows) != 2 || two.Total.Currency != "mixed" || two.Total.Cost != 0 || two.Total.MachineSeconds != 20 {
		t.Errorf("two currencies: %+v", two)
	}
}

// Somebody's own jobs, of which one ran where it costs nothing, add up to what the others cost.
func TestOnly(t *testing.T) {
	t.Parallel()
	free, euro, dollar := machine("m-1", 0, 10), machine("m-2", 0, 10), machine("m-3", 0, 10)
	free.Price, dollar.Price.Currency = shoal.Price{}, "USD"
	b := usage.Bill(usage.Input{Intervals: []usage.Interval{free, euro, dollar}, Since: at(0), Until: at(100),
		Attempts: []shoal.Attempt{attempt("1", "alice", "m-1", 0, 10), attempt("2", "alice", "m-2", 0, 5), attempt("3", "bob", "m-3", 0, 10)}}, usage.ByJob)
	hers := b.Only(map[string]bool{"1": true, "2": true})
	want := usage.Row{Key: "total", MachineSeconds: 15, TaskSeconds: 15, Cost: 0.005, Currency: "EUR"}
	if len(hers.Rows) != 2 || hers.Total != want || len(b.Rows) != 4 {
		t.Errorf("%+v of %+v", hers, b)
	}
	if both := b.Only(map[string]bool{"2": true, "3": true}); both.Total.Currency != "mixed" || both.Total.Cost != 0 {
		t.Errorf("%+v", both)
	}
	if none := b.Only(nil); len(none.Rows) != 0 || none.Total != (usage.Row{Key: "total"}) {
		t.Errorf("%+v", none)
	}
}

// Amounts have no digits that only come of adding them up, and rows add up to the total.
func TestRounded(t *testing.T) {
	t.Parallel()
	in := usage.Input{Since: at(0), Until: at(1e6)}
	for i := range 7 {
		m := machine(shoal.MachineID(fmt.Sprint("m-", i)), 0, 1+float64(i)/3)
		m.Price.PerHour = 0.3
		in.Intervals = append(in.Intervals, m, session(fmt.Sprint("s-", i), shoal.UserName(fmt.Sprint("u", i%3)), m.Machine, 0, 0.1))
	}
	for _, by := range []usage.By{usage.ByUser, usage.ByPool, usage.ByMachine} {
		b := usage.Bill(in, by)
		var sum int64
		for _, r := range append(b.Rows, b.Total) {
			if text := strconv.FormatFloat(r.Cost, 'f', -1, 64); len(text) > len("0.123456789") {
				t.Errorf("by %s: %s costs %s", by, r.Key, text)
			}
			sum += int64(math.Round(r.Cost * 1e9))
		}
		if total := int64(math.Round(b.Total.Cost * 1e9)); sum != 2*total {
			t.Errorf("by %s: rows add up to %d, the total is %d", by, sum-total, total)
		}
	}
}

// The wire form has the same fields: whoever serves a bill converts its rows.
var _ = api.UsageRow(usage.Row{})

func TestParseBy(t *testing.T) {
	t.Parallel()
	if by, err := usage.ParseBy(""); by != usage.ByUser || err != nil {
		t.Error(by, err)
	}
	if by, err := usage.ParseBy("job"); by != usage.ByJob || err != nil {
		t.Error(by, err)
	}
	if _, err := usage.ParseBy("moon"); shoal.KindOf(err) != shoal.KindInvalid {
		t.Error(err)
	}
}

func TestGroupsOf(t *testing.T) {
	t.Parallel()
	got := usage.GroupsOf(
		[]shoal.User{{Name: "alice", Groups: []shoal.GroupName{"b", "a"}}},
		[]shoal.Group{{Name: "a", Members: []shoal.UserName{"alice", "bob"}}})
	want := map[shoal.UserName][]shoal.GroupName{"alice": {"a", "b"}, "bob": {"a"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func drawInput(t *rapid.T) usage.Input {
	in := usage.Input{Since: at(100), Until: at(100).Add(time.Duration(rapid.Int64Range(0, 1e12).Draw(t, "until"))),
		Groups: map[shoal.UserName][]shoal.GroupName{"u0": {"a", "b", "c"}, "u1": {"a"}}}
	instant := func(label string) time.Time {
		return at(0).Add(time.Duration(rapid.Int64Range(0, 2e12).Draw(t, label)))
	}
	end := func(start time.Time) time.Time {
		if rapid.Bool().Draw(t, "open") {
			return time.Time{}
		}
		return start.Add(time.Duration(rapid.Int64Range(0, 1e12).Draw(t, "length")))
	}
	id := func() shoal.MachineID {
		return shoal.MachineID(fmt.Sprint("m-", rapid.IntRange(0, 2).Draw(t, "machine")))
	}
	user := func() shoal.UserName { return shoal.UserName(fmt.Sprint("u", rapid.IntRange(0, 3).Draw(t, "user"))) }
	for i := range rapid.IntRange(0, 5).Draw(t, "machines") {
		m := id()
		iv := usage.Interval{Kind: shoal.ObjectMachine, ID: fmt.Sprint(m, i), Machine: m, Pool: "lab", Start: instant("start"), Price: shoal.Price{PerHour: 1, Currency: "EUR"}}
		iv.End = end(iv.Start)
		in.Intervals = append(in.Intervals, iv)
	}
	for i := range rapid.IntRange(0, 8).Draw(t, "sessions") {
		iv := usage.Interval{Kind: shoal.ObjectSession, ID: fmt.Sprint("s-", i), Machine: id(), User: user(), Start: instant("start")}
		iv.End = end(iv.Start)
		in.Intervals = append(in.Intervals, iv)
	}
	for i := range rapid.IntRange(0, 8).Draw(t, "attempts") {
		a := shoal.Attempt{Machine: id(), User: user(), Placed: instant("start"), State: shoal.JobRunning}
		a.Job, a.Index, a.Attempt = shoal.JobID(fmt.Sprint(i%3+1)), i, 1
		if a.Ended = end(a.Placed); !a.Ended.IsZero() {
			a.State = shoal.JobFailed
		}
		in.Attempts = append(in.Attempts, a)
	}
	return in
}

// Idle time that is shared goes to who used the pool, by how much; of a pool that nobody used it is nobody's.
func TestSharedIdle(t *testing.T) {
	t.Parallel()
	other := machine("m-9", 0, 50)
	other.Pool = "spare"
	in := usage.Input{Idle: usage.IdleShared, Since: at(0), Until: at(100),
		Intervals: []usage.Interval{machine("m-1", 0, 100), other, session("s-1", "alice", "m-1", 0, 30), session("s-2", "bob", "m-1", 30, 40)}}
	got := usage.Bill(in, usage.ByUser)
	want := []usage.Row{
		{Key: "alice", MachineSeconds: 75, SessionSeconds: 30, IdleSeconds: 45, Cost: 0.075, Currency: "EUR"},
		{Key: "(idle)", MachineSeconds: 50, IdleSeconds: 50, Cost: 0.05, Currency: "EUR"},
		{Key: "bob", MachineSeconds: 25, SessionSeconds: 10, IdleSeconds: 15, Cost: 0.025, Currency: "EUR"},
	}
	if diff := cmp.Diff(want, got.Rows, cmpopts.EquateApprox(0, 1e-9)); diff != "" {
		t.Error(diff)
	}
	if _, err := usage.ParseIdle("moon"); shoal.KindOf(err) != shoal.KindInvalid {
		t.Error(err)
	}
}

// However the bill is cut, its rows add up to the machine intervals: nothing is lost or doubled.
func TestSumsAreExact(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		in := drawInput(t)
		var want time.Duration
		for _, i := range in.Intervals {
			if i.Kind != shoal.ObjectMachine {
				continue
			}
			start, end := i.Start, i.End
			if start.Before(in.Since) {
				start = in.Since
			}
			if end.IsZero() || end.After(in.Until) {
				end = in.Until
			}
			want += max(end.Sub(start), 0)
		}
		for _, by := range []usage.By{usage.ByUser, usage.ByGroup, usage.ByPool, usage.ByJob, usage.ByMachine} {
			in.Idle = rapid.SampledFrom([]usage.Idle{usage.IdleApart, usage.IdleShared}).Draw(t, "idle")
			b := usage.Bill(in, by)
			if b.Total.MachineSeconds != want.Seconds() {
				t.Fatalf("by %s: total %v, machines ran %v", by, b.Total.MachineSeconds, want.Seconds())
			}
			var sum, cost float64
			for _, r := range b.Rows {
				sum, cost = sum+r.MachineSeconds, cost+r.Cost
				if math.Abs(r.SessionSeconds+r.TaskSeconds+r.IdleSeconds-r.MachineSeconds) > 1e-6 {
					t.Fatalf("by %s: the parts of %+v do not add up", by, r)
				}
			}
			if math.Abs(sum-want.Seconds()) > 1e-6 || math.Abs(cost-want.Hours()) > 1e-6 {
				t.Fatalf("by %s: rows add up to %v s and cost %v, want %v", by, sum, cost, want)
			}
		}
	})
}

// The order of the input does not matter, and cutting the time in two gives the same sums.
func TestOrderAndCut(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		in := drawInput(t)
		whole := usage.Bill(in, usage.ByUser)
		shuffled := in
		shuffled.Intervals = append([]usage.Interval(nil), in.Intervals...)
		rng := rand.New(rand.NewPCG(1, uint64(rapid.IntRange(0, 99).Draw(t, "seed"))))
		rng.Shuffle(len(shuffled.Intervals), func(i, j int) {
			shuffled.Intervals[i], shuffled.Intervals[j] = shuffled.Intervals[j], shuffled.Intervals[i]
		})
		if diff := cmp.Diff(whole, usage.Bill(shuffled, usage.ByUser), cmpopts.EquateApprox(0, 1e-9)); diff != "" {
			t.Fatalf("in another order:\n%s", diff)
		}
		first, second := in, in
		cut := in.Since.Add(in.Until.Sub(in.Since) / 2)
		first.Until, second.Since = cut, cut
		// What is open at the cut is open for the first half: its end is the cut.
		sums := map[string]float64{}
		for _, half := range []usage.Input{first, second} {
			for _, r := range usage.Bill(half, usage.ByUser).Rows {
				sums[r.Key] += r.MachineSeconds
			}
		}
		for _, r := range whole.Rows {
			if math.Abs(sums[r.Key]-r.MachineSeconds) > 1e-6 {
				t.Fatalf("%s: %v in one, %v in two halves", r.Key, r.MachineSeconds, sums[r.Key])
			}
		}
	})
}

// A bill that is made in parts is the same, but for a few nanoseconds that cannot be divided.
func TestParts(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(3, 4))
	in := usage.Input{Since: at(0), Until: at(1000)}
	for i := range 5 {
		in.Intervals = append(in.Intervals, machine(shoal.MachineID(fmt.Sprint("m-", i)), float64(r.IntN(100)), float64(500+r.IntN(1000))))
	}
	for i := range 200 {
		start := r.Float64() * 1000
		a := attempt(shoal.JobID(fmt.Sprint(i%9)), shoal.UserName(fmt.Sprint("u", i%4)), shoal.MachineID(fmt.Sprint("m-", i%5)), start, start+r.Float64()*200)
		a.Index = i
		in.Attempts = append(in.Attempts, a)
	}
	for _, by := range []usage.By{usage.ByUser, usage.ByJob, usage.ByMachine} {
		whole := usage.Bill(in, by)
		l := usage.NewLedger(by, nil, usage.IdleApart)
		for from := 0.0; from < 1000; from += 37 {
			part := in
			part.Since, part.Until = at(from), at(min(from+37, 1000))
			l.Add(part)
		}
		if diff := cmp.Diff(whole, l.Table(in.Since, in.Until), cmpopts.EquateApprox(0, 1e-4)); diff != "" {
			t.Errorf("by %s:\n%s", by, diff)
		}
	}
}
