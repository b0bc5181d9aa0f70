package batch_test

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/batch"
	"github.com/shoal-pool/shoal/internal/store"
	"github.com/shoal-pool/shoal/internal/store/storetest"
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

// TestSubmitInterrupted: a server that stops between taking jobs and answering loses none and takes none
// twice, as long as whoever submits them says the same again.
func TestSubmitInterrupted(t *testing.T) {
	db := newInstant(t, 0, 1, 0).db // its own service runs none of this
	const jobs = 300
	var req api.BatchRequest
	for i := range jobs {
		req.Jobs = append(req.Jobs, shoal.JobSpec{Pool: "lab", Command: "true", ExternalID: strconv.Itoa(i)})
	}
	clone := func() api.BatchRequest { return api.BatchRequest{Jobs: slices.Clone(req.Jobs)} }
	var first api.BatchResult
	for round := range 8 {
		b, err := batch.New(batch.Config{Store: db, Dir: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); _ = b.Run(ctx) }()
		time.AfterFunc(time.Duration(round)*3*time.Millisecond, stop)
		result, err := b.SubmitBatch(t.Context(), alice, clone(), "")
		<-done
		if err == nil && first.Items == nil {
			first = result
		}
	}
	b, err := batch.New(batch.Config{Store: db, Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = b.Run(ctx) }()
	defer func() { stop(); <-done }()
	last, err := b.SubmitBatch(ctx, alice, clone(), "")
	if err != nil {
		t.Fatal(err)
	}
	for i, item := range last.Items {
		if item.ID == "" || first.Items != nil && item.ID != first.Items[i].ID {
			t.Errorf("job %d: %+v", i, item)
		}
	}
	all, _, err := b.Jobs(ctx, alice, store.JobFilter{User: "alice"}, "", 1000)
	if err != nil || len(all) != jobs {
		t.Errorf("%d jobs, %v", len(all), err)
	}
}

// TestTwins: the same name twice in one request is one job, or the same refusal twice.
func TestTwins(t *testing.T) {
	w := newInstant(t, 0, 1, 0)
	never := []shoal.Dependency{{Job: "1", Condition: shoal.AfterFailed}}
	storetest.Update(t, w.db, func(tx *store.Tx) error {
		id, err := tx.NextJobID()
		if err != nil {
			return err
		}
		_, err = tx.Jobs().Insert(shoal.Job{ID: id, User: "alice", State: shoal.JobSucceeded, Counts: shoal.Counts{Succeeded: 1}, Spec: shoal.JobSpec{Pool: "lab"}})
		return err
	})
	req := api.BatchRequest{Jobs: []shoal.JobSpec{{Command: "true", ExternalID: "a"}, {Command: "true", ExternalID: "a"}, {Command: "true"}, {Command: "true"},
		{Command: "true", ExternalID: "b", After: never}, {Command: "true", ExternalID: "b", After: never}}}
	r, err := w.SubmitBatch(t.Context(), alice, req, "")
	if err != nil {
		t.Fatal(err)
	}
	i := r.Items
	if i[0].ID == "" || i[1].ID != i[0].ID || i[0].Existing || !i[1].Existing || i[2].ID == "" || i[3].ID == "" || i[2].ID == i[3].ID ||
		i[4].Problem == nil || i[5].Problem == nil || i[5].Existing || i[5].ID != "" {
		t.Errorf("%+v", i)
	}
}

// TestItems: a job's items are stored beside it, and each task is given its own.
func TestItems(t *testing.T) {
	w := newInstant(t, 0, 1, 0)
	items := []shoal.Item{shoal.Item(`"a"`), shoal.Item(`{"x":1}`), shoal.Item(`3`)}
	j, err := w.Submit(t.Context(), alice, shoal.JobSpec{Command: "true", Items: items}, "")
	if err != nil || j.Items != 3 || j.Spec.Items != nil || j.Spec.Array != "0-2" || j.Counts.Queued != 3 {
		t.Fatalf("%+v, %v", j, err)
	}
	storetest.View(t, w.db, func(tx *store.Tx) error {
		for i, want := range items {
			if got, found, err := tx.Item(j.ID, i); err != nil || !found || string(got) != string(want) {
				t.Errorf("item %d: %s, %t, %v", i, got, found, err)
			}
		}
		return nil
	})
}
