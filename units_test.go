package shoal_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/shoal-pool/shoal"
)

func TestParseBytes(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]shoal.Bytes{
		"0": 0, "512": 512, "1KiB": 1 << 10, "512MiB": 512 << 20, "1.5GiB": 3 << 29, "4Gi": 4 << 30, "2G": 2e9, " 3 MB ": 3e6,
	} {
		got, err := shoal.ParseBytes(in)
		if err != nil || got != want {
			t.Errorf("ParseBytes(%q) = %d, %v; want %d", in, got, err, want)
		}
	}
	for _, in := range []string{"", "GiB", "-1", "1e300", "NaN", "12XB", "1 2"} {
		if got, err := shoal.ParseBytes(in); shoal.KindOf(err) != shoal.KindInvalid {
			t.Errorf("ParseBytes(%q) = %d, %v; want an invalid error", in, got, err)
		}
	}
}

func TestParseDuration(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]time.Duration{
		"90s": 90 * time.Second, "30m": 30 * time.Minute, "1h30m": 90 * time.Minute, "2d": 48 * time.Hour,
		"1d12h": 36 * time.Hour, "01:30:00": 90 * time.Minute, "1-00:00:10": 24*time.Hour + 10*time.Second,
	} {
		got, err := shoal.ParseDuration(in)
		if err != nil || time.Duration(got) != want {
			t.Errorf("ParseDuration(%q) = %v, %v; want %v", in, got, err, want)
		}
	}
	for _, in := range []string{"", "30", "-5m", "1d-2h", "x", "1:2", "dd", "65535d2000000h"} {
		if got, err := shoal.ParseDuration(in); err == nil {
			t.Errorf("ParseDuration(%q) = %v; want an error", in, got)
		}
	}
}

func TestUnitsInJSON(t *testing.T) {
	t.Parallel()
	in := `{"cpus":0.5,"memory":"512MiB"}`
	var r shoal.Resources
	if err := json.Unmarshal([]byte(in), &r); err != nil {
		t.Fatal(err)
	}
	if want := (shoal.Resources{CPUs: 500, Memory: 512 << 20}); r != want {
		t.Errorf("read %+v, want %+v", r, want)
	}
	out, err := json.Marshal(r)
	if err != nil || string(out) != in {
		t.Errorf("wrote %s, %v; want %s", out, err, in)
	}
}

// What is written comes back the same, and nothing makes a parser panic.
func FuzzUnits(f *testing.F) {
	for _, s := range []string{"512MiB", "1.5G", "2d", "1h30m", "1-02:03:04", "0.5", "1e3", "17/3"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if b, err := shoal.ParseBytes(s); err == nil {
			text, _ := b.MarshalText()
			if again, err := shoal.ParseBytes(string(text)); err != nil || again != b {
				t.Errorf("%q: %d written as %s came back as %d, %v", s, b, text, again, err)
			}
		}
		if d, err := shoal.ParseDuration(s); err == nil {
			if again, err := shoal.ParseDuration(d.String()); err != nil || again != d {
				t.Errorf("%q: %d written as %s came back as %d, %v", s, d, d, again, err)
			}
		}
		if c, err := shoal.ParseCPU(s); err == nil {
			if again, err := shoal.ParseCPU(c.String()); err != nil || again != c {
				t.Errorf("%q: %d written as %s came back as %d, %v", s, c, c, again, err)
			}
		}
		_, _ = shoal.ParseTaskRef(s) // only that it does not panic
	})
}
