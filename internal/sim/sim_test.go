package sim_test

import (
	"flag"
	"testing"
	"time"

	"github.com/shoal-pool/shoal/internal/sim"
)

// The counts are those of `make test`: every kind of world, of a small team, for a day and a half. `make prove` gives
// a team of two hundred, and weeks.
var (
	first  = flag.Uint64("sim.first", 0, "the first seed")
	worlds = flag.Uint64("sim.worlds", sim.Kinds, "so many worlds, a seed each")
	people = flag.Int("sim.people", 40, "so many users, and a quarter as many machines at most")
	length = flag.Duration("sim.length", 36*time.Hour, "for so long")
)

// Clouds that come late, fail, lie and take machines away, clocks that jump, agents that fall silent, operators, newer
// images: no invariant is broken, nobody's session ends by scaling, every login succeeds, tasks are done, and the bill
// is the cloud's.
func TestWorlds(t *testing.T) {
	t.Parallel()
	var faults sim.Result
	for seed := *first; seed < *first+*worlds; seed++ {
		c := sim.Varied(seed, *people)
		c.Length = *length
		r := sim.Run(c)
		if len(r.Breaches) > 0 || r.EndedByScaling > 0 || r.Refused > 0 {
			t.Errorf("seed %d: %d sessions ended by scaling, %d logins refused, breaches: %q", seed, r.EndedByScaling, r.Refused, r.Breaches)
		}
		if r.Logins < *people || r.Created < 3 || r.Bill.Total.MachineSeconds == 0 || r.TasksDone == 0 {
			t.Errorf("seed %d: too little happened: %d logins, %d machines, %d of %d tasks", seed, r.Logins, r.Created, r.TasksDone, r.Tasks)
		}
		faults.Lies, faults.Jumped, faults.Closed, faults.Rolled = faults.Lies+r.Lies, faults.Jumped+r.Jumped, faults.Closed+r.Closed, faults.Rolled+r.Rolled
		faults.EndedByDeadline += r.EndedByDeadline
	}
	if *worlds >= sim.Kinds && (faults.Lies == 0 || faults.Jumped == 0 || faults.Closed == 0 || faults.Rolled == 0 || faults.EndedByDeadline == 0) {
		t.Errorf("too little went wrong: %d lies, %s of jumps, %d machines closed, %d replaced, %d sessions ended by a deadline", faults.Lies, faults.Jumped, faults.Closed, faults.Rolled, faults.EndedByDeadline)
	}
}

func TestTheSameSeedGivesTheSameWeek(t *testing.T) {
	t.Parallel()
	for _, seed := range []uint64{3, 6, 9} {
		day := sim.Varied(seed, 40)
		day.Length = 18 * time.Hour
		a, b := sim.Run(day), sim.Run(day)
		if a.Ledger != b.Ledger || a.Logins != b.Logins || a.Wait(0.95) != b.Wait(0.95) || a.Created != b.Created {
			t.Errorf("seed %d: %v, %d, %d and %v, %d, %d", seed, a.Ledger, a.Logins, a.Created, b.Ledger, b.Logins, b.Created)
		}
	}
}

// What elasticity is for: at least 60 % cheaper than a fixed size that is enough at the peak, and of twenty logins
// nineteen wait no longer than a machine takes to start, and five seconds.
func TestPolicies(t *testing.T) {
	t.Parallel()
	rows := sim.Compare(*first, *people)
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
