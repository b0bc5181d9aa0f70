// Package sweep makes the items of an array from parameters: every combination of their values (a
// grid), or so many drawn at random with a seed, so that the same sweep is the same items each time.
//
// A parameter is a list of values, a range of numbers on a linear or logarithmic scale, a list of
// files, or a list of mappings with the same keys, which keeps values together: of
// SIZE: [{width: 1, depth: 2}] tasks see SIZE__width and SIZE__depth.
package sweep

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"regexp"
	"slices"
	"strconv"

	"github.com/shoal-pool/shoal"
)

// Sweep is what a document's sweep block or a file of parameters says.
type Sweep struct {
	Search     string         `json:"search,omitempty"` // grid (the default) or random
	Count      int            `json:"count,omitempty"`  // random: how many; grid: at most so many, else it is a mistake
	Seed       int            `json:"seed,omitempty"`   // of random: the same seed draws the same
	Parameters map[string]any `json:"parameters"`
}

// The ways to search.
const (
	Grid   = "grid"
	Random = "random"
)

// The bounds of a sweep.
const (
	MaxItems      = 100_000
	maxParameters = 64
	maxDigits     = 12 // of what is computed: 0.1+0.2 is 0.3
)

// Glob lists the files that a pattern matches.
type Glob func(pattern string) ([]string, error)

// Items expands a sweep. The mistakes' paths begin at the sweep: "parameters.LR.from".
func (s Sweep) Items(glob Glob) ([]shoal.Item, []shoal.Mistake) {
	var e expansion
	e.glob = glob
	names := slices.Sorted(maps.Keys(s.Parameters))
	switch {
	case len(names) == 0:
		e.wrong("parameters", "write parameters: {LR: [0.1, 0.01]}, for example", "the sweep has no parameters")
	case len(names) > maxParameters:
		e.wrong("parameters", "", "there are more than %d parameters", maxParameters)
		names = nil
	}
	var list []parameter
	for _, name := range names {
		list = append(list, e.parameter(name, s.Parameters[name]))
	}
	if s.Count < 0 || s.Count > MaxItems {
		e.wrong("count", "", "%d is not between 1 and %d", s.Count, MaxItems)
	}
	switch s.Search {
	case "", Grid:
		e.countable(list)
	case Random:
		if s.Count == 0 {
			e.wrong("count", "write count: 20, for example", "a random search needs to know how many to draw")
		}
	default:
		e.wrong("search", "it is grid or random", "%q is no way to search", s.Search)
	}
	if len(e.mistakes) > 0 {
		return nil, e.mistakes
	}
	if s.Search == Random {
		return draw(list, s.Count, s.Seed), nil
	}
	total := 1
	for _, p := range list {
		if total *= len(p.values); total > MaxItems {
			e.wrong("parameters", "take fewer values, or search: random with a count", "the grid has more than %d combinations", MaxItems)
			return nil, e.mistakes
		}
	}
	if s.Count > 0 && total > s.Count {
		e.wrong("count", "raise count, or take fewer values", "the grid has %d combinations, more than %d", total, s.Count)
		return nil, e.mistakes
	}
	return grid(list, total), nil
}

// parameter is one with its values; a range of which no number of values is known has none.
type parameter struct {
	name   string
	values []value
	span   *span
}

// value is what one parameter adds to an item: a field, or of a mapping several.
type value []field

type field struct {
	name string
	json json.RawMessage
}

// grid is every combination, the last parameter changing fastest.
func grid(list []parameter, total int) []shoal.Item {
	items := make([]shoal.Item, total)
	for i := range items {
		rest := i
		chosen := make([]value, len(list))
		for k := len(list) - 1; k >= 0; k-- {
			n := len(list[k].values)
			chosen[k] = list[k].values[rest%n]
			rest /= n
		}
		items[i] = item(chosen)
	}
	return items
}

// draw takes a value of each parameter at random, count times.
func draw(list []parameter, count, seed int) []shoal.Item {
	r := rand.New(rand.NewPCG(uint64(seed), 0x5e4a1))
	items := make([]shoal.Item, count)
	for i := range items {
		chosen := make([]value, len(list))
		for k, p := range list {
			if p.span != nil && len(p.values) == 0 {
				chosen[k] = value{{p.name, number(p.span.at(r.Float64()), p.span.integer)}}
			} else {
				chosen[k] = p.values[r.IntN(len(p.values))]
			}
		}
		items[i] = item(chosen)
	}
	return items
}

func item(chosen []value) shoal.Item {
	text := []byte{'{'}
	for _, v := range chosen {
		for _, f := range v {
			if len(text) > 1 {
				text = append(text, ',')
			}
			text = strconv.AppendQuote(text, f.name)
			text = append(append(text, ':'), f.json...)
		}
	}
	return append(text, '}')
}

// number writes a number without the dust of binary fractions.
func number(f float64, integer bool) json.RawMessage {
	if integer {
		f = math.Round(f)
	}
	short, err := strconv.ParseFloat(strconv.FormatFloat(f, 'g', maxDigits, 64), 64)
	if err != nil || short == 0 {
		short = 0
	}
	text, _ := json.Marshal(short)
	return text
}

// expansion gathers what is wrong.
type expansion struct {
	glob     Glob
	mistakes []shoal.Mistake
}

func (e *expansion) wrong(path, hint, format string, args ...any) {
	e.mistakes = append(e.mistakes, shoal.Mistake{Path: path, Msg: fmt.Sprintf(format, args...), Hint: hint})
}

// countable refuses ranges in a grid that do not say which values they have.
func (e *expansion) countable(list []parameter) {
	for _, p := range list {
		if p.span != nil && len(p.values) == 0 {
			e.wrong("parameters."+p.name, "add step: or count:, or search: random", "a grid needs to know how many values the range has")
		}
	}
}

// parameterName is what a parameter can be called: it becomes part of a variable.
var parameterName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,63}$`)
