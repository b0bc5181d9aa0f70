package tree

import (
	"bytes"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Kind is what a value is.
type Kind uint8

// The kinds of values.
const (
	Null Kind = iota
	Bool
	Int
	Float
	String
	Array
	Object
	// Unknown is a value that only a deployment has: an address, a key. What is computed from it is unknown too.
	Unknown
)

// String names the kind for people.
func (k Kind) String() string {
	return [...]string{"null", "a truth value", "a whole number", "a number", "a string", "an array", "an object", "a value known only once it is deployed"}[k]
}

// Place is where something was written; lines and columns count from 1, and 0 is nowhere.
type Place struct {
	File   string
	Line   int
	Column int
}

// Member is a key of an object with its value.
type Member struct {
	Name  string
	At    Place
	Value *Value
}

// Value is a piece of JSON.
type Value struct {
	At   Place
	Kind Kind
	// Secret is a value, or part of one, that no message and no output may show. It is set where the value is a
	// scalar; see Hides.
	Secret bool
	// Open is an object of which more is known once it is deployed: a key that it lacks is unknown, not a mistake.
	Open bool

	plain   bool // a string whose text in the file has no escapes
	hides   bool // it or something in it is secret
	unknown bool // it or something in it is unknown
	null    bool // it or something in it is null
	partial bool // of an unknown string: the text is known in part
	depth   int32
	number  uint64 // an int64, the bits of a float64, or 1 for true
	text    string // of a string; of a number as it was written; of what is unknown or open, whose it is
	items   []*Value
	members []Member
	index   map[string]int // of many members, by folded name
	weight  int64
}

// The weights of values: bytes, roughly, as they would be written.
const (
	weightOfValue = 8
	maxWeight     = math.MaxInt64 / 4
	indexed       = 12 // members from which on there is an index
)

// NullValue is a null.
func NullValue() *Value { return &Value{Kind: Null, null: true, weight: weightOfValue} }

// BoolValue is true or false.
func BoolValue(b bool) *Value {
	v := &Value{Kind: Bool, weight: weightOfValue}
	if b {
		v.number = 1
	}
	return v
}

// IntValue is a whole number.
func IntValue(n int64) *Value { return &Value{Kind: Int, number: uint64(n), weight: weightOfValue} }

// FloatValue is a number that is not whole.
func FloatValue(f float64) *Value {
	return &Value{Kind: Float, number: math.Float64bits(f), weight: weightOfValue}
}

// StringValue is a string.
func StringValue(s string) *Value {
	return &Value{Kind: String, text: s, weight: weightOfValue + int64(len(s))}
}

// UnknownValue is a value that only a deployment has; what says which, for people.
func UnknownValue(what string) *Value {
	return &Value{Kind: Unknown, text: what, unknown: true, weight: weightOfValue}
}

// PartialValue is a string of which parts are unknown: text has <WHAT> in their place.
func PartialValue(text string) *Value {
	return &Value{Kind: Unknown, text: text, partial: true, unknown: true, weight: weightOfValue + int64(len(text))}
}

// Sketch is what is known of a value that is not known, or not in all parts: with <WHAT> in place of what is not.
func (v *Value) Sketch() string {
	switch {
	case v.partial:
		return v.text
	case v.Kind == Unknown:
		return "<" + v.text + ">"
	}
	var b bytes.Buffer
	v.write(&b, false, true)
	return b.String()
}

// ArrayValue is an array. It keeps the slice.
func ArrayValue(items []*Value) *Value {
	v := &Value{Kind: Array, items: items, weight: weightOfValue}
	for _, c := range items {
		v.holds(c)
	}
	return v
}

// ObjectValue is an object. It keeps the slice. Of two members of one name the last one counts.
func ObjectValue(members []Member) *Value {
	v := &Value{Kind: Object, members: members, weight: weightOfValue}
	for _, m := range members {
		v.weight += int64(len(m.Name))
		v.holds(m.Value)
	}
	if len(members) >= indexed {
		v.index = make(map[string]int, len(members))
		for i, m := range members {
			v.index[Fold(m.Name)] = i
		}
	}
	return v
}

func (v *Value) holds(c *Value) {
	v.hides = v.hides || c.hides
	v.unknown = v.unknown || c.unknown
	v.null = v.null || c.null
	v.depth = max(v.depth, c.depth+1)
	v.weight = min(v.weight+c.weight, maxWeight)
}

// Fold is a name without its letters' case.
func Fold(name string) string { return strings.ToLower(name) }

// Placed is the value as if it were written at another place.
func (v *Value) Placed(at Place) *Value {
	if v.At == at {
		return v
	}
	c := *v
	c.At = at
	return &c
}

// Hidden is the value with all that is in it secret.
func (v *Value) Hidden() *Value {
	if v.Kind == Null || v.Secret {
		return v
	}
	c := *v
	c.hides = true
	switch v.Kind {
	case Array:
		c.items = make([]*Value, len(v.items))
		for i, item := range v.items {
			c.items[i] = item.Hidden()
		}
	case Object:
		c.members = slices.Clone(v.members)
		for i := range c.members {
			c.members[i].Value = c.members[i].Value.Hidden()
		}
	default:
		c.Secret = true
	}
	return &c
}

// Opened is an object of which a deployment knows more; what says whose it is, for people.
func (v *Value) Opened(what string) *Value {
	if v.Open || v.Kind != Object && v.Kind != Array {
		return v
	}
	c := *v
	c.Open, c.text = true, what
	return &c
}

// Source says whose an open object is.
func (v *Value) Source() string {
	if v.Open {
		return v.text
	}
	return ""
}

// Hides reports whether the value is secret or holds something that is.
func (v *Value) Hides() bool { return v != nil && v.hides }

// Uncertain reports whether the value is unknown or holds something that is.
func (v *Value) Uncertain() bool { return v != nil && v.unknown }

// HasNull reports whether the value is null or holds something that is.
func (v *Value) HasNull() bool { return v != nil && v.null }

// Weight is how much the value would be if it were written out: bytes, roughly.
func (v *Value) Weight() int64 { return v.weight }

// Depth is how deep the value nests; a scalar's is 0.
func (v *Value) Depth() int { return int(v.depth) }

// Tell is Text for what is shown or kept: HiddenText where that is secret.
func (v *Value) Tell() string {
	if v != nil && v.Secret {
		return HiddenText
	}
	return v.Text()
}

// Text is a string's content, a number as it is written, or what is unknown. Of anything else it is empty.
func (v *Value) Text() string {
	if v == nil {
		return ""
	}
	switch v.Kind {
	case String, Unknown:
		return v.text
	case Int:
		return strconv.FormatInt(int64(v.number), 10)
	case Float:
		if v.text != "" {
			return v.text
		}
		return strconv.FormatFloat(v.Float(), 'g', -1, 64)
	}
	return ""
}

// Int is a whole number's value.
func (v *Value) Int() int64 { return int64(v.number) }

// Float is a number's value.
func (v *Value) Float() float64 {
	if v.Kind == Int {
		return float64(int64(v.number))
	}
	return math.Float64frombits(v.number)
}

// Bool is a truth value's value.
func (v *Value) Bool() bool { return v.Kind == Bool && v.number == 1 }

// Items are an array's.
func (v *Value) Items() []*Value {
	if v == nil {
		return nil
	}
	return v.items
}

// Members are an object's, in the order written.
func (v *Value) Members() []Member {
	if v == nil {
		return nil
	}
	return v.members
}

// Len is the number of an array's items or an object's members.
func (v *Value) Len() int { return max(len(v.Items()), len(v.Members())) }

// Member finds a member in whatever case, or nil.
func (v *Value) Member(name string) *Member {
	if v == nil {
		return nil
	}
	if v.index != nil {
		if i, ok := v.index[Fold(name)]; ok {
			return &v.members[i]
		}
		return nil
	}
	for i := len(v.members) - 1; i >= 0; i-- {
		if strings.EqualFold(v.members[i].Name, name) {
			return &v.members[i]
		}
	}
	return nil
}

// Get follows names into objects; nil where there is no such thing.
func (v *Value) Get(names ...string) *Value {
	for _, name := range names {
		m := v.Member(name)
		if m == nil {
			return nil
		}
		v = m.Value
	}
	return v
}

// Present reports whether there is something other than null.
func (v *Value) Present() bool { return v != nil && v.Kind != Null }

// AsInt is a whole number that may be written in quotes.
func (v *Value) AsInt() (int64, bool) {
	switch {
	case v == nil:
		return 0, false
	case v.Kind == Int:
		return v.Int(), true
	case v.Kind == Float && v.Float() == math.Trunc(v.Float()) && math.Abs(v.Float()) < 1<<53:
		return int64(v.Float()), true
	case v.Kind == String:
		n, err := strconv.ParseInt(strings.TrimSpace(v.text), 10, 64)
		return n, err == nil
	}
	return 0, false
}

// AsFloat is a number that may be written in quotes.
func (v *Value) AsFloat() (float64, bool) {
	switch {
	case v == nil:
		return 0, false
	case v.Kind == Int || v.Kind == Float:
		return v.Float(), true
	case v.Kind == String:
		f, err := strconv.ParseFloat(strings.TrimSpace(v.text), 64)
		return f, err == nil && !math.IsNaN(f) && !math.IsInf(f, 0)
	}
	return 0, false
}

// AsBool is a truth value that may be written in quotes.
func (v *Value) AsBool() (value, ok bool) {
	switch {
	case v == nil:
		return false, false
	case v.Kind == Bool:
		return v.Bool(), true
	case v.Kind == String && strings.EqualFold(strings.TrimSpace(v.text), "true"):
		return true, true
	case v.Kind == String && strings.EqualFold(strings.TrimSpace(v.text), "false"):
		return false, true
	}
	return false, false
}

// Equal compares contents: strings with their letters' case, numbers by value, objects without their order.
// Unknown values equal nothing. Values that share much are compared as if they did not, so a budget bounds it:
// pairs looked at; when it is used up the answer is false.
func Equal(a, b *Value, budget *int64) bool {
	if *budget--; *budget < 0 {
		return false
	}
	if (a.Kind == Int || a.Kind == Float) && (b.Kind == Int || b.Kind == Float) {
		if a.Kind == Int && b.Kind == Int {
			return a.number == b.number
		}
		return a.Float() == b.Float()
	}
	if a.Kind != b.Kind {
		return false
	}
	switch a.Kind {
	case Null:
		return true
	case Bool:
		return a.number == b.number
	case String:
		return a.text == b.text
	case Array:
		return slices.EqualFunc(a.items, b.items, func(x, y *Value) bool { return Equal(x, y, budget) })
	case Object:
		if len(a.members) != len(b.members) {
			return false
		}
		for _, m := range a.members {
			other := b.Member(m.Name)
			if other == nil || !Equal(m.Value, other.Value, budget) {
				return false
			}
		}
		return true
	}
	return false
}
