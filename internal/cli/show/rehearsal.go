package show

import (
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/cli/show/term"
)

// Rehearsal writes what the autoscaler would do, and would have done, unless it could not be told.
func Rehearsal(w io.Writer, format string, a api.Rehearsal, err error) error {
	switch {
	case err != nil:
		return err
	case format != Table:
		return Data(w, format, a)
	}
	var b strings.Builder
	now := term.Clean(a.Now.Sentence)
	if now == "no change" {
		now += ": nothing is short, and no machine is due to go"
	}
	fmt.Fprintf(&b, "now: %s\n", now)
	for _, r := range a.Now.Reasons {
		if strings.Contains(a.Now.Sentence, r.Sentence) {
			continue
		}
		fmt.Fprintf(&b, "  - %s\n", term.Clean(r.Sentence))
	}
	if a.From.IsZero() {
		b.WriteString("nothing is on record yet that could be gone through\n")
	} else {
		fmt.Fprintf(&b, "\nsince %s:\n", a.From.Local().Format("2006-01-02 15:04"))
		if err := policies(&b, a); err != nil {
			return err
		}
	}
	_, err = io.WriteString(w, b.String())
	return err
}

// policies compares what there was with what there would have been.
func policies(w io.Writer, a api.Rehearsal) error {
	row := func(name string, hours float64, most, made, waits int, waited shoal.Duration, ended int, crowded float64) []string {
		wait := "none"
		if waits > 0 {
			wait = fmt.Sprintf("%d, %s in all", waits, waited)
		}
		return []string{name, strconv.FormatFloat(hours, 'f', 2, 64), strconv.Itoa(most), strconv.Itoa(made), wait, strconv.Itoa(ended), fmt.Sprintf("%.0f%% of the time", 100*crowded)}
	}
	m := a.Metric
	rows := [][]string{
		row("as it was", a.Was, a.WasMost, a.WasMade, a.WasWaits, a.WasWaited, 0, 0)[:5], // whose session ended, and why, is in the events
		row("as rehearsed", a.MachineHours, a.Most, a.Made, a.Waits, a.Waited, 0, 0),
		row("by processor load alone", m.MachineHours, m.Most, m.Made, m.Waits, m.Waited, m.Ended, m.Crowded),
	}
	if a.Fixed > 0 {
		rows = append(rows, row("fixed, a seat for everybody", a.FixedHours, a.Fixed, a.Fixed, 0, 0, 0, 0))
	}
	return term.Table(w, []string{"POLICY", "MACHINE-HOURS", "AT MOST", "STARTED", "LOGINS THAT WAIT", "SESSIONS ENDED", "MORE PEOPLE THAN SEATS"}, rows)
}
