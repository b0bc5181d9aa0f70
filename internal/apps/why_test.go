package apps

import (
	"strings"
	"testing"
	"time"

	"github.com/shoal-pool/shoal"
)

func TestExplain(t *testing.T) {
	t.Parallel()
	now := time.Now()
	pool := shoal.Pool{Scale: shoal.Scale{Idle: shoal.Idle{After: shoal.Duration(30 * time.Minute)}}}
	base := shoal.App{ID: "a-1", User: "alice", Endpoint: "web", Machine: "m-1", State: shoal.AppRunning, Started: now.Add(-time.Hour)}
	for want, change := range map[string]func(*shoal.App){
		"web of alice waits for a machine: waking m-1":                 func(p *shoal.App) { p.State, p.Progress = shoal.AppWaiting, "waking m-1" },
		"web of alice is starting on machine m-1: asked at /":          func(p *shoal.App) { p.State, p.Progress = shoal.AppStarting, "asked at /" },
		"web of alice runs on machine m-1|30m; that was 1h ago":        func(*shoal.App) {},
		"web of alice runs on machine m-1|30m; that was 5m ago":        func(p *shoal.App) { p.LastActivity = now.Add(-5 * time.Minute) },
		"web of alice runs on machine m-1|kernels (2)":                 func(p *shoal.App) { p.Kernels = 2 },
		"web of alice runs on machine m-1|machine m-1 does not answer": func(p *shoal.App) { p.Unknown = true },
		"web of alice runs on machine m-1|its probes fail: 500":        func(p *shoal.App) { p.Ill = "500" },
		"web of alice is to end: alice stopped it":                     func(p *shoal.App) { p.Stopping, p.Reason = true, "alice stopped it" },
		"web of alice has failed: exit code 3|`shoal app show a-1`":    func(p *shoal.App) { p.State, p.Reason, p.Log = shoal.AppFailed, "exit code 3", "x" },
		"web of alice has ended: nobody used it for 30m":               func(p *shoal.App) { p.State, p.Reason = shoal.AppEnded, "nobody used it for 30m" },
	} {
		p := base
		change(&p)
		got, reasons := explain(p, pool, now)
		for _, r := range reasons {
			got += "|" + r.Sentence
		}
		head, rest, _ := strings.Cut(want, "|")
		if !strings.HasPrefix(got, head) || !strings.Contains(got, rest) {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
