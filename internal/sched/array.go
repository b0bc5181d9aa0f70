package sched

import (
	"sort"
	"strconv"
	"strings"

	"github.com/shoal-pool/shoal"
)

// Array is the indexes of a job's tasks, in rising order. Its size does not depend on their number.
type Array struct{ spans []span }

// span is first, first+step, … with count members; before is how many members come earlier.
type span struct{ first, step, count, before int }

// ParseArray reads "1-100", "0-9:3" or "1,4,7-9"; nothing is the one index 0. It takes what
// package spec finds right.
func ParseArray(text string) (Array, error) {
	if text == "" {
		return Array{[]span{{0, 1, 1, 0}}}, nil
	}
	var a Array
	last := -1
	for part := range strings.SplitSeq(text, ",") {
		s, ok := parseSpan(strings.TrimSpace(part))
		if !ok || s.first <= last {
			return Array{}, shoal.Errorf(shoal.KindInvalid, "cannot read %q as an array: wrong at %q", text, part).
				WithHint("write 1-100, 0-9:3 or 1,4,7-9, in rising order")
		}
		s.before = a.Len()
		last = s.first + (s.count-1)*s.step
		a.spans = append(a.spans, s)
	}
	return a, nil
}

func parseSpan(part string) (span, bool) {
	body, stepText, stepped := strings.Cut(part, ":")
	from, to, ranged := strings.Cut(body, "-")
	if !ranged {
		to = from
	}
	first, err1 := strconv.ParseUint(from, 10, 31)
	end, err2 := strconv.ParseUint(to, 10, 31)
	step := uint64(1)
	var err3 error
	if stepped {
		step, err3 = strconv.ParseUint(stepText, 10, 31)
	}
	if err1 != nil || err2 != nil || err3 != nil || step == 0 || end < first || stepped && !ranged {
		return span{}, false
	}
	return span{first: int(first), step: int(step), count: int((end-first)/step) + 1}, true
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
