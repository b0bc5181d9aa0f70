package tree

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/shoal-pool/shoal"
)

// The bounds of a file. A template of the old services had 4 MB at most.
const (
	MaxSize  = 4 << 20
	MaxDepth = 100
	maxNodes = 1 << 18
	maxTwice = 100 // keys that are there twice and are told
)

// Parse reads JSON as the old services took it: with a byte order mark, comments, commas before a closing
// bracket, strings over several lines or in single quotes, and keys without quotes. The mistake says where reading
// ended; the notes tell keys that are there twice.
func Parse(file string, data []byte) (*Value, []shoal.Mistake, *shoal.Mistake) {
	p := &parser{file: file, text: bytes.TrimPrefix(data, []byte("\xef\xbb\xbf")), line: 1}
	switch {
	case len(data) > MaxSize:
		return nil, nil, p.wrong(p.here(), "", "the file is larger than %d bytes", MaxSize)
	case bytes.HasPrefix(data, []byte{0xff, 0xfe}), bytes.HasPrefix(data, []byte{0xfe, 0xff}):
		return nil, nil, p.wrong(p.here(), "save it as UTF-8", "this is text in UTF-16")
	}
	v, m := p.document()
	return v, p.twice, m
}

type parser struct {
	file  string
	text  []byte
	i     int // the next byte
	line  int
	begin int // of the line
	nodes int
	twice []shoal.Mistake

	// Where a column was counted last: a file of one line is not counted from its beginning each time.
	counted, column int
}

func (p *parser) here() Place {
	if p.counted < p.begin || p.counted > p.i || p.counted == 0 {
		p.counted, p.column = p.begin, 1
	}
	p.column += utf8.RuneCount(p.text[p.counted:p.i])
	p.counted = p.i
	return Place{p.file, p.line, p.column}
}

func (p *parser) wrong(at Place, hint, format string, args ...any) *shoal.Mistake {
	return &shoal.Mistake{File: at.File, Line: at.Line, Column: at.Column, Msg: fmt.Sprintf(format, args...), Hint: hint}
}

func (p *parser) document() (*Value, *shoal.Mistake) {
	if m := p.blanks(); m != nil {
		return nil, m
	}
	v, m := p.value(0)
	if m != nil {
		return nil, m
	}
	if m := p.blanks(); m != nil {
		return nil, m
	}
	if p.i < len(p.text) {
		return nil, p.wrong(p.here(), "one file holds one document", "something follows the end of the document")
	}
	return v, nil
}

// step takes a byte and counts lines.
func (p *parser) step() byte {
	c := p.text[p.i]
	p.i++
	if c == '\n' {
		p.line++
		p.begin = p.i
	}
	return c
}

func (p *parser) peek() byte {
	if p.i < len(p.text) {
		return p.text[p.i]
	}
	return 0
}

// blanks skips white space and comments.
func (p *parser) blanks() *shoal.Mistake {
	for p.i < len(p.text) {
		rest := p.text[p.i:]
		switch c := rest[0]; {
		case c == ' ' || c == '\t' || c == '\r' || c == '\n':
			p.step()
		case bytes.HasPrefix(rest, []byte("//")):
			for p.i < len(p.text) && p.text[p.i] != '\n' {
				p.i++
			}
		case bytes.HasPrefix(rest, []byte("/*")):
			at := p.here()
			end := bytes.Index(rest[2:], []byte("*/"))
			if end < 0 {
				return p.wrong(at, "end it with */", "a comment begins here that does not end")
			}
			for to := p.i + end + 4; p.i < to; {
				p.step()
			}
		case bytes.HasPrefix(rest, []byte("\u00a0")), bytes.HasPrefix(rest, []byte("\u2028")), bytes.HasPrefix(rest, []byte("\ufeff")):
			_, n := utf8.DecodeRune(rest)
			p.i += n
		default:
			return nil
		}
	}
	return nil
}

func (p *parser) value(depth int) (*Value, *shoal.Mistake) {
	at := p.here()
	if p.nodes++; p.nodes > maxNodes {
		return nil, p.wrong(at, "", "the file holds more than %d values", maxNodes)
	}
	if depth > MaxDepth {
		return nil, p.wrong(at, "", "the document nests deeper than %d levels", MaxDepth)
	}
	if p.i >= len(p.text) {
		return nil, p.ended()
	}
	var v *Value
	var m *shoal.Mistake
	switch c := p.peek(); {
	case c == '{':
		v, m = p.object(depth)
	case c == '[':
		v, m = p.array(depth)
	case c == '"' || c == '\'':
		v, m = p.str()
	default:
		v, m = p.word()
	}
	if m != nil {
		return nil, m
	}
	v.At = at
	return v, nil
}

func (p *parser) ended() *shoal.Mistake {
	return p.wrong(p.here(), "it may have been cut off", "the file ends in the middle of the document")
}

func (p *parser) array(depth int) (*Value, *shoal.Mistake) {
	p.step()
	var items []*Value
	for {
		if m := p.blanks(); m != nil {
			return nil, m
		}
		if p.peek() == ']' {
			p.step()
			return ArrayValue(items), nil
		}
		v, m := p.value(depth + 1)
		if m != nil {
			return nil, m
		}
		items = append(items, v)
		if m := p.between(']', "item of the array"); m != nil {
			return nil, m
		}
	}
}

// between takes the comma behind an item; a closing bracket stays.
func (p *parser) between(closing byte, what string) *shoal.Mistake {
	if m := p.blanks(); m != nil {
		return m
	}
	switch c := p.peek(); {
	case c == ',':
		p.step()
	case c == closing:
	case p.i >= len(p.text):
		return p.ended()
	default:
		return p.wrong(p.here(), "write a comma before it", "%q follows the %s without a comma or %q", p.next(), what, string(closing))
	}
	return nil
}

// next is the letter that comes next, for a message.
func (p *parser) next() string {
	r, _ := utf8.DecodeRune(p.text[p.i:])
	return string(r)
}

func (p *parser) object(depth int) (*Value, *shoal.Mistake) {
	p.step()
	var members []Member
	seen := map[string]int{}
	for {
		if m := p.blanks(); m != nil {
			return nil, m
		}
		if p.peek() == '}' {
			p.step()
			return ObjectValue(members), nil
		}
		at := p.here()
		name, m := p.key()
		if m != nil {
			return nil, m
		}
		if m := p.blanks(); m != nil {
			return nil, m
		}
		if p.peek() != ':' {
			if p.i >= len(p.text) {
				return nil, p.ended()
			}
			return nil, p.wrong(p.here(), "write a colon between a key and its value", "%q follows the key %q", p.next(), Clip(name, 60))
		}
		p.step()
		if m := p.blanks(); m != nil {
			return nil, m
		}
		v, m := p.value(depth + 1)
		if m != nil {
			return nil, m
		}
		if first, ok := seen[Fold(name)]; ok {
			if len(p.twice) < maxTwice {
				p.twice = append(p.twice, *p.wrong(at, "", "the key %q is there twice, first in line %d; the last one counts", Clip(name, 60), members[first].At.Line))
			}
			members[first] = Member{name, at, v}
		} else {
			seen[Fold(name)] = len(members)
			members = append(members, Member{name, at, v})
		}
		if m := p.between('}', "value of "+strconv.Quote(Clip(name, 60))); m != nil {
			return nil, m
		}
	}
}

func (p *parser) key() (string, *shoal.Mistake) {
	if c := p.peek(); c == '"' || c == '\'' {
		v, m := p.str()
		if m != nil {
			return "", m
		}
		return v.text, nil
	}
	from := p.i
	for p.i < len(p.text) && (p.text[p.i] == '_' || p.text[p.i] == '$' || letterOrDigit(p.text[p.i])) {
		p.i++
	}
	if p.i == from {
		if p.i >= len(p.text) {
			return "", p.ended()
		}
		return "", p.wrong(p.here(), "write a key in quotes", "a key is wanted here, not %q", p.next())
	}
	return string(p.text[from:p.i]), nil
}

func letterOrDigit(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

// word reads a number, true, false or null.
func (p *parser) word() (*Value, *shoal.Mistake) {
	at, from := p.here(), p.i
	for p.i < len(p.text) && (letterOrDigit(p.text[p.i]) || strings.IndexByte("+-._", p.text[p.i]) >= 0) {
		p.i++
	}
	switch text := string(p.text[from:p.i]); text {
	case "":
		return nil, p.wrong(at, "", "a value is wanted here, not %q", p.next())
	case "true", "True":
		return BoolValue(true), nil
	case "false", "False":
		return BoolValue(false), nil
	case "null":
		return NullValue(), nil
	default:
		if text[0] != '-' && (text[0] < '0' || text[0] > '9') {
			return nil, p.wrong(at, "write a string in quotes", "%q is no value", Clip(text, 60))
		}
		if n, err := strconv.ParseInt(text, 10, 64); err == nil {
			return IntValue(n), nil
		}
		f, err := strconv.ParseFloat(text, 64)
		if err != nil || math.IsInf(f, 0) || strings.ContainsAny(text, "xX_pPnN") {
			return nil, p.wrong(at, "", "%q is no number", Clip(text, 60))
		}
		v := FloatValue(f)
		if json.Valid([]byte(text)) {
			v.text = text
		}
		return v, nil
	}
}

func (p *parser) str() (*Value, *shoal.Mistake) {
	at := p.here()
	end := p.step()
	from, plain := p.i, true
	var b []byte
	for {
		if p.i >= len(p.text) {
			return nil, p.wrong(at, "end it with "+string(end), "a string begins here that does not end")
		}
		switch c := p.text[p.i]; {
		case c == end:
			if plain {
				b = p.text[from:p.i]
			}
			p.i++
			v := StringValue(string(b))
			v.plain = plain
			return v, nil
		case c == '\\':
			if plain {
				b, plain = append(b, p.text[from:p.i]...), false
			}
			var m *shoal.Mistake
			if b, m = p.escape(b); m != nil {
				return nil, m
			}
		case c >= utf8.RuneSelf:
			r, n := utf8.DecodeRune(p.text[p.i:])
			if r == utf8.RuneError && n == 1 {
				return nil, p.wrong(p.here(), "save it as UTF-8", "this is not text in UTF-8")
			}
			if !plain {
				b = append(b, p.text[p.i:p.i+n]...)
			}
			p.i += n
		default:
			if p.step(); !plain {
				b = append(b, c)
			}
		}
	}
}

// escape reads what follows a backslash.
func (p *parser) escape(b []byte) ([]byte, *shoal.Mistake) {
	at := p.here()
	p.i++
	if p.i >= len(p.text) {
		return nil, p.ended()
	}
	switch c := p.step(); c {
	case '"', '\\', '/', '\'':
		return append(b, c), nil
	case 'b':
		return append(b, '\b'), nil
	case 'f':
		return append(b, '\f'), nil
	case 'n':
		return append(b, '\n'), nil
	case 'r':
		return append(b, '\r'), nil
	case 't':
		return append(b, '\t'), nil
	case '\n':
		return b, nil // a line that goes on
	case 'u':
		r, ok := p.hex()
		if ok && utf16.IsSurrogate(r) {
			second := rune(utf8.RuneError)
			if bytes.HasPrefix(p.text[p.i:], []byte(`\u`)) {
				p.i += 2
				second, ok = p.hex()
			}
			r = utf16.DecodeRune(r, second)
		}
		if !ok {
			return nil, p.wrong(at, `write \u and four of 0-9, a-f`, "this is no letter")
		}
		return utf8.AppendRune(b, r), nil
	}
	return nil, p.wrong(at, `write \\ for a backslash`, `\%s has no meaning`, strings.ToValidUTF8(string(p.text[p.i-1:p.i]), "?"))
}

func (p *parser) hex() (rune, bool) {
	if p.i+4 > len(p.text) {
		return 0, false
	}
	n, err := strconv.ParseUint(string(p.text[p.i:p.i+4]), 16, 16)
	if err != nil {
		return 0, false
	}
	p.i += 4
	return rune(n), true
}

// Within is the place of a letter of a string, by its offset in bytes: exactly where the string has no escapes in
// the file, else where it begins.
func (v *Value) Within(offset int) Place {
	at := v.At
	if !v.plain || at.Line == 0 || offset > len(v.text) {
		return at
	}
	before := v.text[:offset]
	if i := strings.LastIndexByte(before, '\n'); i >= 0 {
		at.Line += strings.Count(before, "\n")
		at.Column = 1 + utf8.RuneCountInString(before[i+1:])
		return at
	}
	at.Column += 1 + utf8.RuneCountInString(before)
	return at
}
