package translate

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/arm/tree"
)

const (
	dayMinutes  = 24 * 60
	weekMinutes = 7 * dayMinutes
)

// turn is when a profile of the week begins to count, in minutes since Monday began. It counts until the next turn.
type turn struct {
	at      int
	profile *tree.Value
}

// timetable makes a schedule of the profiles that have a time. Those of certain dates go before those of the week, as there.
func (t *translation) timetable(profiles []*tree.Value, title string) (zone string, windows []shoal.Window) {
	var turns []turn
	var dated []shoal.Window
	for _, p := range profiles {
		week, date := p.Get("recurrence", "schedule"), p.Get("fixedDate")
		if !timed(p) {
			continue
		}
		name := fmt.Sprintf("%s profile %s", title, p.Get("name").Show())
		where := week
		if date.Present() {
			where = date
		}
		z, ok := zoneOf(where.Get("timeZone").Tell())
		switch {
		case !ok:
			t.note(p.At, "%s: left out, since the time zone %s is not known; write it as scale.schedule in the pool's document", name, where.Get("timeZone").Show())
			continue
		case zone != "" && z != zone:
			t.note(p.At, "%s: left out: a pool's schedule is in one time zone, %s", name, zone)
			continue
		}
		if date.Present() {
			all, ok := t.dated(p, date, title)
			if !ok {
				t.note(p.At, "%s: left out, since its dates cannot be read", name)
				continue
			}
			dated = append(dated, all...)
		} else {
			all := turnsOf(p, week)
			if len(all) == 0 {
				t.note(p.At, "%s: left out, since its days and hours cannot be read", name)
				continue
			}
			turns = append(turns, all...)
		}
		zone = z
		if p.Get("rules").Len() > 0 && !isElse(p) {
			t.note(p.Get("rules").At, "%s: its size is a window of scale.schedule; its rules are left out, since a pool has one set of them for all times", name)
		}
	}
	return zone, append(t.weekly(turns, title), dated...)
}

// timed reports whether a profile counts at some times only.
func timed(p *tree.Value) bool { return p.Get("recurrence").Present() || p.Get("fixedDate").Present() }

// isElse reports whether a profile ends another: the portal writes {"name":"…","for":"…"} as its name.
func isElse(p *tree.Value) bool { return strings.Contains(p.Get("name").Tell(), `"for"`) }

// turnsOf reads the days, hours and minutes of a profile.
func turnsOf(p, week *tree.Value) (all []turn) {
	names := []string{"monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"}
	minutes := week.Get("minutes").Items()
	for _, d := range week.Get("days").Items() {
		day := slices.Index(names, strings.ToLower(d.Tell()))
		for _, h := range week.Get("hours").Items() {
			for _, m := range minutes {
				hour, ok1 := h.AsInt()
				minute, ok2 := m.AsInt()
				if day < 0 || !ok1 || !ok2 || hour < 0 || hour > 23 || minute < 0 || minute > 59 || len(all) > weekMinutes {
					return nil
				}
				all = append(all, turn{day*dayMinutes + int(hour)*60 + int(minute), p})
			}
		}
	}
	return all
}

// weekly makes windows of what counts from each turn to the next.
func (t *translation) weekly(turns []turn, title string) (windows []shoal.Window) {
	slices.SortStableFunc(turns, func(a, b turn) int { return a.at - b.at })
	days := []string{"mon", "tue", "wed", "thu", "fri", "sat", "sun"}
	for i, from := range turns {
		to := turns[(i+1)%len(turns)].at
		if to <= from.at {
			to += weekMinutes
		}
		w, ok := t.window(from.profile, title)
		if isElse(from.profile) || !ok {
			continue
		}
		for at := from.at; at < to; {
			end := to
			if to-from.at >= dayMinutes { // a window is shorter than a day
				end = min(to, (at/dayMinutes+1)*dayMinutes)
			}
			part := w
			part.Days = []string{days[at/dayMinutes%7]}
			part.From, part.To = clockOf(at), clockOf(end)
			same := slices.IndexFunc(windows, func(o shoal.Window) bool {
				return o.Name == part.Name && o.From == part.From && o.To == part.To && *o.Min == *part.Min && *o.Max == *part.Max
			})
			if same < 0 {
				windows = append(windows, part)
			} else if !slices.Contains(windows[same].Days, part.Days[0]) {
				windows[same].Days = append(windows[same].Days, part.Days[0])
			}
			at = end
		}
	}
	return windows
}

// dated makes windows of a profile of certain dates.
func (t *translation) dated(p, date *tree.Value, title string) (windows []shoal.Window, ok bool) {
	from, ok1 := localTime(date.Get("start").Tell())
	to, ok2 := localTime(date.Get("end").Tell())
	w, ok3 := t.window(p, title)
	if !ok1 || !ok2 || !ok3 || !from.Before(to) {
		return nil, false
	}
	add := func(dates, first, last string) {
		part := w
		part.Dates, part.From, part.To = []string{dates}, first, last
		windows = append(windows, part)
	}
	first, last := from.Format(time.DateOnly), to.Format(time.DateOnly)
	begin, end := from.Hour()*60+from.Minute(), to.Hour()*60+to.Minute()
	if first == last {
		add(first, clockOf(begin), clockOf(end))
		return windows, true
	}
	add(first, clockOf(begin), "24:00")
	if a, b := from.AddDate(0, 0, 1), to.AddDate(0, 0, -1); !b.Truncate(24 * time.Hour).Before(a.Truncate(24 * time.Hour)) {
		add(a.Format(time.DateOnly)+"/"+b.Format(time.DateOnly), "", "")
	}
	if end > 0 {
		add(last, "00:00", clockOf(end))
	}
	return windows, true
}

// window is a profile's bounds under its name.
func (t *translation) window(p *tree.Value, title string) (shoal.Window, bool) {
	c := p.Get("capacity")
	low, _, ok1 := t.count(c.Get("minimum"), title+" capacity.minimum")
	high, _, ok2 := t.count(c.Get("maximum"), title+" capacity.maximum")
	return shoal.Window{Name: tree.Clip(p.Get("name").Tell(), 60), Min: &low, Max: &high}, ok1 && ok2 && low <= high
}

func clockOf(minute int) string {
	if minute > 0 && minute%dayMinutes == 0 {
		return "24:00"
	}
	return fmt.Sprintf("%02d:%02d", minute/60%24, minute%60)
}

// localTime reads a time by the clock of the profile's zone, whatever is written behind it.
func localTime(s string) (time.Time, bool) {
	const layout = "2006-01-02T15:04:05"
	if len(s) < len(layout) {
		return time.Time{}, false
	}
	at, err := time.Parse(layout, s[:len(layout)])
	return at, err == nil
}

// zoneOf finds the name by which the rest of the world knows a time zone of Windows (CLDR's table windowsZones).
func zoneOf(name string) (string, bool) {
	zones := map[string]string{"": "UTC", "UTC": "UTC", "GMT Standard Time": "Europe/London", "Greenwich Standard Time": "Atlantic/Reykjavik",
		"W. Europe Standard Time": "Europe/Berlin", "Romance Standard Time": "Europe/Paris", "Central Europe Standard Time": "Europe/Budapest",
		"Central European Standard Time": "Europe/Warsaw", "GTB Standard Time": "Europe/Bucharest", "FLE Standard Time": "Europe/Kiev",
		"Russian Standard Time": "Europe/Moscow", "Turkey Standard Time": "Europe/Istanbul", "Israel Standard Time": "Asia/Jerusalem",
		"South Africa Standard Time": "Africa/Johannesburg", "Arabian Standard Time": "Asia/Dubai", "India Standard Time": "Asia/Calcutta",
		"China Standard Time": "Asia/Shanghai", "Singapore Standard Time": "Asia/Singapore", "Tokyo Standard Time": "Asia/Tokyo",
		"Korea Standard Time": "Asia/Seoul", "AUS Eastern Standard Time": "Australia/Sydney", "New Zealand Standard Time": "Pacific/Auckland",
		"Eastern Standard Time": "America/New_York", "Central Standard Time": "America/Chicago", "Mountain Standard Time": "America/Denver",
		"Pacific Standard Time": "America/Los_Angeles", "Atlantic Standard Time": "America/Halifax", "Alaskan Standard Time": "America/Anchorage",
		"Hawaiian Standard Time": "Pacific/Honolulu", "E. South America Standard Time": "America/Sao_Paulo", "SA Pacific Standard Time": "America/Bogota",
		"Argentina Standard Time": "America/Buenos_Aires", "Central Standard Time (Mexico)": "America/Mexico_City"}
	if zone, ok := zones[strings.TrimSpace(name)]; ok {
		return zone, true
	}
	if strings.Contains(name, "/") {
		_, err := time.LoadLocation(name)
		return name, err == nil
	}
	return "", false
}
