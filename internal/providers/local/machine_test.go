package local

import (
	"os"
	"path/filepath"
	"testing"
)

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
