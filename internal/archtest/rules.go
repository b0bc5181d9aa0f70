package archtest

import (
	"fmt"
	"go/ast"
	"go/build"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// The budgets of STYLE.md. Tests may take longTest times as much: a table of cases is long, not deep.
const (
	maxFunction  = 80
	maxFile      = 600
	maxPackage   = 3000
	maxVocab     = 2000
	maxInterface = 8
	maxChain     = 8
	longTest     = 3
)

// Check applies all rules, in a fixed order.
func Check(t *Tree, table Table) []Finding {
	var all []Finding
	for _, rule := range []func(*Tree, Table) []Finding{levels, chain, purity, sizes, interfaces, variables, comments, names} {
		all = append(all, rule(t, table)...)
	}
	return all
}

// levels: a package imports from lower levels, from its parent directory's package, and from below itself.
func levels(t *Tree, table Table) []Finding {
	var all []Finding
	for _, p := range t.Packages {
		if len(p.Files) == 0 {
			continue
		}
		me, ok := table.Find(p.Path)
		if !ok || p.Path != "." && me.Path == "." {
			all = append(all, Finding{"table", p.Path, "is not in the table of ARCHITECTURE.md"})
			continue
		}
		for _, q := range t.own(p) {
			if q == path.Dir(p.Path) && p.Path != "." || strings.HasPrefix(q, p.Path+"/") {
				continue
			}
			other, ok := table.Find(q)
			switch {
			case !ok:
			case other.Level == me.Level:
				all = append(all, Finding{"level", p.Path + " → " + q, fmt.Sprintf("imports sideways, within level %d", me.Level)})
			case other.Level > me.Level:
				all = append(all, Finding{"level", p.Path + " → " + q, fmt.Sprintf("imports upwards, from level %d into level %d", me.Level, other.Level)})
			}
		}
	}
	for _, r := range table {
		if !slices.ContainsFunc(t.Packages, func(p *Package) bool { return p.Path == r.Path || strings.HasPrefix(p.Path, r.Path+"/") }) {
			all = append(all, Finding{"table", r.Path, "is in the table of ARCHITECTURE.md, but there is no such package"})
		}
	}
	return all
}

// chain: the longest line of packages, each importing the next, is short.
func chain(t *Tree, _ Table) []Finding {
	byPath := map[string]*Package{}
	for _, p := range t.Packages {
		byPath[p.Path] = p
	}
	longest := map[string][]string{}
	var walk func(p *Package) []string
	walk = func(p *Package) []string {
		if have, ok := longest[p.Path]; ok {
			return have // also where the compiler would refuse a circle
		}
		longest[p.Path] = []string{p.Path}
		for _, q := range t.own(p) {
			if next := byPath[q]; next != nil {
				if below := walk(next); len(below)+1 > len(longest[p.Path]) {
					longest[p.Path] = append([]string{p.Path}, below...)
				}
			}
		}
		return longest[p.Path]
	}
	var all []Finding
	for _, p := range t.Packages {
		if line := walk(p); len(line) > maxChain {
			all = append(all, Finding{"chain", p.Path, fmt.Sprintf("%d packages import each other in a row: %s", len(line), strings.Join(line, " → "))})
		}
	}
	return all
}

// Imports that a pure package does without, and calls that ask the world.
var (
	impure = strings.Fields(`context database/sql io/fs log log/slog net net/http os os/exec os/signal path/filepath
		runtime runtime/debug sync sync/atomic syscall testing golang.org/x/sys/unix`)
	clock  = strings.Fields("Now Since Until Sleep After AfterFunc Tick NewTimer NewTicker")
	chance = strings.Fields("New NewPCG NewChaCha8 NewSource NewZipf Rand Source PCG Zipf ChaCha8")
)

// purity: what decides takes values and the time, and asks nobody.
func purity(t *Tree, table Table) []Finding {
	var all []Finding
	for _, p := range t.Packages {
		if me, ok := table.Find(p.Path); !ok || !me.Pure {
			continue
		}
		for _, f := range p.Files {
			names := f.imports()
			for i := range names {
				if slices.Contains(impure, i) {
					all = append(all, Finding{"pure", f.Path + ": " + i, "is imported by a package that only decides"})
				}
			}
			ast.Inspect(f.ast, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.GoStmt:
					all = append(all, Finding{"pure", f.Path + ": go", fmt.Sprintf("line %d starts a goroutine", t.line(n))})
				case *ast.SelectorExpr:
					if what := asks(names, n); what != "" {
						all = append(all, Finding{"pure", f.Path + ": " + what, fmt.Sprintf("line %d asks instead of being told", t.line(n))})
					}
				}
				return true
			})
		}
	}
	return all
}

func asks(imports map[string]string, n *ast.SelectorExpr) string {
	x, ok := n.X.(*ast.Ident)
	if !ok {
		return ""
	}
	if name, ok := imports["time"]; ok && x.Name == name && slices.Contains(clock, n.Sel.Name) {
		return "time." + n.Sel.Name
	}
	for _, p := range []string{"math/rand", "math/rand/v2"} {
		if name, ok := imports[p]; ok && x.Name == name && !slices.Contains(chance, n.Sel.Name) {
			return "rand." + n.Sel.Name
		}
	}
	return ""
}

// sizes: functions, files and packages stay within their budgets.
func sizes(t *Tree, _ Table) []Finding {
	var all []Finding
	for _, p := range t.Packages {
		lines := 0
		for _, f := range p.Files {
			lines += f.Lines
			all = append(all, t.sizeOf(f, 1)...)
		}
		for _, f := range p.Tests {
			all = append(all, t.sizeOf(f, longTest)...)
		}
		budget := maxPackage
		if p.Path == "." {
			budget = maxVocab
		}
		if lines > budget {
			all = append(all, Finding{"size", p.Path, fmt.Sprintf("the package has %d lines, more than %d", lines, budget)})
		}
	}
	return all
}

func (t *Tree) sizeOf(f *File, factor int) []Finding {
	var all []Finding
	if f.Lines > maxFile*factor {
		all = append(all, Finding{"size", f.Path, fmt.Sprintf("the file has %d lines, more than %d", f.Lines, maxFile*factor)})
	}
	for _, d := range f.ast.Decls {
		fn, ok := d.(*ast.FuncDecl)
		if ok && t.height(fn) > maxFunction*factor {
			all = append(all, Finding{"size", f.Path + ": " + fn.Name.Name, fmt.Sprintf("the function has %d lines, more than %d", t.height(fn), maxFunction*factor)})
		}
	}
	return all
}

// interfaces: a seam is small.
func interfaces(t *Tree, _ Table) []Finding {
	var all []Finding
	for _, p := range t.Packages {
		for _, f := range p.Files {
			ast.Inspect(f.ast, func(n ast.Node) bool {
				spec, ok := n.(*ast.TypeSpec)
				if !ok {
					return true
				}
				if i, ok := spec.Type.(*ast.InterfaceType); ok && i.Methods.NumFields() > maxInterface {
					all = append(all, Finding{"interface", f.Path + ": " + spec.Name.Name,
						fmt.Sprintf("has %d methods, more than %d", i.Methods.NumFields(), maxInterface)})
				}
				return true
			})
		}
	}
	return all
}

// names: a package is named for what it is about, and unlike the standard library's.
func names(t *Tree, _ Table) []Finding {
	banned := strings.Fields("util utils common helper helpers manager types models misc shared base core lib pkg")
	std := standard()
	var all []Finding
	for _, p := range t.Packages {
		switch {
		case len(p.Files) == 0 || p.Name == "main":
		case slices.Contains(banned, p.Name):
			all = append(all, Finding{"name", p.Path, fmt.Sprintf("%q says nothing about what is in it", p.Name)})
		case std[p.Name]:
			all = append(all, Finding{"name", p.Path, fmt.Sprintf("%q is the name of a package of the standard library", p.Name)})
		case p.Path != "." && p.Name != path.Base(p.Path):
			all = append(all, Finding{"name", p.Path, fmt.Sprintf("its package is called %q, unlike its directory", p.Name)})
		}
	}
	return all
}

// standard returns the names of the standard library's packages, of the two upper levels.
func standard() map[string]bool {
	names := map[string]bool{}
	src := filepath.Join(build.Default.GOROOT, "src")
	for _, pattern := range []string{"*", "*/*"} {
		dirs, _ := filepath.Glob(filepath.Join(src, pattern)) // the pattern is well formed
		for _, dir := range dirs {
			rel, _ := filepath.Rel(src, dir) // both are absolute
			top, _, _ := strings.Cut(filepath.ToSlash(rel), "/")
			if info, err := os.Stat(dir); err != nil || !info.IsDir() || slices.Contains([]string{"cmd", "internal", "vendor", "builtin"}, top) {
				continue
			}
			if base := filepath.Base(dir); base != "internal" && base != "testdata" {
				names[base] = true
			}
		}
	}
	return names
}
