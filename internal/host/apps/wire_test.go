package apps

import (
	"bufio"
	"bytes"
	"strings"
	"testing"

	"github.com/shoal-pool/shoal"
)

func TestReadLine(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	long := State{User: "alice"}
	long.Report.Log = strings.Repeat("x", 100<<10)
	for _, s := range []State{{User: "bob"}, long, {User: "carol"}} {
		if err := WriteLine(&b, s); err != nil {
			t.Fatal(err)
		}
	}
	in := bufio.NewReader(&b)
	for _, want := range []State{{User: "bob"}, long, {User: "carol"}} {
		var s State
		if err := ReadLine(in, &s); err != nil || s != want {
			t.Errorf("%v", err)
		}
	}
	if err := ReadLine(bufio.NewReader(strings.NewReader(strings.Repeat("x", 1<<20))), new(State)); err == nil || !strings.Contains(err.Error(), "longer") {
		t.Errorf("%v", err)
	}
}

func TestValidID(t *testing.T) {
	t.Parallel()
	for id, want := range map[string]bool{"a-abc123": true, "": false, "a-": false, "../a-1": false, "a-A": false, "a-1/2": false, "b-1": false, "a-" + strings.Repeat("1", 40): false} {
		if got := ValidID(shoal.AppID(id)); got != want {
			t.Errorf("%q: %v", id, got)
		}
	}
}
