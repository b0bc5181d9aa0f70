package svg

import "strings"

// Bars is a chart of bars, one below the other, each of parts in a row.
type Bars struct {
	Title, Desc string
	Unit        string   // of the numbers, "hours"
	Series      []string // what the parts of each bar are
	Bars        []Bar
}

// Bar is one bar.
type Bar struct {
	Label string
	Parts []float64 // one of each series
	Note  string    // written behind it in place of the sum
}

const (
	barHeight = 20
	barStep   = 29
	maxLabel  = 26
)

// SVG draws the chart.
func (c Bars) SVG() []byte {
	var p picture
	top := p.heading(c.Title, c.Desc, c.Series) + 16
	label, note, most := 4, 1, 0.0
	for _, b := range c.Bars {
		label = max(label, min(len([]rune(b.Label)), maxLabel))
		note = max(note, len([]rune(b.note())))
		most = max(most, b.sum())
	}
	left := margin + letter*float64(label) + 12
	room := width - margin - left - letter*float64(note) - 12
	marks := ticks(most)
	scale := room / marks[len(marks)-1]
	bottom := top + barStep*float64(max(len(c.Bars), 1))
	for _, v := range marks {
		x := left + v*scale
		p.addf(`<line class="grid" x1="%s" y1="%s" x2="%s" y2="%s"/>`, num(x), num(top), num(x), num(bottom))
		p.text(x, bottom+line, "middle", "dim", Short(v))
	}
	if len(c.Bars) == 0 {
		p.text(left+8, top+barHeight, "start", "dim", "nothing")
	}
	for i, b := range c.Bars {
		y := top + barStep*float64(i) + (barStep-barHeight)/2
		p.addf(`<g role="img" aria-label="%s"><title>%s</title>`, escape(c.say(b)), escape(c.say(b)))
		p.text(left-10, y+barHeight-5, "end", "", clip(b.Label, maxLabel))
		x := left
		for j, v := range b.Parts {
			w := size(v) * scale
			if w > 0 {
				p.addf(`<rect x="%s" y="%s" width="%s" height="%d" fill="%s"/>`, num(x), num(y), num(w), barHeight, colour(j))
			}
			x += w
		}
		p.text(x+7, y+barHeight-5, "start", "dim", b.note())
		p.addf(`</g>`)
	}
	p.addf(`<line class="axis" x1="%s" y1="%s" x2="%s" y2="%s"/>`, num(left), num(top), num(left), num(bottom))
	p.text(left+room/2, bottom+2*line+2, "middle", "dim", c.Unit)
	return p.finish(c.Title, c.Desc, bottom+2*line+margin)
}

func (b Bar) sum() (total float64) {
	for _, v := range b.Parts {
		total += size(v)
	}
	return total
}

func (b Bar) note() string {
	if b.Note != "" {
		return clip(b.Note, 30)
	}
	return Short(b.sum())
}

// say is a bar in words.
func (c Bars) say(b Bar) string {
	words := make([]string, 0, len(b.Parts))
	for i, v := range b.Parts {
		if i < len(c.Series) && size(v) > 0 {
			words = append(words, c.Series[i]+" "+Short(v))
		}
	}
	return b.Label + ": " + Short(b.sum()) + " " + c.Unit + " (" + strings.Join(words, ", ") + ")"
}
