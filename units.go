package shoal

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Bytes is an amount of memory or disk. In files and JSON it is a number of
// bytes or a string such as "512MiB", "1.5G" (binary when written with an i).
type Bytes int64

// MilliCPU is a share of processors in thousandths of one. In files and JSON it
// is a number of processors: 0.5, 2.
type MilliCPU int64

// Duration is a time.Duration that is written as "90s", "1h30m", "2d" in files and JSON.
type Duration time.Duration

var byteUnits = []struct {
	suffix string
	factor float64
}{
	{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40},
	{"Ki", 1 << 10}, {"Mi", 1 << 20}, {"Gi", 1 << 30}, {"Ti", 1 << 40},
	{"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12},
	{"K", 1e3}, {"M", 1e6}, {"G", 1e9}, {"T", 1e12},
	{"B", 1}, {"", 1},
}

// ParseBytes reads "512MiB", "1.5G" or a plain number of bytes.
func ParseBytes(s string) (Bytes, error) {
	t := strings.TrimSpace(s)
	for _, u := range byteUnits {
		digits, ok := strings.CutSuffix(t, u.suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseFloat(strings.TrimSpace(digits), 64)
		if err != nil || math.IsNaN(n) || math.IsInf(n, 0) || n < 0 || n*u.factor >= 1<<62 {
			break
		}
		return Bytes(n * u.factor), nil
	}
	return 0, Errorf(KindInvalid, "cannot read %q as an amount of bytes", s).WithHint("write 512MiB, 4GiB or 1.5G")
}

// String writes the largest binary unit that stays exact, with one decimal otherwise.
func (b Bytes) String() string {
	units := []struct {
		suffix string
		factor Bytes
	}{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}}
	for _, u := range units {
		if b >= u.factor {
			if b%u.factor == 0 {
				return fmt.Sprintf("%d%s", b/u.factor, u.suffix)
			}
			return fmt.Sprintf("%.1f%s", float64(b)/float64(u.factor), u.suffix)
		}
	}
	return fmt.Sprintf("%dB", int64(b))
}

// MarshalText writes an exact amount, so that what is stored comes back the same.
func (b Bytes) MarshalText() ([]byte, error) {
	if s := b.String(); !strings.Contains(s, ".") {
		return []byte(s), nil
	}
	return []byte(strconv.FormatInt(int64(b), 10)), nil
}

// UnmarshalJSON takes a string or a number of bytes.
func (b *Bytes) UnmarshalJSON(data []byte) error {
	n, err := ParseBytes(strings.Trim(string(data), `"`))
	if err != nil {
		return err
	}
	*b = n
	return nil
}

// ParseCPU reads a number of processors: "2", "0.5".
func ParseCPU(s string) (MilliCPU, error) {
	n, err := strconv.ParseFloat(strings.TrimSpace(s), 64)
	if err != nil || math.IsNaN(n) || n < 0 || n > 1e6 {
		return 0, Errorf(KindInvalid, "cannot read %q as a number of processors", s).WithHint("write 1, 2 or 0.5")
	}
	return MilliCPU(math.Round(n * 1000)), nil
}

func (c MilliCPU) String() string { return strconv.FormatFloat(float64(c)/1000, 'f', -1, 64) }

// MarshalJSON writes a number of processors.
func (c MilliCPU) MarshalJSON() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalJSON takes a number of processors, or a string that holds one.
func (c *MilliCPU) UnmarshalJSON(data []byte) error {
	n, err := ParseCPU(strings.Trim(string(data), `"`))
	if err != nil {
		return err
	}
	*c = n
	return nil
}

// ParseDuration reads what time.ParseDuration reads, days ("2d", "1d12h") and Slurm's
// "HH:MM:SS" and "D-HH:MM:SS".
func ParseDuration(s string) (Duration, error) {
	t := strings.TrimSpace(s)
	if d, err := time.ParseDuration(t); err == nil && d >= 0 {
		return Duration(d), nil
	}
	if days, rest, ok := strings.Cut(t, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 16)
		d, err2 := time.ParseDuration("0s" + rest)
		if rest != "" {
			d, err2 = time.ParseDuration(rest)
		}
		if sum := time.Duration(n)*24*time.Hour + d; err == nil && err2 == nil && d >= 0 && sum >= 0 { // below 0: more than it can hold
			return Duration(sum), nil
		}
	}
	if d, ok := parseClock(t); ok {
		return Duration(d), nil
	}
	return 0, Errorf(KindInvalid, "cannot read %q as a duration", s).WithHint("write 90s, 30m, 1h30m or 2d")
}

func parseClock(s string) (time.Duration, bool) {
	var days uint64
	if d, rest, ok := strings.Cut(s, "-"); ok {
		n, err := strconv.ParseUint(d, 10, 16)
		if err != nil {
			return 0, false
		}
		days, s = n, rest
	}
	parts := strings.Split(s, ":")
	if len(parts) != 3 {
		return 0, false
	}
	total := time.Duration(days) * 24 * time.Hour
	for i, unit := range []time.Duration{time.Hour, time.Minute, time.Second} {
		n, err := strconv.ParseUint(parts[i], 10, 16)
		if err != nil {
			return 0, false
		}
		total += time.Duration(n) * unit
	}
	return total, true
}

// String writes days, hours, minutes and seconds without empty parts: "1h30m", "2d".
func (d Duration) String() string {
	t := time.Duration(d)
	if t == 0 {
		return "0s"
	}
	var b strings.Builder
	if days := t / (24 * time.Hour); days > 0 {
		fmt.Fprintf(&b, "%dd", days)
		t -= days * 24 * time.Hour
	}
	for _, u := range []struct {
		unit time.Duration
		name string
	}{{time.Hour, "h"}, {time.Minute, "m"}} {
		if n := t / u.unit; n > 0 {
			fmt.Fprintf(&b, "%d%s", n, u.name)
			t -= n * u.unit
		}
	}
	if t != 0 {
		b.WriteString(t.String())
	}
	return b.String()
}

// MarshalText writes what ParseDuration reads.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalJSON takes a string ("30m") or a number of seconds.
func (d *Duration) UnmarshalJSON(data []byte) error {
	var seconds float64
	if json.Unmarshal(data, &seconds) == nil {
		if seconds < 0 || seconds > 1e9 {
			return Errorf(KindInvalid, "cannot use %v seconds as a duration", seconds)
		}
		*d = Duration(seconds * float64(time.Second))
		return nil
	}
	n, err := ParseDuration(strings.Trim(string(data), `"`))
	if err != nil {
		return err
	}
	*d = n
	return nil
}
