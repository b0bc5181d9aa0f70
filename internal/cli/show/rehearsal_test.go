package show_test

import (
	"strings"
	"testing"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/cli/show"
)

func TestRehearsal(t *testing.T) {
	t.Parallel()
	a := api.Rehearsal{From: time.Date(2026, 5, 4, 8, 0, 0, 0, time.UTC), MachineHours: 4.125, Was: 12.5, Most: 3, Made: 7, Waits: 2,
		Waited: shoal.Duration(90 * time.Second), WasMost: 2, Fixed: 4, FixedHours: 672,
		WasMade: 5, WasWaits: 1, WasWaited: shoal.Duration(40 * time.Second), Metric: api.Rehearsed{MachineHours: 9, Most: 2, Made: 1, Ended: 3, Crowded: 0.424}}
	var b strings.Builder
	if err := show.Rehearsal(&b, show.Table, a, nil); err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(b.String(), "since")
	_, table, _ = strings.Cut(table, "\n")
	want := `POLICY                       MACHINE-HOURS  AT MOST  STARTED  LOGINS THAT WAIT  SESSIONS ENDED  MORE PEOPLE THAN SEATS
as it was                    12.50          2        5        1, 40s in all     -
as rehearsed                 4.12           3        7        2, 1m30s in all   0               0% of the time
by processor load alone      9.00           2        1        none              3               42% of the time
fixed, a seat for everybody  672.00         4        4        none              0               0% of the time
`
	if table != want {
		t.Errorf("got:\n%s\nwant:\n%s", table, want)
	}
}
