package show

import (
	"encoding/csv"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/cli/show/term"
	"github.com/shoal-pool/shoal/internal/usage"
)

// Usage writes the bill.
func Usage(w io.Writer, format string, u api.Usage) error {
	switch format {
	case Table:
		return bill(w, u)
	case CSV:
		return sheet(w, u)
	}
	return Data(w, format, u)
}

func bill(w io.Writer, u api.Usage) error {
	row := func(r api.UsageRow, key string) []string {
		return []string{key, hours(r.MachineSeconds), hours(r.SessionSeconds), hours(r.TaskSeconds), hours(r.IdleSeconds), cost(r)}
	}
	var rows [][]string
	for _, r := range u.Rows {
		rows = append(rows, row(r, r.Key))
	}
	if len(u.Rows) != 1 {
		rows = append(rows, row(u.Total, "total"))
	}
	header := []string{map[string]string{"user": "USER", "group": "GROUP", "pool": "POOL", "job": "JOB", "machine": "MACHINE"}[u.By], "MACHINE", "SESSION", "TASK", "IDLE", "COST"}
	if header[0] == "" {
		header[0] = "KEY"
	}
	return term.Table(w, header, rows)
}

// hours writes seconds as a person adds them up: "42.0s", "12.5m", "3.2h".
func hours(seconds float64) string {
	switch {
	case seconds == 0:
		return "0"
	case seconds < 120:
		return fmt.Sprintf("%.1fs", seconds)
	case seconds < 2*60*60:
		return fmt.Sprintf("%.1fm", seconds/60)
	}
	return fmt.Sprintf("%.1fh", seconds/3600)
}

func cost(r api.UsageRow) string {
	if r.Cost == 0 {
		return ""
	}
	return usage.Money(r.Cost) + " " + r.Currency
}

func sheet(out io.Writer, u api.Usage) error {
	w := csv.NewWriter(out)
	rows := [][]string{{u.By, "machineSeconds", "sessionSeconds", "taskSeconds", "idleSeconds", "cost", "currency"}}
	for _, r := range u.Rows {
		n := func(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) }
		rows = append(rows, []string{r.Key, n(r.MachineSeconds), n(r.SessionSeconds), n(r.TaskSeconds), n(r.IdleSeconds), n(r.Cost), r.Currency})
	}
	return w.WriteAll(rows)
}

// shownEvents bounds how many events an answer shows: the newest.
const shownEvents = 10

// Why writes the answer to a why.
func Why(w io.Writer, format string, a api.Why) error {
	if format != Table {
		return Data(w, format, a)
	}
	var b strings.Builder
	b.WriteString(term.Clean(a.Sentence) + since(a.Since) + "\n")
	for _, r := range a.Reasons {
		if !strings.Contains(a.Sentence, r.Sentence) {
			b.WriteString("  - " + term.Clean(r.Sentence) + "\n")
		}
	}
	scalings := a.Scalings[:min(len(a.Scalings), shownEvents)]
	if len(scalings) > 0 {
		b.WriteString("\nWhat the autoscaler decided:\n")
	}
	for _, s := range scalings {
		b.WriteString("  " + scalingLine(s) + "\n")
	}
	events := a.Events
	if len(events) > shownEvents {
		events = events[len(events)-shownEvents:]
	}
	if len(events) > 0 {
		b.WriteString("\nWhat happened:\n")
	}
	for _, e := range events {
		b.WriteString("  " + eventLine(e) + "\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// scalingLine is a decision of the autoscaler and what it saw.
func scalingLine(s api.Scaling) string {
	return fmt.Sprintf("%s  %s; %s, %s waiting, %s queued: %s", s.At.Local().Format("2006-01-02 15:04:05"), Many(s.Machines, "machine"), Many(s.Sessions, "session"),
		Many(s.Waiting, "login"), Many(s.Queue, "task"), term.Clean(s.Sentence))
}

// since says from when on something is as it is.
func since(t time.Time) string {
	switch ago := Ago(t); ago {
	case "":
		return ""
	case "now":
		return " (just now)"
	default:
		return " (since " + t.Local().Format("2006-01-02 15:04:05") + ", " + ago + ")"
	}
}

// Event writes one event: as a line, also in JSON, or as a document.
func Event(w io.Writer, format string, e shoal.Event) error {
	switch format {
	case JSON:
		return encode(w, e, "")
	case YAML:
		if _, err := io.WriteString(w, "---\n"); err != nil {
			return err
		}
		return Data(w, format, e)
	}
	_, err := fmt.Fprintln(w, eventLine(e))
	return err
}

func eventLine(e shoal.Event) string {
	return fmt.Sprintf("%s  %-8s %-12s %s", e.Time.Local().Format("2006-01-02 15:04:05"), strings.ToLower(string(e.Kind)), term.Clean(e.Name), term.Clean(e.Sentence))
}
