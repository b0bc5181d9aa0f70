package spec_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/spec"
)

// Rules and schedules come back from the documents that are made of them, with their defaults.
func TestScaleThereAndBack(t *testing.T) {
	t.Parallel()
	const text = `
kind: Pool
name: lab
size: {min: 1, max: 8, default: 2}
price: {perHour: 0.5, currency: EUR}
scale:
  timeZone: Europe/Berlin
  rules:
    - {metric: cpu, above: 70, by: 25%}
    - {metric: seats, below: 40, to: 1}
  schedule:
    - {days: [mon-fri], from: "08:00", to: "18:00", min: 2, spare: 3, placement: pack}
    - {name: holiday, dates: [2026-12-24/2026-12-26], max: 0, min: 0}
  cost: {perDay: 5, perMonth: 100}
`
	first, err := spec.Parse(spec.File{Data: []byte(text)})
	if err != nil {
		t.Fatalf("%v %+v", err, shoal.MistakesOf(err))
	}
	s := first.Pools[0].Scale
	if r := s.Rules[0]; r.By != (shoal.Step{Percent: 25}) || r.Window != shoal.Duration(5*time.Minute) || r.Cooldown != r.Window || r.Aggregate != "average" {
		t.Errorf("%+v", r)
	}
	if r := s.Rules[1]; r.To == nil || *r.To != 1 || r.Window != 0 || r.Cooldown != 0 || r.By != (shoal.Step{}) {
		t.Errorf("%+v", r)
	}
	out, err := spec.Documents(first)
	if err != nil {
		t.Fatal(err)
	}
	again, err := spec.Parse(spec.File{Data: out})
	if err != nil {
		t.Fatalf("%v %+v\n%s", err, shoal.MistakesOf(err), out)
	}
	if diff := cmp.Diff(first, again); diff != "" {
		t.Errorf("%s\n%s", diff, out)
	}
}
