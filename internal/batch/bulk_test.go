package batch_test

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
)

// Jobs submitted in batches by one client. The machines run none of them.
func BenchmarkSubmitBatch(b *testing.B) {
	for _, named := range []bool{false, true} {
		b.Run(fmt.Sprintf("named=%t", named), func(b *testing.B) {
			w := newInstant(b, 0, 1, 0)
			const size = 10_000
			n := 0
			for b.Loop() {
				req := api.BatchRequest{Jobs: make([]shoal.JobSpec, size)}
				for i := range req.Jobs {
					s := shoal.JobSpec{Name: "step", Command: "python3 step.py --part " + strconv.Itoa(i), Env: map[string]string{"A": "some value"}}
					if named {
						s.ExternalID = strconv.Itoa(n*size + i)
						s.Labels = map[string]string{"workflow": "w" + strconv.Itoa(n)}
					}
					req.Jobs[i] = s
				}
				n++
				if r, err := w.SubmitBatch(context.Background(), alice, req, ""); err != nil || r.Items[size-1].ID == "" {
					b.Fatal(r, err)
				}
			}
			b.ReportMetric(float64(size*b.N)/b.Elapsed().Seconds(), "jobs/s")
		})
	}
}

// One client that submits job after job.
func BenchmarkSubmitOne(b *testing.B) {
	w := newInstant(b, 0, 1, 0)
	for b.Loop() {
		w.submit(b, shoal.JobSpec{})
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "jobs/s")
}

// TestPrune: jobs of long ago are known by number and by their user's own name for them, with how they ended.
func TestPrune(t *testing.T) {
	w := newInstant(t, 1, 2, 3)
	ctx := t.Context()
	array := w.submit(t, shoal.JobSpec{Array: "1-150", Name: "old"})
	one, err := w.Submit(ctx, alice, shoal.JobSpec{Command: "true", ExternalID: "mine"}, "")
	if err != nil {
		t.Fatal(err)
	}
	cancelled, err := w.Submit(ctx, alice, shoal.JobSpec{Command: "true", Resources: shoal.Resources{CPUs: 2000}, After: []shoal.Dependency{{Job: string(array.ID)}}}, "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.CancelBatch(ctx, alice, api.CancelRequest{IDs: []shoal.JobID{cancelled.ID}}); err != nil {
		t.Fatal(err)
	}
	w.wait(t, array.ID)
	w.wait(t, one.ID)
	ask := api.StatusRequest{IDs: []shoal.JobID{array.ID, one.ID, "77"}, ExternalIDs: []string{"mine"}}
	before, err := w.Status(ctx, alice, ask)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := w.db.Pack(ctx); n != 150 || err != nil {
		t.Errorf("%d packed, %v", n, err)
	}
	if n, err := w.Prune(ctx, time.Now().Add(-time.Hour)); n != 0 || err != nil {
		t.Errorf("%d forgotten too early, %v", n, err)
	}
	if n, err := w.Prune(ctx, time.Now().Add(time.Hour)); n < 2 || err != nil {
		t.Errorf("%d forgotten, %v", n, err)
	}
	after, err := w.Status(ctx, alice, ask)
	if err != nil {
		t.Fatal(err)
	}
	after.Rev = before.Rev
	if fmt.Sprint(before) != fmt.Sprint(after) || !after.Items[2].Unknown || after.Items[3].ID != one.ID || after.Items[0].Counts.Succeeded != 150 {
		t.Errorf("before %+v\nafter %+v", before, after)
	}
	if other, err := w.Status(ctx, bob, api.StatusRequest{IDs: []shoal.JobID{array.ID}}); err != nil || !other.Items[0].Unknown {
		t.Errorf("another user sees %+v, %v", other, err)
	}
	if again, err := w.Submit(ctx, alice, shoal.JobSpec{Command: "true", ExternalID: "mine"}, ""); err != nil || again.ID != one.ID || again.State != shoal.JobSucceeded {
		t.Errorf("the same name again: %+v, %v", again, err)
	}
	if end, err := w.Wait(ctx, alice, array.ID); err != nil || end.ExitCode != 0 || end.Job.State != shoal.JobSucceeded {
		t.Errorf("waiting for one of long ago: %+v, %v", end, err)
	}
	if end, err := w.Wait(ctx, alice, cancelled.ID); err != nil || end.ExitCode != 125 {
		t.Errorf("waiting for one of long ago that was cancelled: %+v, %v", end, err)
	}
}

// scale is what part of their full size the large measures have: SHOAL_SCALE, or a tenth.
func scale() float64 {
	if f, err := strconv.ParseFloat(os.Getenv("SHOAL_SCALE"), 64); err == nil {
		return f
	}
	return 0.1
}

