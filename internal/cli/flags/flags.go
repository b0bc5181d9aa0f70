// Package flags holds values of command-line flags in the vocabulary's own notation:
// durations, amounts of memory, processors, points in time, one of some words.
package flags

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/shoal-pool/shoal"
)

// Duration is a span longer than nothing: 30m, 2d.
type Duration struct{ Value *shoal.Duration }

// Type implements pflag.Value.
func (f Duration) Type() string { return "duration" }

// String implements pflag.Value.
func (f Duration) String() string {
	if f.Value == nil || *f.Value == 0 {
		return ""
	}
	return f.Value.String()
}

// Set implements pflag.Value.
func (f Duration) Set(s string) error {
	d, err := ParseDuration(s)
	if err == nil {
		*f.Value = d
	}
	return err
}

// ParseDuration reads a duration that is longer than nothing.
func ParseDuration(s string) (shoal.Duration, error) {
	d, err := shoal.ParseDuration(s)
	if err != nil {
		return 0, shoal.Errorf(shoal.KindInvalid, "%w (%s)", err, shoal.HintOf(err))
	}
	if d <= 0 {
		return 0, shoal.Errorf(shoal.KindInvalid, "cannot use %q: it is no time at all", s)
	}
	return d, nil
}

// Bytes is an amount of memory: 512MiB.
type Bytes struct{ Value *shoal.Bytes }

// Type implements pflag.Value.
func (f Bytes) Type() string { return "size" }

// String implements pflag.Value.
func (f Bytes) String() string {
	if f.Value == nil || *f.Value == 0 {
		return ""
	}
	return f.Value.String()
}

// Set implements pflag.Value.
func (f Bytes) Set(s string) error {
	b, err := shoal.ParseBytes(s)
	if err == nil {
		*f.Value = b
	}
	return err
}

// CPUs is a number of processors: 0.5.
type CPUs struct{ Value *shoal.MilliCPU }

// Type implements pflag.Value.
func (f CPUs) Type() string { return "cpus" }

// String implements pflag.Value.
func (f CPUs) String() string {
	if f.Value == nil || *f.Value == 0 {
		return ""
	}
	return f.Value.String()
}

// Set implements pflag.Value.
func (f CPUs) Set(s string) error {
	c, err := shoal.ParseCPU(s)
	if err == nil {
		*f.Value = c
	}
	return err
}

// Since is a point in the past: a duration until now, a day or a time.
type Since struct{ Time *time.Time }

// Type implements pflag.Value.
func (f Since) Type() string { return "time" }

// String implements pflag.Value.
func (f Since) String() string {
	if f.Time == nil || f.Time.IsZero() {
		return ""
	}
	return f.Time.Format(time.RFC3339)
}

// Set implements pflag.Value.
func (f Since) Set(s string) error {
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05", "2006-01-02 15:04:05", "2006-01-02 15:04", time.DateOnly} {
		if t, err := time.ParseInLocation(layout, s, time.Local); err == nil {
			*f.Time = t
			return nil
		}
	}
	d, err := shoal.ParseDuration(s)
	if err != nil {
		return shoal.Errorf(shoal.KindInvalid, "cannot read %q as a time (write 24h, 7d or 2026-01-31)", s)
	}
	*f.Time = time.Now().Add(-time.Duration(d))
	return nil
}

// Word is one of some words.
type Word struct {
	Value string
	Of    []string
}

// String implements pflag.Value.
func (w *Word) String() string { return w.Value }

// Type implements pflag.Value.
func (w *Word) Type() string { return "word" }

// Set implements pflag.Value.
func (w *Word) Set(s string) error {
	if !slices.Contains(w.Of, s) {
		return fmt.Errorf("choose one of %s", strings.Join(w.Of, ", "))
	}
	w.Value = s
	return nil
}

// Nodes is a flag for a number of machines, or a range of it.
type Nodes struct{ Value *shoal.Nodes }

func (f Nodes) String() string {
	if f.Value == nil {
		return ""
	}
	return f.Value.String()
}

// Set reads the flag's value.
func (f Nodes) Set(s string) (err error) {
	*f.Value, err = shoal.ParseNodes(s)
	return err
}

// Type names the value in help texts.
func (f Nodes) Type() string { return "nodes" }

// After is a flag for jobs to wait for; each use adds one.
type After struct{ Value *[]shoal.Dependency }

func (f After) String() string { return "" }

// Set reads one of the flag's values.
func (f After) Set(s string) error {
	d, err := shoal.ParseDependency(s)
	if err == nil {
		*f.Value = append(*f.Value, d)
	}
	return err
}

// Type names the value in help texts.
func (f After) Type() string { return "job" }

// Array is a flag for the indexes of an array and, behind a %, how many of its tasks run at a time.
type Array struct {
	Value      *string
	MaxRunning *int
}

func (f Array) String() string {
	if f.Value == nil {
		return ""
	}
	return *f.Value
}

// Set reads the flag's value. Whether the indexes are right is for others to say.
func (f Array) Set(s string) error {
	array, most, limited := strings.Cut(s, "%")
	if array == "" { // of a variable that is not set, say
		return shoal.Errorf(shoal.KindInvalid, "there are no indexes in it (write 1-100, 0-9:3 or 1,4,7-9)")
	}
	if limited {
		n, err := strconv.Atoi(most)
		if err != nil || n < 1 {
			return shoal.Errorf(shoal.KindInvalid, "cannot read %q as a number of tasks at a time (write 1-100%%5)", most)
		}
		*f.MaxRunning = n
	}
	*f.Value = array
	return nil
}

// Type names the value in help texts.
func (f Array) Type() string { return "range" }
