package expr

import (
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/shoal-pool/shoal/internal/arm/tree"
)

// The bounds of an expression. 24,576 characters were the old services' own.
const (
	maxLength = 24_576
	maxNested = 100
)

// Error is a mistake in an expression or in its evaluation.
type Error struct {
	Offset int // of a byte in the string that holds the expression; less than 0: nowhere in it
	Msg    string
	Hint   string
	Err    error
	// Word was not found among Known, so one of those was probably meant.
	Word  string
	Known []string
}

// among says that a word was not found among known ones.
func (e *Error) among(word string, known []string) *Error {
	e.Word, e.Known = word, known
	return e
}

func (e *Error) Error() string { return e.Msg }

func (e *Error) Unwrap() error { return e.Err }

type nodeKind uint8

const (
	literalNode nodeKind = iota
	callNode             // name(args)
	memberNode           // args[0].name
	indexNode            // args[0][args[1]]
)

// Node is a parsed expression.
type Node struct {
	kind  nodeKind
	at    int
	name  string
	safe  bool // .? and [?: nothing where there is no such thing
	value *tree.Value
	args  []*Node
}

// Is reports whether a string is an expression.
func Is(s string) bool {
	return len(s) >= 2 && s[0] == '[' && s[len(s)-1] == ']' && s[1] != '['
}

// Literal is the content of a string that is no expression: "[[x]" stands for "[x]".
func Literal(s string) string {
	if strings.HasPrefix(s, "[[") && strings.HasSuffix(s, "]") {
		return s[1:]
	}
	return s
}

// Parse reads a string for which Is is true.
func Parse(s string) (*Node, *Error) {
	if len(s) > maxLength {
		return nil, &Error{Offset: 0, Msg: "the expression is longer than " + strconv.Itoa(maxLength) + " characters", Hint: "put parts of it into variables"}
	}
	p := &parser{text: s[:len(s)-1], i: 1}
	n, err := p.expression(0)
	if err != nil {
		return nil, err
	}
	p.blanks()
	if p.i < len(p.text) {
		hint := ""
		switch p.text[p.i] {
		case ')':
			hint = "a bracket is closed that was not opened"
		case '\'':
			hint = "write two single quotes for one within a text"
		}
		return nil, p.wrong(p.i, hint, "%s follows the end of the expression", p.next())
	}
	return n, nil
}

type parser struct {
	text string
	i    int
}

func (p *parser) wrong(at int, hint, format string, args ...any) *Error {
	return failure(at, hint, format, args...)
}

func (p *parser) blanks() {
	for p.i < len(p.text) && strings.IndexByte(" \t\r\n", p.text[p.i]) >= 0 {
		p.i++
	}
}

// take takes a letter if it comes next.
func (p *parser) take(c byte) bool {
	p.blanks()
	if p.i < len(p.text) && p.text[p.i] == c {
		p.i++
		return true
	}
	return false
}

// next is what comes next, for a message.
func (p *parser) next() string {
	if p.i >= len(p.text) {
		return "the end"
	}
	r, _ := utf8.DecodeRuneInString(p.text[p.i:])
	return strconv.Quote(string(r))
}

func (p *parser) expression(depth int) (*Node, *Error) {
	p.blanks()
	at := p.i
	if depth > maxNested {
		return nil, p.wrong(at, "put parts of it into variables", "the expression nests deeper than %d levels", maxNested)
	}
	if p.i >= len(p.text) {
		return nil, p.wrong(at, "", "the expression ends where a value is wanted")
	}
	var n *Node
	var err *Error
	switch c := p.text[p.i]; {
	case c == '\'':
		n, err = p.quoted()
	case c >= '0' && c <= '9' || c == '-' || c == '+':
		n, err = p.number()
	case identifierByte(c):
		n, err = p.call(depth)
	case c == '"':
		return nil, p.wrong(at, "write 'text' in single quotes", "a text within an expression is written in single quotes")
	default:
		return nil, p.wrong(at, "", "a value is wanted here, not %s", p.next())
	}
	if err != nil {
		return nil, err
	}
	return p.accesses(n, depth)
}

// accesses takes what follows a value: .name and [index].
func (p *parser) accesses(n *Node, depth int) (*Node, *Error) {
	for count := 0; ; count++ {
		at := p.i
		p.blanks()
		if count > maxNested {
			return nil, p.wrong(at, "", "more than %d names and indices follow each other", maxNested)
		}
		switch {
		case p.take('.'):
			safe := p.take('?')
			p.blanks()
			at = p.i
			name := p.identifier()
			if name == "" {
				return nil, p.wrong(at, "", "a name is wanted behind the dot, not %s", p.next())
			}
			n = &Node{kind: memberNode, at: at, name: name, safe: safe, args: []*Node{n}}
		case p.take('['):
			safe := p.take('?')
			p.blanks()
			at = p.i
			index, err := p.expression(depth + 1)
			if err != nil {
				return nil, err
			}
			if !p.take(']') {
				return nil, p.wrong(p.i, "close the bracket with ]", "a ] is wanted here, not %s", p.next())
			}
			n = &Node{kind: indexNode, at: at, safe: safe, args: []*Node{n, index}}
		default:
			return n, nil
		}
	}
}

func (p *parser) quoted() (*Node, *Error) {
	at := p.i
	p.i++
	var b strings.Builder
	for {
		end := strings.IndexByte(p.text[p.i:], '\'')
		if end < 0 {
			return nil, p.wrong(at, "end it with '; write '' for a single quote within it", "a text begins here that does not end")
		}
		b.WriteString(p.text[p.i : p.i+end])
		p.i += end + 1
		if p.i >= len(p.text) || p.text[p.i] != '\'' {
			return &Node{kind: literalNode, at: at, value: tree.StringValue(b.String())}, nil
		}
		b.WriteByte('\'')
		p.i++
	}
}

func (p *parser) number() (*Node, *Error) {
	at := p.i
	for p.i++; p.i < len(p.text) && (p.text[p.i] >= '0' && p.text[p.i] <= '9' || p.text[p.i] == '.' && p.i+1 < len(p.text) && p.text[p.i+1] >= '0' && p.text[p.i+1] <= '9'); {
		p.i++
	}
	text := p.text[at:p.i]
	if i, err := strconv.ParseInt(text, 10, 64); err == nil {
		return &Node{kind: literalNode, at: at, value: tree.IntValue(i)}, nil
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil || !strings.Contains(text, ".") {
		return nil, p.wrong(at, "", "%q is no number, or too large a one", tree.Clip(text, 60))
	}
	return &Node{kind: literalNode, at: at, value: tree.FloatValue(f)}, nil
}

func identifierByte(c byte) bool {
	return c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

func (p *parser) identifier() string {
	from := p.i
	for p.i < len(p.text) && (identifierByte(p.text[p.i]) || p.text[p.i] == '-' && p.i > from) {
		p.i++
	}
	return p.text[from:p.i]
}

// call reads name(args), or namespace.name(args) of a template's own function.
func (p *parser) call(depth int) (*Node, *Error) {
	at := p.i
	name := p.identifier()
	for p.take('.') {
		p.blanks()
		member := p.identifier()
		if member == "" {
			return nil, p.wrong(p.i, "", "a name is wanted behind the dot, not %s", p.next())
		}
		name += "." + member
	}
	if !p.take('(') {
		switch strings.ToLower(name) {
		case "true", "false", "null":
			return nil, p.wrong(at, "write "+strings.ToLower(name)+"()", "%q needs brackets within an expression", name)
		}
		return nil, p.wrong(at, "write '"+tree.Clip(name, 60)+"' if it is a text, or variables('"+tree.Clip(name, 60)+"')", "%q is neither a text in quotes nor a call", tree.Clip(name, 60))
	}
	n := &Node{kind: callNode, at: at, name: name}
	if p.take(')') {
		return n, nil
	}
	for {
		arg, err := p.expression(depth + 1)
		if err != nil {
			return nil, err
		}
		n.args = append(n.args, arg)
		if p.take(')') {
			return n, nil
		}
		if !p.take(',') {
			return nil, p.wrong(p.i, "separate arguments with commas and end them with )", "a comma or ) is wanted here, not %s", p.next())
		}
	}
}

// Walk visits an expression and all within it.
func (n *Node) Walk(visit func(*Node)) {
	visit(n)
	for _, a := range n.args {
		a.Walk(visit)
	}
}

// Calls are the calls in an expression of the function of a name, where the first argument is a text: those texts.
func (n *Node) Calls(function string) []Use {
	var all []Use
	n.Walk(func(c *Node) {
		if c.kind == callNode && strings.EqualFold(c.name, function) && len(c.args) > 0 && c.args[0].kind == literalNode && c.args[0].value.Kind == tree.String {
			all = append(all, Use{c.args[0].value.Text(), c.args[0].at})
		}
	})
	return all
}

// Use is a text in an expression, and where it is.
type Use struct {
	Text   string
	Offset int
}
