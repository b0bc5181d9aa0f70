package show

import (
	"fmt"
	"io"
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
	waited := "no login would have waited"
	if a.Waits > 0 {
		waited = fmt.Sprintf("%s would have waited, %s in all", Many(a.Waits, "login"), a.Waited)
	}
	if a.From.IsZero() {
		b.WriteString("nothing is on record yet that could be gone through\n")
	} else {
		fmt.Fprintf(&b, "since %s: %.2f machine-hours instead of %.2f, %s at most and %d started, %s\n", a.From.Local().Format("2006-01-02 15:04"), a.MachineHours, a.Was, Many(a.Most, "machine"), a.Made, waited)
	}
	_, err = io.WriteString(w, b.String())
	return err
}
