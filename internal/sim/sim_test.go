package sim_test

import (
	"flag"
	"testing"
	"time"

	"github.com/shoal-pool/shoal/internal/sim"
)

// The counts are those of `make test`; `make prove` gives larger ones.
var (
	first = flag.Uint64("sim.first", 1, "the first seed")
	weeks = flag.Uint64("sim.weeks", 3, "so many weeks, a seed each")
)

// A week of 200 people and up to 50 machines that come late, fail and are taken away: no invariant is broken, nobody's
// session ends by scaling, every login succeeds, every task is done, and the bill is the cloud's.
func TestWeeks(t *testing.T) {
	t.Parallel()
	for seed := *first; seed < *first+*weeks; seed++ {
		r := sim.Run(sim.Varied(seed))
		if len(r.Breaches) > 0 || r.EndedByScaling > 0 || r.Refused > 0 {
			t.Errorf("seed %d: %d sessions ended by scaling, %d logins refused, breaches: %q", seed, r.EndedByScaling, r.Refused, r.Breaches)
		}
		if r.Logins < 1000 || r.Created < 50 || r.Bill.Total.MachineSeconds == 0 || r.Tasks == 0 || r.TasksDone < r.Tasks*9/10 {
			t.Errorf("seed %d: too little happened: %d logins, %d machines, %d of %d tasks", seed, r.Logins, r.Created, r.TasksDone, r.Tasks)
		}
	}
}

func TestTheSameSeedGivesTheSameWeek(t *testing.T) {
	t.Parallel()
	day := sim.Team(7)
	day.Length = 24 * time.Hour
	a, b := sim.Run(day), sim.Run(day)
	if a.Ledger != b.Ledger || a.Logins != b.Logins || a.Wait(0.95) != b.Wait(0.95) || a.Created != b.Created {
		t.Errorf("%v, %d, %d and %v, %d, %d", a.Ledger, a.Logins, a.Created, b.Ledger, b.Logins, b.Created)
	}
}

// What elasticity is for: at least 60 % cheaper than a fixed size that is enough at the peak, and of twenty logins
// nineteen wait no longer than a machine takes to start, and five seconds.
func TestPolicies(t *testing.T) {
	t.Parallel()
	rows := sim.Compare(*first)
	t.Log("\n" + sim.Table(rows...))
	fixed := rows[0]
	for _, r := range rows[2:] {
		if r.Cost() > 0.4*fixed.Cost() {
			t.Errorf("%s costs %.0f of %.0f", r.Name, r.Cost(), fixed.Cost())
		}
		if most := r.Boot(0.95) + 5*time.Second; r.Wait(0.95) > most {
			t.Errorf("%s: %s is waited, and a machine starts in %s", r.Name, r.Wait(0.95), r.Boot(0.95))
		}
		if r.EndedByScaling > 0 || len(r.Breaches) > 0 {
			t.Errorf("%s: %d sessions ended by scaling, %q", r.Name, r.EndedByScaling, r.Breaches)
		}
	}
}
