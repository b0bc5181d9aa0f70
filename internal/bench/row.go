package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
)

// Row is one measure, in bench.json as it stands here.
type Row struct {
	Measure string    `json:"measure"`
	Unit    string    `json:"unit"`
	Ours    []float64 `json:"ours"`
	Peer    []float64 `json:"peer"`
	PeerIs  string    `json:"peerIs,omitempty"`
	// Ratio is the median of ours over the median of the peer's; zero without a peer.
	Ratio float64 `json:"ratio"`
	Goal  string  `json:"goal"`
	OK    bool    `json:"ok"`
	Note  string  `json:"note,omitempty"`
}

// goal is a bound on a row: on the ratio, on the median of ours, or on the difference of the medians.
type goal struct {
	of    string // "ratio", "ours" or "difference"
	least bool   // the bound is a minimum
	bound float64
}

func atMost(of string, bound float64) goal  { return goal{of, false, bound} }
func atLeast(of string, bound float64) goal { return goal{of, true, bound} }

// judge fills in ratio, goal and verdict.
func (r Row) judge(g goal) Row {
	if len(r.Peer) > 0 && median(r.Peer) != 0 {
		r.Ratio = median(r.Ours) / median(r.Peer)
	}
	value := map[string]float64{"ratio": r.Ratio, "ours": median(r.Ours), "difference": median(r.Ours) - median(r.Peer)}[g.of]
	sign := "≤"
	if g.least {
		sign = "≥"
	}
	r.Goal = fmt.Sprintf("%s %s %s", g.of, sign, number(g.bound))
	if g.of != "ratio" {
		r.Goal += " " + r.Unit
	}
	r.OK = len(r.Ours) > 0 && !math.IsNaN(value) && (value == g.bound || (value > g.bound) == g.least)
	return r
}

func median(v []float64) float64 {
	if len(v) == 0 {
		return math.NaN()
	}
	s := slices.Sorted(slices.Values(v))
	if n := len(s); n%2 == 0 {
		return (s[n/2-1] + s[n/2]) / 2
	}
	return s[len(s)/2]
}

func number(f float64) string {
	switch {
	case math.IsNaN(f):
		return "-"
	case math.Abs(f) >= 100:
		return fmt.Sprintf("%.0f", f)
	case math.Abs(f) >= 10:
		return fmt.Sprintf("%.1f", f)
	}
	return strings.TrimRight(strings.TrimRight(fmt.Sprintf("%.3f", f), "0"), ".")
}

// table prints the rows for people.
func table(w io.Writer, rows []Row) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "MEASURE\tOURS\tPEER\tRATIO\tGOAL\t")
	for _, r := range rows {
		peer, ratio, verdict := "-", "-", "ok"
		if len(r.Peer) > 0 {
			peer = fmt.Sprintf("%s %s (%s)", number(median(r.Peer)), r.Unit, r.PeerIs)
			ratio = number(r.Ratio)
		}
		if !r.OK {
			verdict = "MISSED"
		}
		fmt.Fprintf(t, "%s\t%s %s\t%s\t%s\t%s\t%s\n", r.Measure, number(median(r.Ours)), r.Unit, peer, ratio, r.Goal, verdict)
	}
	return t.Flush()
}

// save writes bench.json whole.
func save(path string, rows []Row) error {
	b, err := json.MarshalIndent(rows, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(path+".new", append(b, '\n'), 0o644); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}
