package calendar_test

import (
	"strings"
	"testing"
	"time"

	"github.com/shoal-pool/shoal/internal/calendar"
)

// Whatever is read as a window ends at some time, and is covered by itself.
func FuzzRead(f *testing.F) {
	f.Add("mon-fri", "", "08:00", "18:00")
	f.Add("sat,sun-tue", "", "22:00", "06:00")
	f.Add("", "2026-12-24/2026-12-26,2027-01-01", "", "24:00")
	f.Add("mon-sun", "", "", "")
	f.Fuzz(func(t *testing.T, days, dates, from, to string) {
		list := func(s string) []string {
			if s == "" {
				return nil
			}
			return strings.Split(s, ",")
		}
		w := calendar.Text{Days: list(days), Dates: list(dates), From: from, To: to}
		if len(w.Days) > 7 || len(w.Dates) > 10 || len(w.Days) > 0 && len(w.Dates) > 0 {
			return
		}
		c, bad := calendar.Read(w)
		if len(bad) > 0 {
			return
		}
		now := time.Date(2026, 3, 28, 23, 30, 0, 0, time.UTC)
		if _, next := c.Active(now, berlin(t)); !next.IsZero() && !next.After(now) {
			t.Errorf("%+v: after %s comes %s", c, now, next)
		}
		if some := len(w.Days)+len(w.Dates) > 0; c.Covered([]calendar.Window{c}) != some {
			t.Errorf("%+v is covered by itself: %v", c, !some)
		}
	})
}
