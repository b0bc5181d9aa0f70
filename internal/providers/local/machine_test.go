package local

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shoal-pool/shoal"
)

// TestLoad: a record that is cut off is of no machine; one that cannot be read, or was written by a later version, is not taken for
// such, since the machine may run.
func TestLoad(t *testing.T) {
	p := &Provider{cfg: Config{Dir: t.TempDir(), Log: slog.New(slog.DiscardHandler)}, machines: map[shoal.MachineID]*machine{}}
	write := func(id, spec string) {
		if err := os.MkdirAll(p.path("machines", id), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p.path("machines", id, "spec.json"), []byte(spec), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("m-cut", `{"Spec":{"ID":"m-c`)
	write("m-empty", "")
	write("m-whole", `{"Spec":{"ID":"m-whole"},"Want":"run","Host":{"addr":"100.64.0.9"}}`)
	if err := os.Mkdir(p.path("machines", "m-none"), 0o700); err != nil {
		t.Fatal(err)
	}
	if hosts, err := p.load(); err != nil || len(hosts) != 1 || len(p.machines) != 1 {
		t.Errorf("%v, %v", hosts, err)
	}
	for id, make := range map[string]func(id string){
		"m-later": func(id string) { write(id, `{"Spec":{"ID":"m-later"},"Want":{"run":true}}`) },
		"m-away":  func(id string) { _ = os.MkdirAll(p.path("machines", id, "spec.json"), 0o700) },
	} {
		make(id)
		if _, err := p.load(); err == nil || !strings.Contains(err.Error(), id) || !strings.Contains(shoal.HintOf(err), id) {
			t.Errorf("%s: %v, hint %q", id, err, shoal.HintOf(err))
		}
		if err := os.RemoveAll(p.path("machines", id)); err != nil {
			t.Fatal(err)
		}
	}
}

// TestObituary: what people are told of a machine that ended is no line of a log.
func TestObituary(t *testing.T) {
	const ended = "its first process has ended"
	for log, want := range map[string]string{
		"":                          ended,
		"one\nexec: no such file\n": ended + ": exec: no such file",
		`time=2026-11-26T19:00:00.000Z level=WARN msg="the control plane does not answer" error=EOF` + "\n":                          ended,
		`time=2026-11-26T19:00:00.000Z level=ERROR msg="the agent cannot go on" error="cannot read \"join\": it is gone" n=1` + "\n": ended + `: the agent cannot go on: cannot read "join": it is gone`,
		"time=2026-11-26T19:00:00.000Z level=ERROR msg=stuck\n":                                                                      ended + ": stuck",
		"time=2026-11-26T19:00:00.000Z level=ERROR msg=\"cut o":                                                                      ended + ": cut",
	} {
		m := &machine{dir: t.TempDir()}
		if err := os.WriteFile(filepath.Join(m.dir, "init.log"), []byte(log), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := m.obituary(); got != want {
			t.Errorf("%q: %q, not %q", log, got, want)
		}
	}
}
