package show

import (
	"fmt"
	"io"
	"strconv"
	"strings"

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
	fmt.Fprintf(&b, "now: %s\n", term.Clean(a.Now.Sentence))
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
	waited := "none"
	if a.Waits > 0 {
		waited = fmt.Sprintf("%d, %s in all", a.Waits, a.Waited)
	}
	hours := func(h float64) string { return strconv.FormatFloat(h, 'f', 2, 64) }
	rows := [][]string{
		{"as it was", hours(a.Was), strconv.Itoa(a.WasMost)},
		{"as rehearsed", hours(a.MachineHours), strconv.Itoa(a.Most), strconv.Itoa(a.Made), waited},
	}
	if a.Fixed > 0 {
		rows = append(rows, []string{"fixed, a seat for everybody", hours(a.FixedHours), strconv.Itoa(a.Fixed), strconv.Itoa(a.Fixed), "none"})
	}
	return term.Table(w, []string{"POLICY", "MACHINE-HOURS", "MACHINES AT MOST", "STARTED", "LOGINS THAT WAIT"}, rows)
}
