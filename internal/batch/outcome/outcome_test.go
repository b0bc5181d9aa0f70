package outcome_test

import (
	"strings"
	"testing"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/batch/outcome"
)

func TestClean(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ in, want string }{
		{" a word\n", "a word"},
		{"a\xffb", "a�b"},
		{strings.Repeat("x", 2000), strings.Repeat("x", 2000)},
		{strings.Repeat("x", 2001), strings.Repeat("x", 2000) + "…"},
		{strings.Repeat("x", 1999) + "€€", strings.Repeat("x", 1999) + "…"},
		{strings.Repeat("x", 1998) + "€€", strings.Repeat("x", 1998) + "…"},
		{strings.Repeat("x", 1997) + "€€", strings.Repeat("x", 1997) + "€…"},
	} {
		if got := outcome.Clean(c.in); got != c.want {
			t.Errorf("%.20q… became …%q", c.in, got[max(0, len(got)-10):])
		}
	}
}

// What a task may have after it ran out of memory, and when it is given up.
func TestMemory(t *testing.T) {
	t.Parallel()
	const gib = shoal.Bytes(1 << 30)
	j := shoal.Job{Spec: shoal.JobSpec{Retries: 3, Retry: &shoal.Retry{Memory: 2}, Resources: shoal.Resources{Memory: gib}}}
	pool := shoal.Pool{Name: "lab", Machine: shoal.Resources{Memory: 8 * gib}}
	for _, c := range []struct {
		user, group, had, next shoal.Bytes
		nodes                  int
		cause                  shoal.Cause
	}{
		{next: 2 * gib, cause: shoal.CauseOOM},
		{had: 6 * gib, next: 8 * gib, cause: shoal.CauseOOM},
		{had: 8 * gib, next: 8 * gib, cause: shoal.CauseOOM}, // as large as machines are: something else may have changed
		{user: 3 * gib, had: 2 * gib, next: 3 * gib, cause: shoal.CauseOOM},
		{user: 3 * gib, had: 3 * gib, cause: shoal.CauseQuota},
		{group: gib, cause: shoal.CauseQuota},
		{user: 8 * gib, group: 4 * gib, had: 2 * gib, nodes: 2, cause: shoal.CauseQuota},
		{user: 8 * gib, had: 2 * gib, nodes: 2, next: 4 * gib, cause: shoal.CauseOOM},
	} {
		p := pool
		p.Limits.PerUser.Memory, p.Limits.PerGroup.Memory = c.user, c.group
		a := shoal.Attempt{State: shoal.JobFailed, Cause: shoal.CauseOOM, Memory: c.had, Members: make([]shoal.Member, c.nodes)}
		outcome.Bound(j, &a, p)
		if a.Cause != c.cause || outcome.Repeats(j, a) != (c.cause == shoal.CauseOOM) {
			t.Errorf("%+v: ended by %s, repeated: %v (%s)", c, a.Cause, outcome.Repeats(j, a), a.Reason)
		}
		if a.Cause == shoal.CauseOOM && outcome.Memory(j, a, p) != c.next {
			t.Errorf("%+v: gets %s", c, outcome.Memory(j, a, p))
		}
	}
}
