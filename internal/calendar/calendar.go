// Package calendar tells when parts of the week, and of certain dates, begin and end by the clock of a time zone:
// also on the days on which that clock is changed.
package calendar

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Window is a part of the week, or of certain dates.
type Window struct {
	Days     [7]bool // Sunday first; none: Dates count
	Dates    [][2]Date
	From, To int // minutes after midnight; To is later than From, on the next day where it is 1440 or more
}

// Date is a day of a calendar.
type Date struct {
	Year  int
	Month time.Month
	Day   int
}

func dateOf(t time.Time) Date {
	y, m, d := t.Date()
	return Date{y, m, d}
}

// Plus is the day so many days later.
func (d Date) Plus(days int) Date {
	return dateOf(time.Date(d.Year, d.Month, d.Day+days, 12, 0, 0, 0, time.UTC))
}

func (d Date) weekday() time.Weekday {
	return time.Date(d.Year, d.Month, d.Day, 12, 0, 0, 0, time.UTC).Weekday()
}

// Before reports whether d is an earlier day.
func (d Date) Before(o Date) bool {
	return d.Year != o.Year && d.Year < o.Year || d.Year == o.Year && (d.Month < o.Month || d.Month == o.Month && d.Day < o.Day)
}

// Problem is what is wrong with days, dates, from or to.
type Problem struct{ Field, Message, Hint string }

// Text is a window as it is written: mon-fri, 2026-12-24/2026-12-26, 08:00.
type Text struct {
	Days, Dates []string
	From, To    string
}

// Read reads a window, or says what is wrong with it.
func Read(w Text) (Window, []Problem) {
	dayNames := strings.Fields("sun mon tue wed thu fri sat")
	var c Window
	var bad []Problem
	wrong := func(field, hint, format string, args ...any) {
		bad = append(bad, Problem{field, fmt.Sprintf(format, args...), hint})
	}
	for i, text := range w.Days {
		first, last, span := strings.Cut(strings.ToLower(text), "-")
		a, b := slices.Index(dayNames, first), slices.Index(dayNames, last)
		if !span {
			b = a
		}
		if a < 0 || b < 0 {
			wrong(fmt.Sprintf("days[%d]", i), "write mon, tue, wed, thu, fri, sat, sun, or mon-fri", "%q is not a day of the week", shortened(text))
			continue
		}
		for d := a; ; d = (d + 1) % 7 {
			c.Days[d] = true
			if d == b {
				break
			}
		}
	}
	for i, text := range w.Dates {
		at := fmt.Sprintf("dates[%d]", i)
		first, last, span := strings.Cut(text, "/")
		a, err1 := time.Parse(time.DateOnly, first)
		b, err2 := a, err1
		if span {
			b, err2 = time.Parse(time.DateOnly, last)
		}
		switch {
		case err1 != nil || err2 != nil:
			wrong(at, "write 2026-12-24, or 2026-12-24/2026-12-26", "%q is not a date", shortened(text))
		case b.Before(a):
			wrong(at, "write the earlier one first", "%q ends before it begins", shortened(text))
		case b.Sub(a) > 366*24*time.Hour:
			wrong(at, "", "%q is longer than a year", shortened(text))
		default:
			c.Dates = append(c.Dates, [2]Date{dateOf(a), dateOf(b)})
		}
	}
	var ok1, ok2 bool
	if c.From, ok1 = readTime(w.From, 0); !ok1 || c.From == 24*60 {
		wrong("from", "write 08:00, for example", "%q is not a time of the day", shortened(w.From))
	}
	if c.To, ok2 = readTime(w.To, 24*60); !ok2 {
		wrong("to", "write 18:30, for example", "%q is not a time of the day", shortened(w.To))
	}
	if ok1 && ok2 {
		if c.From == c.To {
			wrong("to", "leave both out for the whole day", "the window ends when it begins")
		}
		if c.To < c.From {
			c.To += 24 * 60
		}
	}
	return c, bad
}

func readTime(s string, empty int) (int, bool) {
	if s == "" {
		return empty, true
	}
	h, m, ok := strings.Cut(s, ":")
	hour, err1 := strconv.Atoi(h)
	minute, err2 := strconv.Atoi(m)
	if !ok || err1 != nil || err2 != nil || len(h) > 2 || len(m) != 2 || hour < 0 || minute < 0 || minute > 59 || hour*60+minute > 24*60 {
		return 0, false
	}
	return hour*60 + minute, true
}

func shortened(s string) string {
	if len(s) > 60 {
		return strings.ToValidUTF8(s[:60], "") + "…"
	}
	return s
}

// begins reports whether the window begins on a day.
func (c Window) begins(d Date) bool {
	if len(c.Dates) == 0 {
		return c.Days[d.weekday()]
	}
	return slices.ContainsFunc(c.Dates, func(r [2]Date) bool { return !d.Before(r[0]) && !r[1].Before(d) })
}

// Active reports whether the window is open, and when that changes; zero: not within a year.
func (c Window) Active(now time.Time, zone *time.Location) (open bool, next time.Time) {
	today := dateOf(now.In(zone))
	// Yesterday's may last until today, and tomorrow's may begin where it ends: open until they do not follow each other.
	for d := -1; d <= 366; d++ {
		day := today.Plus(d)
		if !c.begins(day) {
			if open && d > 0 {
				return open, next
			}
			continue
		}
		start, end := Moment(day, c.From, zone), Moment(day, c.To, zone)
		switch {
		case !start.Before(end): // clocks were put forward over all of it
		case open && !start.After(next):
			if end.After(next) {
				next = end
			}
		case open:
			return open, next
		case now.Before(start):
			return false, start
		case now.Before(end):
			open, next = true, end
		}
		if open && d >= 8 && len(c.Dates) == 0 {
			break // open all week, and so for ever
		}
	}
	if open {
		return true, time.Time{}
	}
	return false, next
}

// Moment is when a clock shows a time, so many minutes after a day's midnight. Of a time that comes twice it is the
// first; one that does not come is the moment at which clocks are put forward over it.
func Moment(d Date, minutes int, zone *time.Location) time.Time {
	naive := time.Date(d.Year, d.Month, d.Day, 0, minutes, 0, 0, time.UTC)
	_, before := naive.Add(-36 * time.Hour).In(zone).Zone()
	_, after := naive.Add(36 * time.Hour).In(zone).Zone()
	first := naive.Add(-time.Duration(max(before, after)) * time.Second)
	second := naive.Add(-time.Duration(min(before, after)) * time.Second)
	for _, t := range []time.Time{first, second} {
		if _, offset := t.In(zone).Zone(); t.Add(time.Duration(offset) * time.Second).Equal(naive) {
			return t
		}
	}
	start, _ := second.In(zone).ZoneBounds()
	return start.UTC()
}

// maxSpans bounds how much is compared.
const maxSpans = 10_000

// Covered reports whether others of the same sort, for days of the week or for dates, are open whenever a window is,
// as clocks show it. Of more than can be compared it says no.
func (c Window) Covered(by []Window) bool {
	own := c.spans(false)
	var all [][2]int
	for _, o := range by {
		if (len(o.Dates) > 0) == (len(c.Dates) > 0) {
			all = append(all, o.spans(true)...)
		}
		if len(all) > maxSpans {
			return false
		}
	}
	if len(own) == 0 || len(own) > maxSpans {
		return false
	}
	slices.SortFunc(all, func(a, b [2]int) int { return a[0] - b[0] })
	slices.SortFunc(own, func(a, b [2]int) int { return a[0] - b[0] })
	k, reach := 0, 0 // all is covered from the start of some span to reach
	for _, s := range own {
		for at := s[0]; at < s[1]; at = reach {
			for ; k < len(all) && all[k][0] <= at; k++ {
				reach = max(reach, all[k][1])
			}
			if reach <= at {
				return false
			}
		}
	}
	return true
}

// spans are when the window is open, in minutes: of dates since 1970, of days of the week in one week, or around it in
// those before and after as well.
func (c Window) spans(around bool) (all [][2]int) {
	add := func(day int) { all = append(all, [2]int{day*24*60 + c.From, day*24*60 + c.To}) }
	for _, r := range c.Dates {
		for d := r[0]; !r[1].Before(d) && len(all) <= maxSpans; d = d.Plus(1) {
			add(int(time.Date(d.Year, d.Month, d.Day, 0, 0, 0, 0, time.UTC).Unix() / 86400))
		}
	}
	first, last := 7, 14
	if around {
		first, last = 0, 21
	}
	for day := first; day < last && len(c.Dates) == 0; day++ {
		if c.Days[day%7] {
			add(day)
		}
	}
	return all
}
