package engine_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/providers/fake"
	"github.com/shoal-pool/shoal/internal/store"
	"github.com/shoal-pool/shoal/internal/store/storetest"
)

func ptr[T any](v T) *T { return &v }

// scalings are the decisions on record about the pool, the newest first.
func (w *world) scalings() (all []api.Scaling) {
	storetest.View(w.t, w.db, func(tx *store.Tx) (err error) {
		all, err = tx.Scalings("lab", time.Time{}, 1000)
		return err
	})
	return all
}

func (w *world) ready() (n int) {
	for _, m := range w.machines() {
		if m.State == shoal.MachineReady {
			n++
		}
	}
	return n
}

// A bubble begins on Saturday, 1 January 2000, at midnight UTC.
func TestScheduleIsFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, fake.Config{}, lab(func(p *shoal.Pool) {
			p.Scale.Schedule = []shoal.Window{{Name: "morning", Days: []string{"sat"}, From: "08:00", To: "10:00", Min: ptr(2)}}
		}))
		time.Sleep(7*time.Hour + 59*time.Minute)
		if n := w.ready(); n != 0 {
			t.Errorf("%d machines before the window", n)
		}
		time.Sleep(3 * time.Minute)
		if n := w.ready(); n != 2 {
			t.Errorf("%d machines in the window", n)
		}
		why, err := w.engine.Load().WhyPool(t.Context(), "lab")
		if err != nil || len(why.Scalings) == 0 || why.Scalings[len(why.Scalings)-1].Window != "morning" || why.Scalings[len(why.Scalings)-1].Created != 2 {
			t.Errorf("%+v, %v", why, err)
		}
		time.Sleep(2*time.Hour + 5*time.Minute)
		if n := w.ready(); n != 0 {
			t.Errorf("%d machines after it", n)
		}
	})
}

func TestRulesAreFollowedAndOnRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		above := shoal.Rule{Metric: shoal.MetricCPU, Aggregate: "average", Window: shoal.Duration(5 * time.Minute), Cooldown: shoal.Duration(10 * time.Minute), Above: ptr(70.0), By: shoal.Step{Machines: 1}}
		w := newWorld(t, fake.Config{}, lab(min1, func(p *shoal.Pool) { p.Scale.Rules = []shoal.Rule{above} }))
		time.Sleep(time.Minute)
		for range 8 { // a load is told again and again, as agents do
			for _, m := range w.machines() {
				w.engine.Load().Seen(m.ID, &shoal.Load{CPUPercent: 95})
			}
			time.Sleep(time.Minute)
		}
		if n := w.ready(); n != 2 {
			t.Fatalf("%d machines while the only one is busy", n)
		}
		found := false
		for _, s := range w.scalings() {
			found = found || s.Created == 1 && strings.Contains(s.Rule, "processors are busy") && s.CPU > 70
		}
		if !found {
			t.Errorf("the decision is not on record: %+v", w.scalings())
		}
		// What was decided outlives the engine: no other machine within the cooldown.
		w.stop()
		w.start()
		time.Sleep(30 * time.Second) // agents come back
		for range 3 {
			for _, m := range w.machines() {
				w.engine.Load().Seen(m.ID, &shoal.Load{CPUPercent: 95})
			}
			time.Sleep(time.Minute)
		}
		if n := len(w.machines()); n != 2 {
			t.Errorf("%d machines within the cooldown", n)
		}
	})
}

func TestCostCeiling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, fake.Config{}, lab(min1, func(p *shoal.Pool) {
			p.Price = shoal.Price{PerHour: 1, Currency: "EUR"}
			p.Scale.Cost = shoal.Ceiling{PerDay: 3}
		}))
		time.Sleep(4 * time.Hour)
		if n := w.ready(); n != 1 {
			t.Fatalf("%d machines: who is there stays", n)
		}
		storetest.Update(t, w.db, func(tx *store.Tx) error {
			p, err := tx.Pools().Get("lab")
			if err == nil {
				p.Size.Min = 3
				_, err = tx.Pools().Put(p)
			}
			return err
		})
		time.Sleep(10 * time.Minute)
		if n := len(w.machines()); n != 1 {
			t.Errorf("%d machines beyond the day's ceiling", n)
		}
		if s := w.scalings()[0]; !strings.Contains(s.Sentence, "cost what they may in a day") || s.SpentDay < 3 {
			t.Errorf("%+v", s)
		}
		time.Sleep(20 * time.Hour)
		if n := w.ready(); n != 3 {
			t.Errorf("%d machines on the next day", n)
		}
	})
}

// An idle system is silent: a day without anybody adds nothing to the record.
func TestNothingToRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, fake.Config{}, lab(min1))
		time.Sleep(time.Hour)
		before := len(w.scalings())
		time.Sleep(24 * time.Hour)
		if after := len(w.scalings()); after != before || before > 5 {
			t.Errorf("%d decisions on record after a day of nothing, %d before: %+v", after, before, w.scalings())
		}
	})
}
