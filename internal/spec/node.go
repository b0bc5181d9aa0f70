package spec

import (
	"fmt"
	"math"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"

	"github.com/shoal-pool/shoal"
)

// The bounds of what is read.
const (
	MaxSize   = 1 << 20 // bytes of one file
	maxDepth  = 50      // lists and mappings within each other
	maxNodes  = 100_000 // values in one file, those of aliases counted at each use
	maxTokens = 200_000 // words and signs of syntax; the parser takes its time over many
)

type nodeKind int

const (
	scalarNode nodeKind = iota
	nullNode
	mapNode
	listNode
)

func (k nodeKind) String() string {
	return [...]string{"a value", "nothing", "a mapping", "a list"}[k]
}

// node is a piece of a document, whatever syntax it was written in.
type node struct {
	kind   nodeKind
	line   int
	column int
	text   string // of a scalar
	quoted bool   // the scalar is a string whatever it looks like
	keys   []*node
	values []*node // of keys, or the items of a list
}

// reader turns one file into nodes.
type reader struct {
	file     string
	anchors  map[string]*node
	mistakes []shoal.Mistake
}

func (r *reader) wrong(line, column int, hint, format string, args ...any) {
	r.mistakes = append(r.mistakes, shoal.Mistake{File: r.file, Line: line, Column: column, Msg: fmt.Sprintf(format, args...), Hint: hint})
}

// read returns the documents of a file.
func (r *reader) read(data []byte) []*node {
	if len(data) > MaxSize {
		r.wrong(0, 0, "split it into several files", "the file is larger than %d bytes", MaxSize)
		return nil
	}
	if line, column, ok := unreadable(data); !ok {
		r.wrong(line, column, "save it as UTF-8", "this is not text in UTF-8")
		return nil
	}
	// What editors of Windows add changes nothing.
	tokens := lexer.Tokenize(strings.ReplaceAll(strings.TrimPrefix(string(data), "\ufeff"), "\r\n", "\n"))
	if len(tokens) > maxTokens {
		r.wrong(0, 0, "split it into several files", "the file holds more than %d words and signs", maxTokens)
		return nil
	}
	if !r.shallow(tokens) {
		return nil
	}
	file, err := parse(tokens)
	if err != nil {
		r.syntax(err)
		return nil
	}
	var docs []*node
	for _, d := range file.Docs {
		if d.Body == nil || d.Body.Type() == ast.CommentType {
			continue
		}
		r.anchors = map[string]*node{}
		docs = append(docs, r.convert(d.Body, 0))
	}
	return docs
}

// unreadable finds the first byte that is not part of a letter in UTF-8.
func unreadable(data []byte) (line, column int, ok bool) {
	if utf8.Valid(data) {
		return 0, 0, true
	}
	line, column = 1, 1
	for len(data) > 0 {
		c, n := utf8.DecodeRune(data)
		switch {
		case c == utf8.RuneError && n == 1:
			return line, column, false
		case c == '\n':
			line, column = line+1, 0
		}
		data, column = data[n:], column+1
	}
	return line, column, true
}

// parse keeps a parser that trips over odd input from taking the program with it.
func parse(tokens token.Tokens) (file *ast.File, err error) {
	defer func() {
		if p := recover(); p != nil {
			file, err = nil, fmt.Errorf("this is not YAML: %v", p)
		}
	}()
	return parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
}

func (r *reader) syntax(err error) {
	m := shoal.Mistake{File: r.file, Msg: err.Error()}
	if e, ok := err.(yaml.Error); ok {
		m.Msg = e.GetMessage()
		if t := e.GetToken(); t != nil && t.Position != nil {
			m.Line, m.Column = t.Position.Line, t.Position.Column
		}
	}
	if strings.Contains(m.Msg, "\t") {
		m.Msg, m.Hint = "a tab stands where the indentation is", "indent with spaces"
	}
	r.mistakes = append(r.mistakes, m)
}

// shallow refuses what would nest too deep, before a recursive parser sees it: brackets, list
// dashes on one line, and lines that are indented further than the depth allows.
func (r *reader) shallow(tokens token.Tokens) bool {
	flow, line, dashes := 0, 0, 0
	for _, t := range tokens {
		if t.Position.Line != line {
			line, dashes = t.Position.Line, 0
		}
		switch t.Type {
		case token.SequenceStartType, token.MappingStartType:
			flow++
		case token.SequenceEndType, token.MappingEndType:
			flow--
		case token.SequenceEntryType, token.MappingKeyType, token.TagType, token.AnchorType:
			dashes++
		}
		indented := t.Type != token.CommentType && dashes == 0 && flow == 0 && t.Position.IndentNum > maxDepth*16
		if flow > maxDepth || dashes > maxDepth || indented || t.Position.IndentLevel > maxDepth {
			r.wrong(line, t.Position.Column, "", "the document nests deeper than %d levels", maxDepth)
			return false
		}
	}
	return true
}

// convert makes a node of a parsed one. What it cannot take is a mistake and reads as nothing.
func (r *reader) convert(n ast.Node, depth int) *node {
	out := &node{kind: nullNode}
	if n == nil {
		return out
	}
	if t := n.GetToken(); t != nil && t.Position != nil {
		out.line, out.column = t.Position.Line, t.Position.Column
	}
	if depth > maxDepth {
		r.wrong(out.line, out.column, "", "the document nests deeper than %d levels", maxDepth)
		return out
	}
	switch v := n.(type) {
	case *ast.MappingNode:
		r.mapping(out, v.Values, depth)
	case *ast.MappingValueNode:
		r.mapping(out, []*ast.MappingValueNode{v}, depth)
	case *ast.SequenceNode:
		out.kind = listNode
		for _, item := range v.Values {
			out.values = append(out.values, r.convert(item, depth+1))
		}
	case *ast.AnchorNode:
		to := r.convert(v.Value, depth+1)
		r.anchors[v.Name.GetToken().Value] = to
		return to
	case *ast.AliasNode:
		name := v.Value.GetToken().Value
		if to, ok := r.anchors[name]; ok {
			return to
		}
		r.wrong(out.line, out.column, "", "there is no anchor %q before this", name)
	case *ast.TagNode:
		r.wrong(out.line, out.column, "put a string in quotes instead", "tags such as %s are not understood", clip(v.Start.Value))
	default:
		r.scalar(out, n)
	}
	return out
}

func (r *reader) scalar(out *node, n ast.Node) {
	switch v := n.(type) {
	case *ast.NullNode:
	case *ast.StringNode:
		out.kind, out.text = scalarNode, v.Value
		out.quoted = v.Token.Type == token.SingleQuoteType || v.Token.Type == token.DoubleQuoteType
	case *ast.LiteralNode:
		out.kind, out.text, out.quoted = scalarNode, v.Value.Value, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		out.kind, out.text = scalarNode, n.GetToken().Value
	default:
		r.wrong(out.line, out.column, "", "%s is not understood here", clip(n.GetToken().Value))
	}
}

func (r *reader) mapping(out *node, values []*ast.MappingValueNode, depth int) {
	out.kind = mapNode
	seen := map[string]int{}
	for i, kv := range values {
		key := &node{kind: scalarNode, line: out.line, column: out.column}
		if t := kv.Key.GetToken(); t != nil && t.Position != nil {
			key.text, key.line, key.column = t.Value, t.Position.Line, t.Position.Column
		}
		if s, ok := kv.Key.(*ast.StringNode); ok {
			key.text = s.Value
		}
		if i == 0 {
			out.line, out.column = key.line, key.column
		}
		switch kv.Key.(type) {
		case *ast.StringNode, *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.NullNode:
		case *ast.MergeKeyNode:
			r.wrong(key.line, key.column, "write the keys out, or give the whole value by an alias", "merging with << is not understood")
			continue
		default:
			r.wrong(key.line, key.column, "", "a key must be a plain word")
			continue
		}
		if first, ok := seen[key.text]; ok {
			r.wrong(key.line, key.column, "", "key %q is there twice, first in line %d", clip(key.text), first)
			continue
		}
		seen[key.text] = key.line
		out.keys = append(out.keys, key)
		out.values = append(out.values, r.convert(kv.Value, depth+1))
	}
}

// clip shortens foreign text for a message.
func clip(s string) string {
	const limit = 60
	if len(s) <= limit {
		return s
	}
	return strings.ToValidUTF8(s[:limit], "") + "…"
}

// finite reports whether a number can be kept.
func finite(f float64) bool { return !math.IsNaN(f) && !math.IsInf(f, 0) }
