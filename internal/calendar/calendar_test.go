package calendar_test

import (
	"testing"
	"time"

	"github.com/shoal-pool/shoal/internal/calendar"
)

func berlin(t testing.TB) *time.Location {
	t.Helper()
	zone, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	return zone
}

func TestWindowsOpenAndClose(t *testing.T) {
	t.Parallel()
	zone := berlin(t)
	day := calendar.Text{Days: []string{"mon-fri"}, From: "08:00", To: "18:00"}
	night := calendar.Text{Days: []string{"sat"}, From: "22:00", To: "06:00"}
	spring := calendar.Text{Days: []string{"sun"}, From: "02:30", To: "05:00"} // 2026-03-29 has no 02:30
	autumn := calendar.Text{Days: []string{"sun"}, From: "02:30", To: "05:00"} // 2026-10-25 has two
	short := calendar.Text{Days: []string{"sun"}, From: "02:10", To: "02:50"}
	days := calendar.Text{Dates: []string{"2026-12-24/2026-12-26", "2027-01-01"}}
	always := calendar.Text{Days: []string{"mon-sun"}}
	for _, c := range []struct {
		name string
		w    calendar.Text
		now  string // UTC
		open bool
		next string
	}{
		{"before", day, "2026-05-04T05:00:00Z", false, "2026-05-04T06:00:00Z"},
		{"at the beginning", day, "2026-05-04T06:00:00Z", true, "2026-05-04T16:00:00Z"},
		{"at the end", day, "2026-05-04T16:00:00Z", false, "2026-05-05T06:00:00Z"},
		{"over the weekend", day, "2026-05-08T16:00:00Z", false, "2026-05-11T06:00:00Z"},
		{"past midnight", night, "2026-05-10T01:00:00Z", true, "2026-05-10T04:00:00Z"},
		{"a time that does not come", spring, "2026-03-29T00:59:59Z", false, "2026-03-29T01:00:00Z"},
		{"begins when clocks are put forward", spring, "2026-03-29T01:00:00Z", true, "2026-03-29T03:00:00Z"},
		{"nothing is left of it", short, "2026-03-28T12:00:00Z", false, "2026-04-05T00:10:00Z"},
		{"of two times the first", autumn, "2026-10-25T00:30:00Z", true, "2026-10-25T04:00:00Z"},
		{"and it goes on through the second", autumn, "2026-10-25T01:10:00Z", true, "2026-10-25T04:00:00Z"},
		{"dates follow each other", days, "2026-12-24T12:00:00Z", true, "2026-12-26T23:00:00Z"},
		{"the next date", days, "2026-12-27T12:00:00Z", false, "2026-12-31T23:00:00Z"},
		{"after the last", days, "2027-01-02T12:00:00Z", false, ""},
		{"always", always, "2026-12-24T12:00:00Z", true, ""},
	} {
		window, bad := calendar.Read(c.w)
		if len(bad) > 0 {
			t.Fatalf("%s: %+v", c.name, bad)
		}
		now, _ := time.Parse(time.RFC3339, c.now)
		open, next := window.Active(now, zone)
		got := ""
		if !next.IsZero() {
			got = next.UTC().Format(time.RFC3339)
		}
		if open != c.open || got != c.next {
			t.Errorf("%s: %t until %s, want %t until %s", c.name, open, got, c.open, c.next)
		}
	}
}

// What Active says comes next does: minute by minute through a year with both changes of the clock.
func TestWindowsKeepTheirWord(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Africa/Casablanca", "UTC"} {
		zone, err := time.LoadLocation(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range []calendar.Text{
			{Days: []string{"mon-fri"}, From: "08:00", To: "18:00"}, {Days: []string{"sat", "sun"}}, {Days: []string{"sun"}, From: "01:45", To: "02:15"},
			{Days: []string{"fri-mon"}, From: "23:00", To: "01:30"}, {Dates: []string{"2026-10-24/2026-10-26"}, From: "02:30", To: "03:30"},
		} {
			c, _ := calendar.Read(w)
			now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
			open, next := c.Active(now, zone)
			for step := 0; step < 900 && now.Year() < 2027 && !next.IsZero(); step++ {
				if !next.After(now) {
					t.Fatalf("%s %+v: at %s the next is %s", name, w, now, next)
				}
				if before, _ := c.Active(next.Add(-time.Second), zone); before != open {
					t.Fatalf("%s %+v: at %s it said %t until %s", name, w, now, open, next)
				}
				now = next
				was := open
				if open, next = c.Active(now, zone); open == was && now.Sub(now.Truncate(time.Minute)) != 0 {
					t.Fatalf("%s %+v: nothing happens at %s", name, w, now)
				}
			}
		}
	}
}

func TestCovered(t *testing.T) {
	t.Parallel()
	read := func(w calendar.Text) calendar.Window {
		c, bad := calendar.Read(w)
		if len(bad) > 0 {
			t.Fatalf("%+v", bad)
		}
		return c
	}
	week := func(days, from, to string) calendar.Window {
		return read(calendar.Text{Days: []string{days}, From: from, To: to})
	}
	dates := func(list ...string) calendar.Window { return read(calendar.Text{Dates: list}) }
	for _, c := range []struct {
		name string
		w    calendar.Window
		by   []calendar.Window
		want bool
	}{
		{"the same", week("mon-fri", "08:00", "18:00"), []calendar.Window{week("mon-fri", "08:00", "18:00")}, true},
		{"a longer one", week("mon-fri", "08:00", "18:00"), []calendar.Window{week("mon-sun", "07:00", "19:00")}, true},
		{"a shorter one", week("mon-fri", "08:00", "18:00"), []calendar.Window{week("mon-fri", "08:00", "17:59")}, false},
		{"two, one after the other", week("mon-fri", "08:00", "18:00"), []calendar.Window{week("mon-sun", "12:00", "20:00"), week("mon-sun", "00:00", "12:00")}, true},
		{"two with a gap", week("mon-fri", "08:00", "18:00"), []calendar.Window{week("mon-sun", "12:01", "20:00"), week("mon-sun", "00:00", "12:00")}, false},
		{"fewer days", week("mon-fri", "08:00", "18:00"), []calendar.Window{week("mon-thu", "", "")}, false},
		{"nights that begin the day before", week("mon", "00:00", "05:00"), []calendar.Window{week("sun", "22:00", "06:00")}, true},
		{"nights over the end of the week", week("sat", "22:00", "06:00"), []calendar.Window{week("sat", "22:00", "24:00"), week("sun", "00:00", "06:00")}, true},
		{"dates do not cover days", week("mon", "", ""), []calendar.Window{dates("2026-01-01/2026-12-31")}, false},
		{"days do not cover dates", dates("2026-05-04"), []calendar.Window{week("mon-sun", "", "")}, false},
		{"dates", dates("2026-12-24/2026-12-26"), []calendar.Window{dates("2026-12-26"), dates("2026-12-20/2026-12-25")}, true},
		{"fewer dates", dates("2026-12-24/2026-12-26", "2027-01-01"), []calendar.Window{dates("2026-12-20/2026-12-31")}, false},
		{"none", week("mon", "", ""), nil, false},
		{"what is not read", calendar.Window{}, []calendar.Window{week("mon-sun", "", "")}, false},
	} {
		if got := c.w.Covered(c.by); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

// What is open all week has no end; what is open for weeks ends when it does.
func TestActiveForLong(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 12, 21, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		text calendar.Text
		next time.Time
	}{
		{calendar.Text{Days: []string{"mon-sun"}}, time.Time{}},
		{calendar.Text{Dates: []string{"2026-12-20/2027-01-10"}}, time.Date(2027, 1, 11, 0, 0, 0, 0, time.UTC)},
	} {
		w, err := calendar.Read(c.text)
		if err != nil {
			t.Fatal(err)
		}
		if open, next := w.Active(now, time.UTC); !open || !next.Equal(c.next) {
			t.Errorf("%+v: %v until %s, want until %s", c.text, open, next, c.next)
		}
	}
}
