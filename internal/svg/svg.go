package svg

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// The look of all charts, in pixels of the picture.
const (
	width  = 860
	margin = 20
	font   = 13
	letter = 7.8 // about how wide a letter is
	line   = 18
)

// colours are distinct for most eyes, and on both grounds. What has no colour left is grey.
var colours = []string{"#3987c9", "#e08a2e", "#9a9a9a", "#35a57c", "#c2649a", "#b0a030", "#d1584a", "#7a6fd0"}

func colour(i int) string {
	if i < len(colours) {
		return colours[i]
	}
	return "#808080"
}

// style: black on white, or the other way round where the reader wants it so.
const style = `<style>
text{font:13px system-ui,sans-serif;fill:#222}.dim{fill:#666}.head{font-size:17px;font-weight:600}
.ground{fill:#fff}.grid{stroke:#ddd}.axis{stroke:#666}
@media (prefers-color-scheme:dark){text{fill:#eee}.dim{fill:#aaa}.ground{fill:#1c1c1e}.grid{stroke:#3a3a3c}.axis{stroke:#aaa}}
</style>
`

// picture is a drawing in the making.
type picture struct{ b bytes.Buffer }

func (p *picture) addf(format string, args ...any) { fmt.Fprintf(&p.b, format+"\n", args...) }

// text writes at a place. anchor is start, middle or end; class may be empty.
func (p *picture) text(x, y float64, anchor, class, s string) {
	attr := ""
	if anchor != "start" {
		attr += ` text-anchor="` + anchor + `"`
	}
	if class != "" {
		attr += ` class="` + class + `"`
	}
	p.addf(`<text x="%s" y="%s"%s>%s</text>`, num(x), num(y), attr, escape(s))
}

// finish puts the frame around what was drawn.
func (p *picture) finish(title, desc string, height float64) []byte {
	var all bytes.Buffer
	fmt.Fprintf(&all, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%s" viewBox="0 0 %d %s" role="img" aria-labelledby="t d">`+"\n",
		width, num(height), width, num(height))
	fmt.Fprintf(&all, "<title id=\"t\">%s</title>\n<desc id=\"d\">%s</desc>\n%s", escape(title), escape(desc), style)
	fmt.Fprintf(&all, `<rect class="ground" width="%d" height="%s"/>`+"\n", width, num(height))
	all.Write(p.b.Bytes())
	all.WriteString("</svg>\n")
	return all.Bytes()
}

// heading writes the title and what the colours mean, and returns where it ends.
func (p *picture) heading(title, desc string, names []string) float64 {
	y := float64(margin + font)
	p.text(margin, y, "start", "head", clip(title, 90))
	if desc != "" {
		y += line
		p.text(margin, y, "start", "dim", clip(desc, 115))
	}
	if len(names) == 0 {
		return y
	}
	y += line + 6
	x := float64(margin)
	for i, name := range names {
		name = clip(name, 40)
		w := 18 + letter*float64(len([]rune(name))) + 18
		if x+w > width-margin && i > 0 {
			x, y = margin, y+line
		}
		p.addf(`<rect x="%s" y="%s" width="11" height="11" rx="2" fill="%s"/>`, num(x), num(y-10), colour(i))
		p.text(x+17, y, "start", "", name)
		x += w
	}
	return y
}

// ticks are round numbers from 0 up to the first that is not below most; at most eight.
func ticks(most float64) []float64 {
	if !(most > 0) || math.IsInf(most, 0) {
		most = 1
	}
	step := math.Pow(10, math.Floor(math.Log10(most/4)))
	for _, f := range []float64{1, 2, 2.5, 5, 10} {
		if most/(step*f) <= 6 {
			step *= f
			break
		}
	}
	var all []float64
	for i := 0; ; i++ {
		v := float64(i) * step
		all = append(all, v)
		if v >= most*(1-1e-9) || i > 8 {
			return all
		}
	}
}

// Short writes a number for people, with three digits or so that matter.
func Short(v float64) string {
	switch a := math.Abs(v); {
	case math.IsNaN(v) || math.IsInf(v, 0):
		return "?"
	case a >= 1e15:
		return strconv.FormatFloat(v, 'g', 4, 64)
	case a >= 100 || a == math.Trunc(a):
		return strconv.FormatFloat(math.Round(v), 'f', 0, 64)
	case a >= 1:
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return strconv.FormatFloat(v, 'g', 2, 64)
}

// num is a length in the picture.
func num(v float64) string { return strconv.FormatFloat(math.Round(v*10)/10, 'f', -1, 64) }

// clip shortens a text to n letters.
func clip(s string, n int) string {
	if r := []rune(s); len(r) > n {
		return string(r[:n-1]) + "…"
	}
	return s
}

// escape writes a text as XML has it; what XML cannot say becomes U+FFFD.
func escape(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(s)) // a Builder takes everything
	return b.String()
}

// size is a number that can be drawn: what is none, or below nothing, is nothing.
func size(v float64) float64 {
	if !(v > 0) || math.IsInf(v, 0) {
		return 0
	}
	return v
}
