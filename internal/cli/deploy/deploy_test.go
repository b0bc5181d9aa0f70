package deploy

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/client"
	"github.com/shoal-pool/shoal/internal/spec"
)

const cases = "../../arm/testdata/cases/"

// world is a command line in memory.
type world struct {
	out, err bytes.Buffer
	typed    string // on a terminal, if it is not empty
	secrets  []string
	env      map[string]string
	connect  func() (*client.Client, string, error)
}

// run runs shoal deploy and returns its error as it is shown.
func (w *world) run(args ...string) string {
	cmd := Command(Env{
		In: strings.NewReader(w.typed), Out: &w.out, Err: &w.err,
		Connect: w.connect, Gate: gate,
		Getenv:   func(k string) string { return w.env[k] },
		Note:     func(format string, args ...any) { fmt.Fprintf(&w.err, format+"\n", args...) },
		Clean:    func(s string) string { return s },
		Terminal: func() bool { return w.typed != "" },
		Secret: func(prompt string) (string, error) {
			fmt.Fprintln(&w.err, prompt)
			if len(w.secrets) == 0 {
				return "", errors.New("nothing is typed")
			}
			s := w.secrets[0]
			w.secrets = w.secrets[1:]
			return s, nil
		},
		Format: func(cmd *cobra.Command) *string { return cmd.Flags().StringP("output", "o", "table", "") },
	})
	cmd.SetArgs(args)
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	if err := cmd.Execute(); err != nil {
		return spec.Format(shoal.MistakesOf(err)) + err.Error() + "\n" + shoal.HintOf(err)
	}
	return ""
}

func has(t *testing.T, what, text string, words ...string) {
	t.Helper()
	for _, word := range words {
		if !strings.Contains(text, word) {
			t.Errorf("%s lacks %q: %s", what, word, text)
		}
	}
}

// The article's template and parameter file become documents that apply takes.
func TestArticle(t *testing.T) {
	t.Parallel()
	w := &world{env: map[string]string{"KEY": "very-secret-1"}}
	pw := filepath.Join(t.TempDir(), "pw")
	if err := os.WriteFile(pw, []byte("very-secret-2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	base := cases + "DataScienceVM__Scripts__CreateDSVM__Ubuntu__dsvm-vmss-cluster"
	if err := w.run("-g", "research", "--template-file", base+".json", "--parameters", "@"+base+".parameters.json", "vmssName=lab", "shareName=team", "storageAccountKey=env:KEY", "adminPassword=@"+pw,
		"--share", "team=/srv/team", "--most", "1,2GiB", "--what-if", "-o", "yaml"); err != "" {
		t.Fatal(err)
	}
	set, err := spec.Parse(spec.File{Name: "out", Data: w.out.Bytes()})
	if err != nil || len(set.Pools) != 1 || set.Pools[0].Name != "lab" || len(set.Shares) != 1 || len(set.Users) != 0 || set.Pools[0].Machine.Memory != 2<<30 {
		t.Fatalf("%v: %s", err, w.out.String())
	}
	has(t, "stderr", w.err.String(), "the map of shares", `user "dsvmuser"`, "virtualNetworks")
	if all := w.out.String() + w.err.String(); strings.Contains(all, "very-secret") {
		t.Error("a secret is told")
	}
}

func TestAsking(t *testing.T) {
	t.Parallel()
	w := &world{typed: "?\nlab\nmany\n3\nalice\n2\n[1,\n\n[1]\n", secrets: []string{"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIExampleExampleExampleExampleExampleExampl", "very-secret-1"}}
	dir := t.TempDir()
	file := filepath.Join(dir, "t.json")
	text := `{"contentVersion": "1.0.0.0", "parameters": {
		"name": {"type": "string", "metadata": {"description": "the name of all"}}, "count": {"type": "int"}, "user": {"type": "string"},
		"how": {"type": "string", "allowedValues": ["password", "key"]}, "secret": {"type": "securestring"}, "list": {"type": "array"}, "has": {"type": "string", "defaultValue": "x"}},
		"resources": [{"type": "Microsoft.Compute/virtualMachineScaleSets", "name": "[parameters('name')]", "sku": {"name": "Standard_B1s", "capacity": "[parameters('count')]"},
			"properties": {"virtualMachineProfile": {"osProfile": {"adminUsername": "[parameters('user')]", "linuxConfiguration": {"ssh": {"publicKeys": [{"keyData": "[parameters('secret')]"}]}}}}}}],
		"outputs": {"how": {"type": "string", "value": "[parameters('how')]"}, "s": {"type": "string", "value": "[parameters('secret')]"}}}`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := w.run("--template-file", file, "--what-if"); err != "" {
		t.Fatal(err, w.err.String())
	}
	has(t, "stderr", w.err.String(), "Please provide string value for 'name' (? for help): ", "the name of all", "many is not a valid number", " [1] password\n [2] key\nPlease enter a choice [Default choice(1)]: ",
		"Please provide securestring value for 'secret'", `That is not JSON: the template wants a list as ["a", "b"] here`, "output how: key", "output s: (secret)")
	has(t, "stdout", w.out.String(), "pool lab: 3 machines with 1 processor and 1GiB", "user alice")
	quiet := &world{typed: "lab\n"}
	if err := quiet.run("--template-file", file, "--what-if", "--no-prompt"); !strings.Contains(err, `parameter "name" has no value`) || !strings.Contains(err, "6 mistakes") {
		t.Error(err)
	}
}

func TestRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	outside := filepath.Join(dir, "outside.json")
	inside := filepath.Join(dir, "in", "t.json")
	if err := os.Mkdir(filepath.Dir(inside), 0o700); err != nil {
		t.Fatal(err)
	}
	for path, text := range map[string]string{
		outside: `{"very": "secret"}`,
		inside: `{"contentVersion": "1.0.0.0", "parameters": {"p": {"type": "string", "defaultValue": "x"}}, "resources": [
			{"type": "Microsoft.Resources/deployments", "name": "up", "properties": {"templateLink": {"relativePath": "../outside.json"}}},
			{"type": "Microsoft.Resources/deployments", "name": "whole", "properties": {"templateLink": {"uri": "file://` + outside + `"}}},
			{"type": "Microsoft.Resources/deployments", "name": "plain", "properties": {"templateLink": {"uri": "http://localhost/x.json?sig=very"}}},
			{"type": "Microsoft.Resources/deployments", "name": "gone", "properties": {"templateLink": {"relativePath": "gone.json"}}}]}`,
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	bicep := filepath.Join(dir, "main.bicep")
	if err := os.WriteFile(bicep, []byte("param location string\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	err := (&world{}).run("--template-file", inside, "--what-if")
	has(t, "the error", err, "4 mistakes", "and not ../outside.json", "by https, or lie beside the template", "there is no file gone.json")
	if strings.Contains(err, "sig=") || strings.Contains(err, `"very"`) {
		t.Error(err)
	}
	for words, args := range map[string][]string{
		"there is no template":             {"--what-if"},
		"cannot read two templates":        {"--what-if", "--template-file", "a", "--template-uri", "b"},
		"no such file":                     {"--what-if", "--template-file", "gone.json"},
		"it is written in Bicep":           {"--what-if", "--template-file", bicep},
		`cannot read the parameters "x"`:   {"--what-if", "--template-file", inside, "--parameters", "x"},
		"the variable NOPE is not set":     {"--what-if", "--template-file", inside, "p=env:NOPE"},
		"cannot read --size-map":           {"--what-if", "--template-file", inside, "--size-map", "X=1"},
		"cannot read --most":               {"--what-if", "--template-file", inside, "--most", "lots"},
		"cannot read --share":              {"--what-if", "--template-file", inside, "--share", "x"},
		"does not answer":                  {"--what-if", "--template-uri", "https://127.0.0.1:1/x.json?sig=very"},
		"a template has no section \"a\"":  {"--what-if", "--template-file", write(t, `{"a": 1, "resources": []}`)},
		"is no function that asks":         {"--what-if", "--template-file", inside, "--answers", write(t, `{"refrence": {}}`)},
		"this is a template, not a parame": {"--what-if", "--template-file", inside, "--parameters", "@" + inside},
	} {
		if err := (&world{}).run(args...); !strings.Contains(err, words) || strings.Contains(err, "sig=") {
			t.Errorf("%s: %s", words, err)
		}
	}
}

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file.json")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// Linked templates come from beside the template, or from an https server; what comes from there reads no files here.
func TestLinked(t *testing.T) {
	t.Parallel()
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/dir/net.json" || r.URL.RawQuery != "sig=x" {
			http.NotFound(w, r)
			return
		}
		fmt.Fprint(w, `{"resources": []}`)
	}))
	defer server.Close()
	l := &loader{client: server.Client(), note: func(string, ...any) {}}
	f, err := l.Load(server.URL + "/dir/net.json?sig=x")
	if err != nil || string(f.Data) != `{"resources": []}` || strings.Contains(f.Name, "sig") {
		t.Fatal(f, err)
	}
	if _, err := l.Load(server.URL + "/other?sig=x"); err == nil || strings.Contains(err.Error(), "sig") || !strings.Contains(err.Error(), "404") {
		t.Error(err)
	}
	if _, err := l.Load("file:///etc/hostname"); shoal.KindOf(err) != shoal.KindDenied {
		t.Error(err)
	}
	dir := filepath.Dir(write(t, "{}"))
	l.dir, l.own = dir, "own.json"
	if f, err := l.Load("https://127.0.0.1:1/a/b/file.json?sig=x"); err != nil || string(f.Data) != "{}" {
		t.Error(f, err)
	}
	if _, err := l.Load("https://127.0.0.1:1/a/b/own.json"); err == nil {
		t.Error("the template was taken for another")
	}
	if f, err := l.Load("file://" + dir + "/file.json"); err != nil || string(f.Data) != "{}" {
		t.Error(f, err)
	}
	if f, err := l.Load("file.json"); err != nil || string(f.Data) != "{}" {
		t.Error(f, err)
	}
}
