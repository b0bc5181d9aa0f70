package main

import (
	"context"
	"time"

	"github.com/shoal-pool/shoal/internal/sim"
)

// scalingRows compares policies over simulated weeks of a team of 200, and takes the time that a week needs.
func scalingRows(_ context.Context, b *bench) error {
	const people = 200
	var took, cost, fixed, waits, boots, ended, metric []float64
	for seed := range uint64(b.rounds) {
		began := time.Now()
		sim.Run(sim.Team(seed, people))
		took = append(took, time.Since(began).Seconds())
		rows := sim.Compare(seed, people)
		ours := rows[len(rows)-1]
		cost, fixed = append(cost, ours.Cost()), append(fixed, rows[0].Cost())
		waits, boots = append(waits, ours.Wait(0.95).Seconds()), append(boots, ours.Boot(0.95).Seconds())
		ended, metric = append(ended, float64(ours.EndedByScaling)), append(metric, float64(rows[1].EndedByScaling))
	}
	note := "a simulated week of 200 people, spare seats in the mornings"
	b.add(Row{Measure: "elastic: what the machines cost", Unit: "EUR", Ours: cost, Peer: fixed, PeerIs: "a fixed size, enough at the peak", Note: note}.judge(atMost("ratio", 0.4)))
	b.add(Row{Measure: "elastic: wait of a login, 19 of 20", Unit: "s", Ours: waits, Peer: boots, PeerIs: "start of a machine, 19 of 20", Note: note}.judge(atMost("difference", 5)))
	b.add(Row{Measure: "elastic: sessions ended by scaling", Unit: "sessions", Ours: ended, Peer: metric, PeerIs: "the article's metric autoscale", Note: note}.judge(atMost("ours", 0)))
	b.add(Row{Measure: "elastic: simulating a week of 200 people and 50 machines", Unit: "s", Ours: took}.judge(atMost("ours", 10)))
	return nil
}
