package scalings_test

import (
	"testing"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/engine/scalings"
)

func TestTelling(t *testing.T) {
	t.Parallel()
	idle, full := api.Scaling{Sentence: "no change"}, api.Scaling{Sentence: "no change: it may have 1 machine at most"}
	more := api.Scaling{Created: 1, Sentence: "1 machine more"}
	got := ""
	for _, s := range scalings.Telling([]api.Scaling{idle, idle, idle, full, full, idle, idle, more, more, idle}, 10) {
		got += s.Sentence + "\n"
	}
	want := "no change\nno change\nno change: it may have 1 machine at most\n1 machine more\n1 machine more\n"
	if got != want {
		t.Errorf("got:\n%swant:\n%s", got, want)
	}
	if n := len(scalings.Telling([]api.Scaling{more, more, more}, 2)); n != 2 {
		t.Errorf("%d of 2", n)
	}
}

// Loads of a pool without rules are kept as far as they change much; of one with rules, all.
func TestSame(t *testing.T) {
	t.Parallel()
	a, little, much := api.Scaling{CPU: 30}, api.Scaling{CPU: 38}, api.Scaling{CPU: 41}
	for _, c := range []struct {
		b     api.Scaling
		rules bool
		same  bool
	}{{a, true, true}, {little, false, true}, {little, true, false}, {much, false, false}} {
		if scalings.Same(c.b, a, c.rules) != c.same {
			t.Errorf("%+v, with rules %v: same is not %v", c.b, c.rules, c.same)
		}
	}
}

// The load of machines that run is not that of those that start, too.
func TestPast(t *testing.T) {
	t.Parallel()
	past := scalings.Past([]api.Scaling{{At: time.Unix(0, 0), Machines: 5, Running: 2, CPU: 80}, {Machines: 5, CPU: 80}}, shoal.Resources{})
	if past[0].CPU != 160 || past[1].CPU != 400 {
		t.Errorf("%+v", past)
	}
}
