package svg_test

import (
	"bytes"
	"encoding/xml"
	"errors"
	"flag"
	"io"
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shoal-pool/shoal/internal/svg"
)

var update = flag.Bool("update", false, "write the golden files")

func bars() svg.Bars {
	return svg.Bars{Title: "Usage by user", Desc: "from 2026-11-01 to 2026-11-26", Unit: "machine hours", Series: []string{"sessions", "tasks", "idle"},
		Bars: []svg.Bar{
			{Label: "alice", Parts: []float64{120.5, 33, 0}, Note: "153.5 h, 61.40 EUR"}, {Label: "bob", Parts: []float64{0, 88, 0}},
			{Label: "(idle)", Parts: []float64{0, 0, 41}}, {Label: "a <name> & one that is much too long to be shown", Parts: []float64{0.2, math.NaN(), -1}},
		}}
}

func lines() svg.Lines {
	from := time.Date(2026, 11, 2, 0, 0, 0, 0, time.UTC)
	l := svg.Lines{Title: "Machines", Desc: "a week", Unit: "machines", From: from, To: from.AddDate(0, 0, 7),
		Lines: []svg.Line{{Name: "wanted", Steps: true}, {Name: "used"}}}
	for h := range 7 * 24 {
		at := from.Add(time.Duration(h) * time.Hour)
		use := 10 + 9*math.Sin(float64(h)/24*2*math.Pi)
		l.Lines[0].Points = append(l.Lines[0].Points, svg.Point{At: at, Value: math.Ceil(use)})
		l.Lines[1].Points = append(l.Lines[1].Points, svg.Point{At: at, Value: use})
	}
	return l
}

func TestGolden(t *testing.T) {
	t.Parallel()
	for name, got := range map[string][]byte{"bars.svg": bars().SVG(), "lines.svg": lines().SVG(), "empty.svg": svg.Bars{Title: "Nothing", Unit: "hours"}.SVG()} {
		wellFormed(t, got)
		path := filepath.Join("testdata", name)
		if *update {
			if err := os.WriteFile(path, got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), string(got)); diff != "" {
			t.Errorf("%s:\n%s", name, diff)
		}
	}
}

func wellFormed(t *testing.T, text []byte) {
	t.Helper()
	d := xml.NewDecoder(bytes.NewReader(text))
	for {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			t.Fatalf("%v in\n%s", err, text)
		}
	}
}

// Whatever names and numbers there are, the picture can be read and holds no script.
func FuzzBars(f *testing.F) {
	f.Add("alice", "note", 1.0, 2.0)
	f.Add("</text><script>", "\x00\xff\"", math.Inf(1), math.NaN())
	f.Fuzz(func(t *testing.T, label, note string, a, b float64) {
		got := svg.Bars{Title: label, Desc: note, Unit: note, Series: []string{label, note}, Bars: []svg.Bar{{Label: label, Parts: []float64{a, b}, Note: note}}}.SVG()
		wellFormed(t, got)
		for _, bad := range []string{"<script", "NaN", "Inf"} {
			if !bytes.Contains([]byte(label+note), []byte(bad)) && bytes.Contains(got, []byte(bad)) {
				t.Errorf("%q in\n%s", bad, got)
			}
		}
		if bytes.Contains(got, []byte("<script")) {
			t.Error("a script")
		}
		from := time.Unix(0, 0)
		wellFormed(t, svg.Lines{Title: label, From: from, To: from.Add(time.Hour), Lines: []svg.Line{{Name: note, Points: []svg.Point{{At: from, Value: a}, {At: from, Value: b}}}}}.SVG())
	})
}
