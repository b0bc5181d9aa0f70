package show

import (
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/cli/show/term"
)

// Rollout writes how the machines of a pool are replaced.
func Rollout(w io.Writer, format string, r api.RolloutStatus) error {
	if done, err := AsData(w, format, r); done || err != nil {
		return err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s\n", r.State, term.Clean(r.Sentence))
	if r.Old > 0 {
		fmt.Fprintln(&b, RolloutCounts(r))
	}
	if !r.Ends.IsZero() {
		fmt.Fprintf(&b, "the last old one ends at %s at the latest\n", r.Ends.Local().Format("2006-01-02 15:04"))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// RolloutCounts counts a pool's machines by what a rollout does with them.
func RolloutCounts(r api.RolloutStatus) string {
	return fmt.Sprintf("%d new, %d coming, %d old of which %d take nobody new", r.New, r.Coming, r.Old, r.Draining)
}

// Revisions writes what the machines of a pool were made like.
func Revisions(w io.Writer, format string, all []api.Revision) error {
	return list(w, format, all, []string{"REVISION", "SINCE", "IMAGE", "MACHINE", "SETUP"}, func(v api.Revision) []string {
		setup := ""
		if v.Shape.Setup != nil {
			setup = term.Short(v.Shape.Setup.Command, 40)
		}
		return []string{strconv.Itoa(v.N), Ago(v.At), v.Shape.Image, resources(v.Shape.Machine), setup}
	})
}
