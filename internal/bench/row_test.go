package main

import (
	"bytes"
	"strings"
	"testing"
)

func TestJudge(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		row  Row
		goal goal
		ok   bool
	}{
		{"ratio reached", Row{Ours: []float64{4, 6, 5}, Peer: []float64{1, 1, 1}}, atLeast("ratio", 5), true},
		{"ratio missed", Row{Ours: []float64{4, 4}, Peer: []float64{1}}, atLeast("ratio", 5), false},
		{"exactly the bound", Row{Ours: []float64{10}}, atMost("ours", 10), true},
		{"too much", Row{Ours: []float64{10.1}}, atMost("ours", 10), false},
		{"difference", Row{Ours: []float64{1.1}, Peer: []float64{1}}, atMost("difference", 0.15), true},
		{"nothing measured", Row{}, atMost("ours", 1), false},
	} {
		if got := c.row.judge(c.goal); got.OK != c.ok {
			t.Errorf("%s: %+v", c.name, got)
		}
	}
}

func TestTable(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	rows := []Row{Row{Measure: "wake", Unit: "s", Ours: []float64{0.5, 0.75}, Peer: []float64{0.25}, PeerIs: "by hand"}.judge(atMost("ours", 0.6))}
	if err := table(&b, rows); err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"0.625 s", "0.25 s (by hand)", "2.5", "ours ≤ 0.6 s", "MISSED"} {
		if !strings.Contains(b.String(), part) {
			t.Errorf("%q is not in\n%s", part, b.String())
		}
	}
}
