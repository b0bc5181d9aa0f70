package expr

import (
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/shoal-pool/shoal/internal/arm/tree"
)

// Compact is how utcNow writes a time if it is not told otherwise.
const Compact = "yyyyMMddTHHmmssZ"

// times are the functions on dates; utcNow is the scope's.
func times() []*Function {
	return []*Function{
		{Name: "dateTimeAdd", Min: 2, Max: 3, Call: dateTimeAdd},
		{Name: "dateTimeFromEpoch", Min: 1, Max: 1, Call: func(c *Call) (*tree.Value, error) {
			n, err := c.int(0)
			if err != nil {
				return nil, err
			}
			if n < -1<<40 || n > 1<<40 {
				return nil, c.Wrong(0, "", "%d is no time", n)
			}
			return tree.StringValue(time.Unix(n, 0).UTC().Format("2006-01-02T15:04:05Z")), nil
		}},
		{Name: "dateTimeToEpoch", Min: 1, Max: 1, Call: func(c *Call) (*tree.Value, error) {
			t, _, err := c.time(0)
			return tree.IntValue(t.Unix()), err
		}},
	}
}

// layouts are the ways a time is written that we read, in the notation of package time.
var layouts = strings.Fields(`20060102T150405Z 2006-01-02T15:04:05Z07:00 2006-01-02T15:04:05.999999999Z07:00 2006-01-02T15:04:05
	2006-01-02_15:04:05Z 2006-01-02_15:04:05 2006-01-02_15:04 2006-01-02 2006/01/02 01/02/2006 1/2/2006 2006-01 Mon,_02_Jan_2006_15:04:05_GMT`)

func (c *Call) time(i int) (time.Time, string, error) {
	s, err := c.plain(i)
	if err != nil {
		return time.Time{}, "", err
	}
	for _, layout := range layouts {
		layout = strings.ReplaceAll(layout, "_", " ")
		if t, err := time.Parse(layout, s); err == nil {
			return t.UTC(), layout, nil
		}
	}
	return time.Time{}, "", c.Wrong(i, "write 2026-01-31T12:00:00Z", "%s is no time", c.Args[i].Show())
}

var isoDuration = regexp.MustCompile(`^(-?)P(?:(\d+)Y)?(?:(\d+)M)?(?:(\d+)W)?(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+)S)?)?$`)

func dateTimeAdd(c *Call) (*tree.Value, error) {
	t, layout, err := c.time(0)
	if err != nil {
		return nil, err
	}
	by, err := c.plain(1)
	if err != nil {
		return nil, err
	}
	m := isoDuration.FindStringSubmatch(strings.TrimSpace(by))
	if m == nil || strings.HasSuffix(by, "P") || strings.HasSuffix(by, "T") {
		return nil, c.Wrong(1, "write P1D, -P3M or PT1H30M", "%s is no duration", c.Args[1].Show())
	}
	var n [7]int
	for i, digits := range m[2:] {
		if digits == "" {
			continue
		}
		v, err := strconv.Atoi(digits)
		if err != nil || v > 1e6 {
			return nil, c.Wrong(1, "", "%s is too long a time", c.Args[1].Show())
		}
		if n[i] = v; m[1] == "-" {
			n[i] = -v
		}
	}
	// A year is 365 days and a month 30, as the old service's reference has it.
	t = t.AddDate(0, 0, 365*n[0]+30*n[1]+7*n[2]+n[3]).Add(time.Duration(n[4])*time.Hour + time.Duration(n[5])*time.Minute + time.Duration(n[6])*time.Second)
	if len(c.Args) < 3 {
		return tree.StringValue(t.Format(layout)), nil
	}
	how, err := c.plain(2)
	if err != nil {
		return nil, err
	}
	return tree.StringValue(WriteTime(t, how)), nil
}

// standards are the one-letter formats.
var standards = map[string]string{
	"d": "M/d/yyyy", "D": "dddd, dd MMMM yyyy", "t": "H:mm", "T": "HH:mm:ss", "g": "M/d/yyyy H:mm", "G": "M/d/yyyy HH:mm:ss",
	"s": "yyyy-MM-ddTHH:mm:ss", "u": "yyyy-MM-dd HH:mm:ssZ", "o": "yyyy-MM-ddTHH:mm:ss.fffffffZ", "O": "yyyy-MM-ddTHH:mm:ss.fffffffZ",
	"r": "ddd, dd MMM yyyy HH:mm:ss 'GMT'", "R": "ddd, dd MMM yyyy HH:mm:ss 'GMT'", "m": "MMMM d", "M": "MMMM d", "y": "yyyy MMMM", "Y": "yyyy MMMM",
}

// WriteTime writes a time in the notation of the old services: yyyy-MM-dd HH:mm:ss and the like.
func WriteTime(t time.Time, how string) string {
	if s, ok := standards[how]; ok {
		how = s
	}
	var b strings.Builder
	for i := 0; i < len(how) && b.Len() < 1000; {
		c := how[i]
		n := 1
		for i+n < len(how) && how[i+n] == c {
			n++
		}
		switch c {
		case '\\':
			if n = 2; i+1 < len(how) {
				b.WriteByte(how[i+1])
			}
		case '\'', '"':
			end := strings.IndexByte(how[i+1:], c)
			if end < 0 {
				end = len(how) - i - 1
			}
			b.WriteString(how[i+1 : i+1+end])
			n = end + 2
		case '%':
			n = 1
		default:
			if s, ok := timePart(t, c, n); ok {
				b.WriteString(s)
			} else {
				b.WriteString(strings.Repeat(string(c), n))
			}
		}
		i += n
	}
	return b.String()
}

// timePart is a part of a time, by its letter and how often it is written.
func timePart(t time.Time, c byte, n int) (string, bool) {
	names := map[byte][]string{
		'y': {"06", "06", "2006", "2006"}, 'M': {"1", "01", "Jan", "January"}, 'd': {"2", "02", "Mon", "Monday"},
		'H': {"15", "15"}, 'h': {"3", "03"}, 'm': {"4", "04"}, 's': {"5", "05"}, 't': {"PM", "PM"}, 'z': {"-07", "-07", "-07:00"}, 'K': {"Z07:00"},
	}
	switch layouts, ok := names[c]; {
	case c == 'f' || c == 'F':
		return t.Format(".000000000")[1 : 1+min(n, 7)], true
	case c == 'H' && n == 1:
		return strconv.Itoa(t.Hour()), true
	case c == 't' && n == 1:
		return t.Format("PM")[:1], true
	case ok:
		return t.Format(layouts[min(n, len(layouts))-1]), true
	}
	return "", false
}
