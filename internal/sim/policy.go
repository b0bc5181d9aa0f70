package sim

import (
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/scale"
)

// Team is a world of a team's size: so many people, a machine for four of them at most, and a week.
func Team(seed uint64, users int) Config {
	return Config{Seed: seed, Start: time.Date(2026, 5, 4, 0, 0, 0, 0, time.UTC), Length: 7 * 24 * time.Hour,
		Cloud:  Cloud{Boot: 90 * time.Second, Spread: 0.2, Stop: 20 * time.Second, CallFails: 0.01, BootFails: 0.01, Evictions: 0.01, Silences: 0.05, QuotaCuts: 1},
		People: People{Users: users, Comes: 0.75, Weekend: 0.04, Jobs: 3, Tasks: max(users/10, 2)},
		Policy: scale.Decide,
		Pool: shoal.Pool{Name: "lab", Provider: "cloud", Uses: []shoal.Use{shoal.UseInteractive, shoal.UseBatch}, Seats: 4, Placement: shoal.PlacePack,
			Size: shoal.Size{Max: max(users/4, 1)}, Machine: shoal.Resources{CPUs: 4000, Memory: 16 << 30}, Price: shoal.Price{PerHour: 0.4, Currency: "EUR"},
			Scale: shoal.Scale{Idle: shoal.Idle{After: shoal.Duration(15 * time.Minute)}}}}
}

// Compare runs the same week under several policies: a fixed size that is enough at the peak, the article's
// autoscaling, and ours: by demand alone, and with spare seats for the mornings.
func Compare(seed uint64, users int) []Row {
	ours := Run(Team(seed, users))
	mornings := Team(seed, users)
	spare := max(users/25, 1)
	mornings.Pool.Scale.Schedule = []shoal.Window{{Name: "mornings", Days: []string{"mon-fri"}, From: "07:30", To: "10:30", Spare: &spare}}
	metric := Team(seed, users)
	metric.Pool.Name, metric.Pool.Placement, metric.Policy = Careless, shoal.PlaceSpread, scale.Metric()
	metric.Pool = scale.Measured(metric.Pool)
	fixed := Team(seed, users)
	peak := (ours.PeakSessions + fixed.Pool.Seats - 1) / fixed.Pool.Seats
	fixed.Pool.Size, fixed.Pool.Placement = shoal.Size{Min: peak, Max: peak}, shoal.PlaceSpread
	return []Row{{"fixed at the peak", Run(fixed)}, {"article's autoscaling", Run(metric)}, {"shoal, by demand", ours}, {"shoal, spare in the mornings", Run(mornings)}}
}

// Kinds is how many kinds of Varied there are, one after the other by their seeds.
const Kinds = 12

// Varied is a team's world, by its seed one of several kinds. Its pool scales by demand; by rules, over machines on
// which people are spread; or by a schedule that makes the pool small at night, whoever is there. And it has more or
// less trouble: a cloud that is late, one that lies, or a clock that jumps and operators who interfere.
func Varied(seed uint64, users int) Config {
	c := Team(seed, users)
	high, low, one, few := 80.0, 45.0, 1, max(users/50, 1)
	switch seed % 3 {
	case 1:
		c.Pool.Placement = shoal.PlaceSpread
		c.Pool.Scale.Rules = []shoal.Rule{{Metric: shoal.MetricSeats, Above: &high, By: shoal.Step{Machines: 1}, Aggregate: "average"},
			{Metric: shoal.MetricSeats, Below: &low, By: shoal.Step{Machines: 1}, Aggregate: "average"},
			{Metric: shoal.MetricCPU, Above: &high, By: shoal.Step{Percent: 10}, Aggregate: "average", Window: shoal.Duration(5 * time.Minute), Cooldown: shoal.Duration(10 * time.Minute)}}
	case 2:
		c.Pool.Scale.TimeZone = "Europe/Berlin"
		c.Pool.Scale.Schedule = []shoal.Window{{Name: "nights", Days: []string{"mon-sun"}, From: "18:00", To: "06:00", Max: &few},
			{Name: "mornings", Days: []string{"mon-fri"}, From: "07:00", To: "10:00", Min: &one, Spare: &few}}
	}
	switch seed / 3 % 4 {
	case 1:
		c.Cloud.Late, c.Cloud.Halves, c.Cloud.CallFails, c.Cloud.BootHangs = 20*time.Second, 0.2, 0.1, 0.05
		c.Faults.Changes, c.Pool.Rollout.Deadline = 2, shoal.Duration(3*time.Hour)
	case 2:
		c.Cloud.Late, c.Cloud.Lies, c.Cloud.Mutes = 5*time.Second, 0.03, 0.05
	case 3:
		c.Cloud.Mutes = 0.1
		c.Faults = Faults{Jumps: 6, Cordons: 10, Images: 3, Changes: 3, Botched: 1}
	}
	return c
}
