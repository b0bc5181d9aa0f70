package archtest

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
)

// Finding is one thing that a rule refuses.
type Finding struct {
	Rule  string // a word
	Place string // "internal/store/tx.go: Update"; what allow.txt names
	Msg   string
}

func (f Finding) String() string { return f.Rule + " " + f.Place + ": " + f.Msg }

// Tree is a module as its source says it.
type Tree struct {
	Module   string
	Packages []*Package
	Texts    []Text // every file of ours, for the rules about words
	fset     *token.FileSet
}

// Package is a directory with Go files.
type Package struct {
	Path  string // relative to the module
	Name  string
	Files []*File
	Tests []*File
}

// File is a parsed Go file.
type File struct {
	Path  string
	Lines int
	ast   *ast.File
}

// Text is a file that people wrote.
type Text struct {
	Path string
	Body string
}

// Load reads the module at root. Modules inside it, hidden directories, testdata and bin are left out;
// testdata counts among the texts.
func Load(root string) (*Tree, error) {
	t := &Tree{fset: token.NewFileSet()}
	mod, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		return nil, err
	}
	line, _, _ := strings.Cut(string(mod), "\n")
	t.Module = strings.TrimSpace(strings.TrimPrefix(line, "module"))
	packages := map[string]*Package{}
	err = filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		if d.IsDir() {
			if rel != "." && leftOut(name, d.Name()) {
				return filepath.SkipDir
			}
			return nil
		}
		if !d.Type().IsRegular() || !written(d.Name()) {
			return nil
		}
		body, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		t.Texts = append(t.Texts, Text{rel, string(body)})
		if strings.HasSuffix(rel, ".go") && !strings.Contains("/"+rel, "/testdata/") {
			return t.add(packages, rel, body)
		}
		return nil
	})
	return t, err
}

func leftOut(full, base string) bool {
	if base == "bin" || strings.HasPrefix(base, "_") || strings.HasPrefix(base, ".") && base != ".ci" {
		return true
	}
	_, err := os.Stat(filepath.Join(full, "go.mod"))
	return err == nil
}

// written reports whether a file of this name is written by hand.
func written(base string) bool {
	switch path.Ext(base) {
	case ".go", ".md", ".txt", ".txtar", ".yaml", ".yml", ".json", ".py", ".sh", ".sql", ".golden", ".svg", ".html", ".css", ".js", ".mod":
		return base != "bench.json" && base != "prove.json"
	case "":
		return true // Makefile, scripts, .ci/run
	}
	return false
}

func (t *Tree) add(packages map[string]*Package, rel string, body []byte) error {
	parsed, err := parser.ParseFile(t.fset, rel, body, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return fmt.Errorf("cannot parse %s: %w", rel, err)
	}
	dir := path.Dir(rel)
	p := packages[dir]
	if p == nil {
		p = &Package{Path: dir}
		packages[dir] = p
		t.Packages = append(t.Packages, p)
	}
	f := &File{Path: rel, Lines: strings.Count(string(body), "\n"), ast: parsed}
	if strings.HasSuffix(rel, "_test.go") {
		p.Tests = append(p.Tests, f)
		return nil
	}
	p.Name = parsed.Name.Name
	p.Files = append(p.Files, f)
	return nil
}

// line returns where a node begins.
func (t *Tree) line(n ast.Node) int { return t.fset.Position(n.Pos()).Line }

// height returns how many lines a node takes.
func (t *Tree) height(n ast.Node) int {
	return t.fset.Position(n.End()).Line - t.line(n) + 1
}

// imports returns the paths a file imports, with the names they have in it.
func (f *File) imports() map[string]string {
	names := map[string]string{}
	for _, i := range f.ast.Imports {
		p, err := strconv.Unquote(i.Path.Value)
		if err != nil {
			continue
		}
		base := path.Base(p)
		if len(base) > 1 && base[0] == 'v' && strings.Trim(base[1:], "0123456789") == "" {
			base = path.Base(path.Dir(p))
		}
		if i.Name != nil {
			base = i.Name.Name
		}
		names[p] = base
	}
	return names
}

// own returns the packages of the module that a package imports, relative to it.
func (t *Tree) own(p *Package) []string {
	seen := map[string]bool{}
	var list []string
	for _, f := range p.Files {
		for i := range f.imports() {
			rel, ok := strings.CutPrefix(i, t.Module)
			if !ok || rel != "" && rel[0] != '/' {
				continue
			}
			rel = strings.TrimPrefix(rel, "/")
			if rel == "" {
				rel = "."
			}
			if !seen[rel] {
				seen[rel] = true
				list = append(list, rel)
			}
		}
	}
	return list
}
