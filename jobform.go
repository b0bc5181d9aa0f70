package shoal

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// Nodes is how many machines a task needs at once: "2", or from Min to Max: "2-4". The zero value
// means one.
type Nodes struct{ Min, Max int }

// Fixed is a fixed number of nodes.
func Fixed(n int) Nodes { return Nodes{n, n} }

// ParseNodes reads "2" or "2-4".
func ParseNodes(s string) (Nodes, error) {
	low, high, ranged := strings.Cut(s, "-")
	if !ranged {
		high = low
	}
	least, err1 := strconv.Atoi(low)
	most, err2 := strconv.Atoi(high)
	if err1 != nil || err2 != nil || least < 1 || most < least {
		return Nodes{}, Errorf(KindInvalid, "cannot read %q as a number of nodes", s).WithHint("write a number, or a range as in 2-4")
	}
	return Nodes{least, most}, nil
}

// String is the form that ParseNodes reads.
func (n Nodes) String() string {
	if n.Max > n.Min {
		return fmt.Sprintf("%d-%d", n.Min, n.Max)
	}
	return strconv.Itoa(n.Least())
}

// Least is how many it takes at least.
func (n Nodes) Least() int { return max(n.Min, 1) }

// Several reports whether a task can have more than one node.
func (n Nodes) Several() bool { return n.Max > 1 }

// MarshalJSON writes a number, or a range as a string.
func (n Nodes) MarshalJSON() ([]byte, error) {
	if n.Max > n.Min {
		return json.Marshal(n.String())
	}
	return json.Marshal(n.Least())
}

// UnmarshalJSON reads a number, or a string as ParseNodes does.
func (n *Nodes) UnmarshalJSON(data []byte) (err error) {
	s := string(data)
	if len(data) > 0 && data[0] == '"' {
		if err := json.Unmarshal(data, &s); err != nil {
			return err
		}
	}
	*n, err = ParseNodes(s)
	return err
}

// Item is what one task of an array works on: any JSON value. The task sees a string as it is, and
// anything else as JSON, in SHOAL_ITEM; of an object also each field, in PARAM_<NAME> and for {name}
// in the command.
type Item = json.RawMessage

// OutputDir is a directory for results. Each job gets one of its own below it, unless Reuse is set.
type OutputDir struct {
	Path  string `json:"path"`
	Reuse bool   `json:"reuse,omitempty"`
}

// MarshalJSON writes the path alone where that says all.
func (o OutputDir) MarshalJSON() ([]byte, error) {
	if !o.Reuse {
		return json.Marshal(o.Path)
	}
	type plain OutputDir
	return json.Marshal(plain(o))
}

// UnmarshalJSON reads a path, or an object.
func (o *OutputDir) UnmarshalJSON(data []byte) error {
	*o = OutputDir{}
	if len(data) > 0 && data[0] == '"' {
		return json.Unmarshal(data, &o.Path)
	}
	type plain OutputDir
	return json.Unmarshal(data, (*plain)(o))
}

// Condition is how a job must have ended for those that wait for it.
type Condition string

// The conditions.
const (
	AfterOK     Condition = "ok" // the default
	AfterAny    Condition = "any"
	AfterFailed Condition = "failed" // any end but success
)

// Corresponding pairs the tasks of two arrays by index.
const Corresponding = "corresponding"

// Dependency is a job that must end first, or, with Task "corresponding", whose task of the same
// index must end before each task.
type Dependency struct {
	Job       string    `json:"job"` // its number or name
	Condition Condition `json:"condition,omitempty"`
	Task      string    `json:"task,omitempty"`
}

// ParseDependency reads JOB, JOB:CONDITION or JOB/*.
func ParseDependency(s string) (Dependency, error) {
	d := Dependency{Job: s}
	if job, condition, found := strings.Cut(s, ":"); found {
		d.Job, d.Condition = job, Condition(condition)
		switch d.Condition {
		case AfterOK, AfterAny, AfterFailed:
		default:
			return d, Errorf(KindInvalid, "cannot read %q as a condition", condition).WithHint("it is ok, any or failed")
		}
	}
	if job, all := strings.CutSuffix(d.Job, "/*"); all {
		d.Job, d.Task = job, Corresponding
	}
	if d.Condition == AfterOK {
		d.Condition = ""
	}
	if d.Job == "" {
		return d, Errorf(KindInvalid, "cannot read %q as a job to wait for", s).WithHint("give its number or name, as in 17, prep:any or prep/*")
	}
	return d, nil
}

// String is the form that ParseDependency reads.
func (d Dependency) String() string {
	s := d.Job
	if d.Task == Corresponding {
		s += "/*"
	}
	if d.Condition != "" && d.Condition != AfterOK {
		s += ":" + string(d.Condition)
	}
	return s
}

// Met reports whether an end in a state is what is waited for.
func (d Dependency) Met(s JobState) bool {
	switch d.Condition {
	case AfterAny:
		return s.Ended()
	case AfterFailed:
		return s.Ended() && s != JobSucceeded
	}
	return s == JobSucceeded
}

// MarshalJSON writes the string that ParseDependency reads.
func (d Dependency) MarshalJSON() ([]byte, error) { return json.Marshal(d.String()) }

// UnmarshalJSON reads that string, a job's number, or an object.
func (d *Dependency) UnmarshalJSON(data []byte) (err error) {
	*d = Dependency{}
	if len(data) > 0 && data[0] == '{' {
		type plain Dependency
		return json.Unmarshal(data, (*plain)(d))
	}
	s := string(data)
	if len(data) > 0 && data[0] == '"' {
		if err := json.Unmarshal(data, &s); err != nil {
			return err
		}
	}
	*d, err = ParseDependency(s)
	return err
}

// Factor multiplies an amount: "2x", "1.5x". Zero means no change.
type Factor float64

// maxFactor bounds a Factor: beyond it somebody has mistaken the unit.
const maxFactor = 100

// ParseFactor reads "2x" or "1.5".
func ParseFactor(s string) (Factor, error) {
	f, err := strconv.ParseFloat(strings.TrimSuffix(s, "x"), 64)
	if err != nil || !(f >= 1 && f <= maxFactor) {
		return 0, Errorf(KindInvalid, "cannot read %q as a factor", s).WithHint("write 2x or 1.5x; it is from 1 to %d", maxFactor)
	}
	return Factor(f), nil
}

// String is the form that ParseFactor reads.
func (f Factor) String() string { return strconv.FormatFloat(float64(f), 'f', -1, 64) + "x" }

// MarshalJSON writes "2x".
func (f Factor) MarshalJSON() ([]byte, error) { return json.Marshal(f.String()) }

// UnmarshalJSON reads "2x", or a number.
func (f *Factor) UnmarshalJSON(data []byte) (err error) {
	s := string(data)
	if len(data) > 0 && data[0] == '"' {
		if err := json.Unmarshal(data, &s); err != nil {
			return err
		}
	}
	*f, err = ParseFactor(s)
	return err
}
