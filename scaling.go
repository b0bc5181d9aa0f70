package shoal

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Scale says how a pool grows and shrinks.
type Scale struct {
	Idle Idle `json:"idle"`
	// TimeZone is where the clock of the schedule and of Cost is: a name such as Europe/Berlin. Default: UTC.
	TimeZone string   `json:"timeZone,omitempty"`
	Rules    []Rule   `json:"rules,omitempty"`
	Schedule []Window `json:"schedule,omitempty"`
	Cost     Ceiling  `json:"cost,omitzero"`
}

// Idle says when an unused machine is stopped.
type Idle struct {
	After Duration `json:"after,omitempty"`
	Warn  Duration `json:"warn,omitempty"`
	// Unused is after how long without use all ends that only waits for its user: connections, shells, a tmux. See UnusedFor.
	Unused Duration `json:"unused,omitempty"`
	// Probe is a command that tells, on the machine, whether something is in use there: it exits with 0 if so, and with 1 if not.
	Probe string `json:"probe,omitempty"`
}

// unusedFor is long enough that nobody's working day is cut, and short enough for a week's forgotten terminals.
const unusedFor = 12 * time.Hour

// UnusedFor is Unused, or what holds where the pool does not say.
func (i Idle) UnusedFor() time.Duration {
	if i.Unused > 0 {
		return time.Duration(i.Unused)
	}
	return unusedFor
}

// Metric is a figure that a rule looks at.
type Metric string

// The metrics. What is asked of a pool is shared by its machines: one more makes each figure less, but for
// the length of the queue.
const (
	MetricSessions Metric = "sessions" // of a machine, on average
	MetricSeats    Metric = "seats"    // percent of them that are taken
	MetricQueue    Metric = "queue"    // tasks that wait, in all
	MetricCPU      Metric = "cpu"      // percent, on average of the machines; so are the others
	MetricMemory   Metric = "memory"
	MetricGPU      Metric = "gpu"
)

// Measured reports whether a metric comes and goes from moment to moment, so that only an average says something.
func (m Metric) Measured() bool { return m != MetricSessions && m != MetricSeats }

// Rule makes a pool larger while a metric is above a bound, or smaller while it is below one.
type Rule struct {
	Metric    Metric   `json:"metric"`
	Aggregate string   `json:"aggregate,omitempty"` // of the figures within the window: average, min, max, last
	Window    Duration `json:"window,omitempty"`
	Above     *float64 `json:"above,omitempty"`
	Below     *float64 `json:"below,omitempty"`
	By        Step     `json:"by,omitzero"` // so many machines more, or fewer
	To        *int     `json:"to,omitempty"`
	Cooldown  Duration `json:"cooldown,omitempty"` // since a rule last changed the pool
}

// Grows reports whether the rule makes the pool larger.
func (r Rule) Grows() bool { return r.Above != nil }

// Step is a number of machines, or a percentage of those there are.
type Step struct {
	Machines int
	Percent  int
}

// Of is how many machines the step is, of so many: one at least.
func (s Step) Of(machines int) int {
	if s.Percent > 0 {
		return max(int(math.Ceil(float64(machines)*float64(s.Percent)/100)), 1)
	}
	return max(s.Machines, 1)
}

// String writes 2 or 25%.
func (s Step) String() string {
	if s.Percent > 0 {
		return strconv.Itoa(s.Percent) + "%"
	}
	return strconv.Itoa(s.Machines)
}

// MarshalJSON writes a number, or a percentage as a string.
func (s Step) MarshalJSON() ([]byte, error) {
	if s.Percent > 0 {
		return json.Marshal(s.String())
	}
	return json.Marshal(s.Machines)
}

// UnmarshalJSON takes 2 or "25%".
func (s *Step) UnmarshalJSON(data []byte) error {
	text := strings.Trim(string(data), `"`)
	digits, percent := strings.CutSuffix(text, "%")
	n, err := strconv.Atoi(digits)
	if err != nil || n < 1 || n > 100_000 {
		return Errorf(KindInvalid, "cannot read %q as a number of machines", text).WithHint("write 2, or 25%%; above makes the pool larger, below smaller")
	}
	if *s = (Step{Machines: n}); percent {
		*s = Step{Percent: n}
	}
	return nil
}

// Window is a part of the week, or of certain dates, in which a pool has other bounds. What it does not say is as
// the pool says.
type Window struct {
	Name      string    `json:"name,omitempty"`
	Days      []string  `json:"days,omitempty"`  // mon, or mon-fri; of the week
	Dates     []string  `json:"dates,omitempty"` // 2026-12-24, or 2026-12-24/2026-12-26
	From      string    `json:"from,omitempty"`  // 08:00; default: the day's beginning
	To        string    `json:"to,omitempty"`    // 18:30; default: the day's end. Not later than From: on the next day
	Min       *int      `json:"min,omitempty"`
	Max       *int      `json:"max,omitempty"`
	Spare     *int      `json:"spare,omitempty"`
	Placement Placement `json:"placement,omitempty"`
}

// Title names a window for people.
func (w Window) Title() string {
	if w.Name != "" {
		return w.Name
	}
	days := strings.Join(append(append([]string{}, w.Days...), w.Dates...), ", ")
	if w.From == "" && w.To == "" {
		return days
	}
	return fmt.Sprintf("%s %s-%s", days, cmp.Or(w.From, "00:00"), cmp.Or(w.To, "24:00"))
}

// Ceiling bounds what the machines of a pool may cost, in the currency of its price. Once it is reached there are no
// new machines until the next day or month; those that run stay until nobody is on them.
type Ceiling struct {
	PerDay   float64 `json:"perDay,omitempty"`
	PerMonth float64 `json:"perMonth,omitempty"`
}

// Zone is where the pool's clock is. The name was checked when the pool was made; one that is not known here is UTC.
func (s Scale) Zone() *time.Location {
	if s.TimeZone == "" {
		return time.UTC
	}
	if loc, err := time.LoadLocation(s.TimeZone); err == nil {
		return loc
	}
	return time.UTC
}
