package usage_test

import (
	"strings"
	"testing"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/usage"
)

func TestMonth(t *testing.T) {
	t.Parallel()
	since, until := usage.Month(time.Date(2026, 12, 31, 23, 30, 0, 0, time.FixedZone("", -3600)))
	if since.Format(time.DateOnly) != "2027-01-01" || until.Format(time.DateOnly) != "2027-02-01" {
		t.Error(since, until)
	}
}

// Budgets count what is of their currency, and those that stop refuse whom they are of and nobody else.
func TestStandings(t *testing.T) {
	t.Parallel()
	priced := shoal.Pool{Name: "lab", Price: shoal.Price{PerHour: 3.6, Currency: "EUR"}}
	priced.Scale.Cost.PerMonth = 1
	o := usage.Objects{
		Users:  []shoal.User{{Name: "alice", Budget: shoal.Budget{PerMonth: 0.02, Currency: "EUR", Stop: true}}, {Name: "bob", Budget: shoal.Budget{PerMonth: 0.001, Currency: "USD", Stop: true}}, {Name: "zoe"}},
		Groups: []shoal.Group{{Name: "ops", Budget: shoal.Budget{PerMonth: 0.01, Currency: "EUR"}}},
		Pools:  []shoal.Pool{priced, {Name: "free"}},
	}
	_, until := usage.Month(at(0))
	all := o.Budgets(until)
	in := usage.Input{Since: at(0), Until: at(100), Groups: map[shoal.UserName][]shoal.GroupName{"bob": {"ops"}},
		Intervals: []usage.Interval{machine("m-1", 0, 100), session("s-1", "alice", "m-1", 0, 30), session("s-2", "bob", "m-1", 30, 50)}}
	usage.Stand(all, usage.Bill(in, usage.ByUser), usage.Bill(in, usage.ByGroup), usage.Bill(in, usage.ByPool))
	var said []string
	for _, s := range all {
		said = append(said, s.Sentence())
	}
	got, want := strings.Join(said, "\n"), `group ops has spent 0.020 of the 0.01 EUR of January 1970
pool lab has spent 0.10 of the 1 EUR of January 1970
user alice has spent 0.030 of the 0.02 EUR of January 1970
user bob has spent 0.00 of the 0.001 USD of January 1970`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	for user, refused := range map[shoal.UserName]bool{"alice": true, "bob": false, "zoe": false} {
		if err := usage.Refuse(all, user, []shoal.GroupName{"ops"}); (err != nil) != refused {
			t.Errorf("%s: %v", user, err)
		}
	}
}

func TestMoney(t *testing.T) {
	t.Parallel()
	for amount, want := range map[float64]string{0: "0.00", 12.346: "12.35", 1e6: "1000000.00", 0.5: "0.50", 0.1: "0.10", 0.0999: "0.100", 0.012: "0.012", 0.00123: "0.0012", 4e-6: "0.0000040", 1e-12: "0.000000000", -0.004: "-0.0040"} {
		if got := usage.Money(amount); got != want {
			t.Errorf("%g is written as %s, want %s", amount, got, want)
		}
	}
	for amount, want := range map[float64]string{500: "500", 0.001: "0.001", 1e7: "10000000", 12.5: "12.5"} {
		if got := usage.Exact(amount); got != want {
			t.Errorf("%g is written as %s, want %s", amount, got, want)
		}
	}
}
