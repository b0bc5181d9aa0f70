package archtest

import (
	_ "embed"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

//go:embed allow.txt
var allowed string

// The whole project keeps its own rules.
func TestRepository(t *testing.T) {
	t.Parallel()
	root := filepath.Join("..", "..")
	page, err := os.ReadFile(filepath.Join(root, "ARCHITECTURE.md"))
	if err != nil {
		t.Fatal(err)
	}
	table, err := ReadTable(string(page))
	if err != nil {
		t.Fatal(err)
	}
	tree, err := Load(root)
	if err != nil {
		t.Fatal(err)
	}
	allowances, err := ReadAllowances(allowed)
	if err != nil {
		t.Fatalf("allow.txt: %v", err)
	}
	left, idle := Subtract(append(Check(tree, table), Words(tree, addresses(t))...), allowances)
	for _, f := range left {
		t.Error(f)
	}
	for _, a := range idle {
		t.Errorf("allow.txt: %s %s is not needed any more", a.Rule, a.Place)
	}
}

// addresses are those by which this machine fetches packages.
func addresses(t *testing.T) []string {
	t.Helper()
	out, err := exec.Command("go", "env", "GOPROXY", "GOSUMDB").Output()
	if err != nil {
		t.Fatal(err)
	}
	list := strings.FieldsFunc(string(out), func(r rune) bool { return r == ',' || r == '|' || r == '\n' || r == ' ' })
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "PIP_INDEX_URL", "NPM_CONFIG_REGISTRY"} {
		list = append(list, os.Getenv(name))
	}
	return list
}
