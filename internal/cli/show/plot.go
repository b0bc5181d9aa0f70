package show

import (
	"fmt"

	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/svg"
)

// maxPlotted is how many bars a plot has; what is smaller is one bar together.
const maxPlotted = 30

// UsagePlot draws the bill.
func UsagePlot(u api.Usage) []byte {
	const day = "2006-01-02 15:04"
	c := svg.Bars{Title: "Usage by " + u.By, Unit: "machine hours", Series: []string{"sessions", "tasks", "idle"},
		Desc: fmt.Sprintf("from %s to %s: %s", u.Since.Local().Format(day), u.Until.Local().Format(day), priced(u.Total))}
	rows := u.Rows
	if len(rows) > maxPlotted {
		rows = rows[:maxPlotted-1]
	}
	for _, r := range rows {
		c.Bars = append(c.Bars, svg.Bar{Label: r.Key, Parts: []float64{r.SessionSeconds / 3600, r.TaskSeconds / 3600, r.IdleSeconds / 3600}, Note: priced(r)})
	}
	if rest := u.Rows[len(rows):]; len(rest) > 0 {
		other := svg.Bar{Label: fmt.Sprintf("%d more", len(rest)), Parts: make([]float64, 3)}
		for _, r := range rest {
			for i, s := range []float64{r.SessionSeconds, r.TaskSeconds, r.IdleSeconds} {
				other.Parts[i] += s / 3600
			}
		}
		c.Bars = append(c.Bars, other)
	}
	return c.SVG()
}

// priced is a row in short.
func priced(r api.UsageRow) string {
	text := hours(r.MachineSeconds)
	if money := cost(r); r.Cost != 0 {
		text += ", " + money
	}
	return text
}
