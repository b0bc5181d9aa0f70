package shoal

import (
	"sort"
	"strconv"
	"strings"
)

// Array is the indexes of a job's tasks, in rising order. Its size does not depend on their number.
type Array struct{ spans []span }

// span is first, first+step, … with count members; before is how many members come earlier.
type span struct{ first, step, count, before int }

// MaxArray is how many tasks an array can have.
const MaxArray = 10_000_000

const (
	maxArrayText  = 16 << 10
	maxArrayShown = 60
	maxIndex      = 1<<31 - 2 // what the agents' protocol and ParseTaskRef carry, with one to spare
)

// ParseArray reads "1-100", "0-9:3" or "1,4,7-9"; nothing is the one index 0. The error is of
// KindInvalid and says what is wrong.
func ParseArray(text string) (Array, error) {
	if text == "" {
		return Array{[]span{{0, 1, 1, 0}}}, nil
	}
	if len(text) > maxArrayText {
		return Array{}, noArray("the array is too long to read")
	}
	shown := text
	if len(text) > maxArrayShown {
		shown = strings.ToValidUTF8(text[:maxArrayShown], "") + "…"
	}
	var a Array
	last := -1
	for part := range strings.SplitSeq(text, ",") {
		s, end, ok := parseSpan(strings.TrimSpace(part))
		switch {
		case !ok:
			return Array{}, noArray("%q cannot be read as an array", shown)
		case end < s.first:
			return Array{}, noArray("the range %d-%d ends before it begins", s.first, end)
		case s.first <= last:
			return Array{}, noArray("the indexes of %q are not in rising order, each once", shown)
		}
		s.before = a.Len()
		last = end
		if a.spans = append(a.spans, s); a.Len() > MaxArray {
			return Array{}, noArray("the array has more than %d tasks", MaxArray)
		}
	}
	return a, nil
}

func noArray(format string, args ...any) error {
	return Errorf(KindInvalid, format, args...).WithHint("write 1-100, 0-9:3 or 1,4,7-9")
}

// parseSpan reads "7", "1-100" or "0-9:3", and returns the end as it was written, which may not be a member.
func parseSpan(part string) (s span, end int, ok bool) {
	body, stepText, stepped := strings.Cut(part, ":")
	from, to, ranged := strings.Cut(body, "-")
	if !ranged {
		to = from
	}
	first, err1 := strconv.ParseUint(from, 10, 31)
	last, err2 := strconv.ParseUint(to, 10, 31)
	step := uint64(1)
	var err3 error
	if stepped {
		step, err3 = strconv.ParseUint(stepText, 10, 31)
	}
	if err1 != nil || err2 != nil || err3 != nil || step == 0 || stepped && !ranged || last > maxIndex {
		return span{}, 0, false
	}
	count := 0
	if last >= first {
		count = int((last-first)/step) + 1
	}
	return span{first: int(first), step: int(step), count: count}, int(last), true
}

// Len is the number of tasks.
func (a Array) Len() int {
	if len(a.spans) == 0 {
		return 0
	}
	last := a.spans[len(a.spans)-1]
	return last.before + last.count
}

// Index is the index at a position from 0 to Len-1.
func (a Array) Index(position int) int {
	i := sort.Search(len(a.spans), func(i int) bool { return a.spans[i].before > position }) - 1
	s := a.spans[i]
	return s.first + (position-s.before)*s.step
}

// Position is where an index stands; false if it is not in the array.
func (a Array) Position(index int) (int, bool) {
	p := a.From(index)
	return p, p < a.Len() && a.Index(p) == index
}

// From is the position of the first index that is not less.
func (a Array) From(index int) int {
	i := sort.Search(len(a.spans), func(i int) bool { return a.spans[i].first > index }) - 1
	if i < 0 {
		return 0
	}
	s := a.spans[i]
	return s.before + min((index-s.first+s.step-1)/s.step, s.count)
}
