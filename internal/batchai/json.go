package batchai

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sort"
	"strings"
	"unicode/utf8"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/spec"
)

// The bounds of a file.
const (
	maxDepth  = 50
	maxValues = 100_000
)

// place is where something was written; lines and columns count from 1, and 0 is nowhere.
type place struct{ line, column int }

// node is a value of a file.
type node struct {
	at     place
	kind   kind
	text   string // of a scalar: a string's content, or a word as it is written
	keys   []key
	values []*node // of the keys, or the items of a list
}

type key struct {
	at   place
	text string
}

type kind int

const (
	nothing kind = iota
	word         // a number, true or false
	quoted       // a string
	object
	list
)

func (k kind) String() string {
	return [...]string{"nothing", "a number or a truth value", "a string", "an object", "a list"}[k]
}

// reader makes nodes of a file.
type reader struct {
	decoder *json.Decoder
	lines   []int64 // where each line begins
	text    []byte
	left    int // values that may still come

	// Where place looked last: a file of one line is not counted from its beginning each time.
	seen   int64
	column int
}

// parse reads a file. The mistake says where reading ended.
func parse(data []byte) (*node, *shoal.Mistake) {
	if len(data) > spec.MaxSize {
		return nil, &shoal.Mistake{Msg: fmt.Sprintf("the file is larger than %d bytes", spec.MaxSize)}
	}
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	r := reader{text: plain(data), left: maxValues, lines: []int64{0}}
	for i, c := range data {
		if c == '\n' {
			r.lines = append(r.lines, int64(i)+1)
		}
	}
	if !utf8.Valid(data) {
		i := len(bytes.ToValidUTF8(data, nil))
		for k := range data { // the first byte that is not part of a letter
			if c, n := utf8.DecodeRune(data[k:]); c == utf8.RuneError && n == 1 && utf8.RuneStart(data[k]) {
				i = k
				break
			}
		}
		return nil, r.wrong(int64(i), "save it as UTF-8", "this is not text in UTF-8")
	}
	r.decoder = json.NewDecoder(bytes.NewReader(r.text))
	r.decoder.UseNumber()
	n, m := r.value(0)
	if m != nil {
		return nil, m
	}
	if _, err := r.decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, r.wrong(r.next(), "one file holds one object", "something follows the end of the document")
	}
	return n, nil
}

// plain replaces comments, and commas before a closing bracket, by blanks.
func plain(data []byte) []byte {
	out := bytes.Clone(data)
	blank := func(from, to int) {
		for i := from; i < to; i++ {
			if out[i] != '\n' {
				out[i] = ' '
			}
		}
	}
	comma := -1 // the last one with nothing behind it yet
	for i := 0; i < len(out); {
		rest := out[i:]
		switch {
		case bytes.HasPrefix(rest, []byte("//")):
			n := bytes.IndexByte(rest, '\n')
			if n < 0 {
				n = len(rest)
			}
			blank(i, i+n)
			i += n
		case bytes.HasPrefix(rest, []byte("/*")):
			n := bytes.Index(rest[2:], []byte("*/"))
			if n < 0 {
				return out // the parser complains
			}
			blank(i, i+n+4)
			i += n + 4
		case out[i] == '"':
			comma = -1
			i++
			for i < len(out) && out[i] != '"' && out[i] != '\n' {
				if out[i] == '\\' {
					i++
				}
				i++
			}
			i++
		case out[i] == ',':
			comma = i
			i++
		default:
			if (out[i] == ']' || out[i] == '}') && comma >= 0 {
				out[comma] = ' '
			}
			if !strings.ContainsRune(" \t\r\n", rune(out[i])) {
				comma = -1
			}
			i++
		}
	}
	return out
}

func (r *reader) place(offset int64) place {
	line := sort.Search(len(r.lines), func(i int) bool { return r.lines[i] > offset })
	begin, column := r.lines[line-1], 1
	if r.seen >= begin && r.seen <= offset && r.column > 0 {
		begin, column = r.seen, r.column
	}
	offset = min(offset, int64(len(r.text)))
	r.column = column + utf8.RuneCount(r.text[begin:offset])
	r.seen = offset
	return place{line, r.column}
}

// next is where the next token begins.
func (r *reader) next() int64 {
	i := r.decoder.InputOffset()
	for i < int64(len(r.text)) && strings.ContainsRune(" \t\r\n,:", rune(r.text[i])) {
		i++
	}
	return i
}

func (r *reader) wrong(offset int64, hint, format string, args ...any) *shoal.Mistake {
	at := r.place(offset)
	return &shoal.Mistake{Line: at.line, Column: at.column, Msg: fmt.Sprintf(format, args...), Hint: hint}
}

// syntax is the mistake for what the decoder does not take.
func (r *reader) syntax(err error) *shoal.Mistake {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return r.wrong(int64(len(r.text)), "it may have been cut off", "the file ends in the middle of the document")
	}
	offset := r.next()
	var s *json.SyntaxError
	if errors.As(err, &s) && s.Offset > offset && s.Offset <= int64(len(r.text)) {
		offset = s.Offset - 1
	}
	return r.wrong(offset, "", "this is not JSON: %s", strings.TrimPrefix(err.Error(), "json: "))
}

func (r *reader) value(depth int) (*node, *shoal.Mistake) {
	at := r.next()
	if r.left--; r.left < 0 {
		return nil, r.wrong(at, "", "the file holds more than %d values", maxValues)
	}
	if depth > maxDepth {
		return nil, r.wrong(at, "", "the document nests deeper than %d levels", maxDepth)
	}
	token, err := r.decoder.Token()
	if err != nil {
		return nil, r.syntax(err)
	}
	n := &node{at: r.place(at)}
	switch t := token.(type) {
	case json.Delim:
		n.kind = object
		if t == '[' {
			n.kind = list
		}
		return n, r.inside(n, depth)
	case string:
		n.kind, n.text = quoted, t
	case json.Number:
		n.kind, n.text = word, t.String()
	case bool:
		n.kind, n.text = word, fmt.Sprint(t)
	}
	return n, nil
}

func (r *reader) inside(n *node, depth int) *shoal.Mistake {
	for r.decoder.More() {
		if n.kind == object {
			at := r.next()
			token, err := r.decoder.Token()
			if err != nil {
				return r.syntax(err)
			}
			name, _ := token.(string) // the decoder lets nothing else be a key
			n.keys = append(n.keys, key{r.place(at), name})
		}
		v, m := r.value(depth + 1)
		if m != nil {
			return m
		}
		n.values = append(n.values, v)
	}
	if _, err := r.decoder.Token(); err != nil {
		return r.syntax(err)
	}
	return nil
}

// under is the value of a key in whatever case, or nil.
func (n *node) under(name string) *node {
	if n == nil {
		return nil
	}
	for i, k := range n.keys {
		if strings.EqualFold(k.text, name) {
			return n.values[i]
		}
	}
	return nil
}
