package svg

import (
	"strings"
	"time"
)

// Lines is a chart of values over time.
type Lines struct {
	Title, Desc string
	Unit        string
	From, To    time.Time
	Lines       []Line
}

// Line is one line. Its points follow each other in time.
type Line struct {
	Name   string
	Points []Point
	Steps  bool // a value holds until the next one
}

// Point is a value at a time.
type Point struct {
	At    time.Time
	Value float64
}

const linesHeight = 300

// SVG draws the chart.
func (c Lines) SVG() []byte {
	var p picture
	names := make([]string, len(c.Lines))
	most := 0.0
	for i, l := range c.Lines {
		names[i] = l.Name
		for _, v := range l.Points {
			most = max(most, size(v.Value))
		}
	}
	top := p.heading(c.Title, c.Desc, names) + 20
	marks := ticks(most)
	widest := 0
	for _, v := range marks {
		widest = max(widest, len(Short(v)))
	}
	left := margin + letter*float64(widest) + line + 8
	right, bottom := float64(width-margin-10), top+linesHeight
	scale := linesHeight / marks[len(marks)-1]
	for _, v := range marks {
		y := bottom - v*scale
		p.addf(`<line class="grid" x1="%s" y1="%s" x2="%s" y2="%s"/>`, num(left), num(y), num(right), num(y))
		p.text(left-8, y+4, "end", "dim", Short(v))
	}
	p.addf(`<text transform="translate(%d %s) rotate(-90)" text-anchor="middle" class="dim">%s</text>`, margin+2, num((top+bottom)/2), escape(c.Unit))
	span := c.To.Sub(c.From)
	at := func(t time.Time) float64 {
		if span <= 0 {
			return left
		}
		return left + (right-left)*min(max(float64(t.Sub(c.From))/float64(span), 0), 1)
	}
	const parts = 4
	for i := range parts + 1 {
		t := c.From.Add(span / parts * time.Duration(i))
		anchor := "middle"
		if i == parts {
			anchor = "end"
		}
		p.text(at(t), bottom+line, anchor, "dim", t.Format(layout(span)))
	}
	for i, l := range c.Lines {
		p.addf(`<path d="%s" fill="none" stroke="%s" stroke-width="2" stroke-linejoin="round"><title>%s</title></path>`,
			l.path(at, func(v float64) float64 { return bottom - size(v)*scale }, right), colour(i), escape(l.Name))
	}
	p.addf(`<line class="axis" x1="%s" y1="%s" x2="%s" y2="%s"/>`, num(left), num(bottom), num(right), num(bottom))
	return p.finish(c.Title, c.Desc, bottom+line+margin)
}

func (l Line) path(x func(time.Time) float64, y func(float64) float64, end float64) string {
	var b strings.Builder
	for i, v := range l.Points {
		switch {
		case i == 0:
			b.WriteString("M" + num(x(v.At)) + " " + num(y(v.Value)))
		case l.Steps:
			b.WriteString("H" + num(x(v.At)) + "V" + num(y(v.Value)))
		default:
			b.WriteString("L" + num(x(v.At)) + " " + num(y(v.Value)))
		}
	}
	if l.Steps && len(l.Points) > 0 {
		b.WriteString("H" + num(end))
	}
	return b.String()
}

// layout is how times of a span are written below it.
func layout(span time.Duration) string {
	switch {
	case span > 60*24*time.Hour:
		return "2 Jan 2006"
	case span > 24*time.Hour:
		return "2 Jan 15:04"
	}
	return "15:04"
}
