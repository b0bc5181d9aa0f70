package archtest

import (
	"fmt"
	"go/ast"
	"go/token"
	"strings"
)

// variables: no state in a package, and no work before main. Left alone are errors, embedded files,
// tables and patterns that nobody writes to, and assertions that a type fits an interface.
func variables(t *Tree, _ Table) []Finding {
	var all []Finding
	for _, p := range t.Packages {
		for _, f := range p.Files {
			for _, d := range f.ast.Decls {
				switch d := d.(type) {
				case *ast.FuncDecl:
					if d.Recv == nil && d.Name.Name == "init" {
						all = append(all, Finding{"init", f.Path, "works before main is asked"})
					}
				case *ast.GenDecl:
					if d.Tok == token.VAR {
						all = append(all, t.stray(f, d)...)
					}
				}
			}
		}
	}
	return all
}

func (t *Tree) stray(f *File, d *ast.GenDecl) []Finding {
	var all []Finding
	for _, s := range d.Specs {
		v := s.(*ast.ValueSpec)
		if embedded(d.Doc) || embedded(v.Doc) {
			continue
		}
		for i, name := range v.Names {
			if name.Name == "_" || len(v.Values) == len(v.Names) && constant(v.Values[i]) {
				continue
			}
			all = append(all, Finding{"variable", f.Path + ": " + name.Name, "is a variable of the package: hand it in"})
		}
	}
	return all
}

func embedded(doc *ast.CommentGroup) bool {
	if doc == nil {
		return false
	}
	for _, c := range doc.List {
		if strings.HasPrefix(c.Text, "//go:embed ") {
			return true
		}
	}
	return false
}

// constant reports whether an expression makes something that is only read: a table, a pattern, an error.
func constant(e ast.Expr) bool {
	switch e := e.(type) {
	case *ast.CompositeLit:
		switch e.Type.(type) {
		case *ast.ArrayType, *ast.MapType:
			return true
		}
	case *ast.CallExpr:
		s, ok := e.Fun.(*ast.SelectorExpr)
		if !ok {
			return false
		}
		x, ok := s.X.(*ast.Ident)
		if !ok {
			return false
		}
		switch x.Name + "." + s.Sel.Name {
		case "errors.New", "fmt.Errorf", "shoal.Errorf", "regexp.MustCompile", "strings.Fields", "strings.NewReplacer",
			"netip.MustParsePrefix", "netip.MustParseAddr", "template.Must":
			return true
		}
	}
	return false
}

// comments: every package says what it is for, and everything exported what a caller must know.
func comments(t *Tree, _ Table) []Finding {
	var all []Finding
	for _, p := range t.Packages {
		if len(p.Files) == 0 {
			continue
		}
		said := false
		for _, f := range p.Files {
			if f.ast.Doc != nil && (p.Name == "main" || strings.HasPrefix(f.ast.Doc.Text(), "Package "+p.Name+" ")) {
				said = true
			}
			all = append(all, t.silent(f)...)
		}
		if !said {
			all = append(all, Finding{"comment", p.Path, fmt.Sprintf("has no comment that begins \"Package %s …\"", p.Name)})
		}
	}
	return all
}

// silent finds what is exported without a comment. Methods that only satisfy an interface of the
// standard library say all in their names.
func (t *Tree) silent(f *File) []Finding {
	var all []Finding
	quiet := func(name *ast.Ident) {
		all = append(all, Finding{"comment", f.Path + ": " + name.Name, fmt.Sprintf("line %d is exported without a comment", t.line(name))})
	}
	for _, d := range f.ast.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			if d.Name.IsExported() && d.Doc == nil && exportedReceiver(d) && !plainMethod(d) {
				quiet(d.Name)
			}
		case *ast.GenDecl:
			for _, s := range d.Specs {
				switch s := s.(type) {
				case *ast.TypeSpec:
					if s.Name.IsExported() && d.Doc == nil && s.Doc == nil && s.Comment == nil {
						quiet(s.Name)
					}
				case *ast.ValueSpec:
					if s.Names[0].IsExported() && d.Doc == nil && s.Doc == nil && s.Comment == nil {
						quiet(s.Names[0])
					}
				}
			}
		}
	}
	return all
}

func exportedReceiver(d *ast.FuncDecl) bool {
	if d.Recv == nil {
		return true
	}
	e := d.Recv.List[0].Type
	for {
		switch x := e.(type) {
		case *ast.StarExpr:
			e = x.X
		case *ast.IndexExpr:
			e = x.X
		case *ast.Ident:
			return x.IsExported()
		default:
			return false
		}
	}
}

func plainMethod(d *ast.FuncDecl) bool {
	if d.Recv == nil {
		return false
	}
	switch d.Name.Name {
	case "Error", "Unwrap", "Is", "As", "String", "MarshalText", "UnmarshalText", "MarshalJSON", "UnmarshalJSON",
		"Len", "Less", "Swap", "Push", "Pop", "Read", "Write", "Close", "ServeHTTP", "Scan", "Value":
		return true
	}
	return false
}
