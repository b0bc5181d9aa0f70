package batch_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"sort"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/batch"
	"github.com/shoal-pool/shoal/internal/store"
	"github.com/shoal-pool/shoal/internal/store/storetest"
)

// instant is a batch service whose machines end each task as soon as they hear of it.
type instant struct {
	*batch.Batch
	db     *store.DB
	output int // bytes each task writes
	inbox  map[shoal.MachineID]chan shoal.AttemptRef
	placed func(shoal.AttemptRef)
	stop   func()
}

func newInstant(tb testing.TB, machines, slots, output int) *instant {
	dir := tb.TempDir()
	db := storetest.OpenAt(tb, filepath.Join(dir, "shoal.db"))
	size := shoal.Resources{CPUs: shoal.MilliCPU(1000 * slots), Memory: shoal.Bytes(slots) << 30}
	w := &instant{db: db, output: output, inbox: map[shoal.MachineID]chan shoal.AttemptRef{}}
	storetest.Update(tb, db, func(tx *store.Tx) error {
		if _, err := tx.Users().Put(shoal.User{Name: "alice"}); err != nil {
			return err
		}
		if _, err := tx.Pools().Put(shoal.Pool{Name: "lab", Uses: []shoal.Use{shoal.UseBatch}, Machine: size}); err != nil {
			return err
		}
		for i := range machines {
			id := shoal.MachineID(fmt.Sprintf("m-%d", i))
			w.inbox[id] = make(chan shoal.AttemptRef, 100_000)
			if _, err := tx.Machines().Put(shoal.Machine{ID: id, Pool: "lab", State: shoal.MachineReady, Wanted: shoal.WantRun, Health: shoal.HealthUp, Epoch: 1, Resources: size}); err != nil {
				return err
			}
		}
		return nil
	})
	var err error
	if w.Batch, err = batch.New(batch.Config{Store: db, Dir: filepath.Join(dir, "output"), Send: w.send}); err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = w.Run(ctx) })
	for id := range w.inbox {
		wg.Go(func() { w.work(ctx, tb, id) })
	}
	w.stop = func() { cancel(); wg.Wait() }
	tb.Cleanup(w.stop)
	return w
}

func (w *instant) send(id shoal.MachineID, r api.Record) bool {
	if r.Run != nil {
		if w.placed != nil {
			w.placed(r.Run.Ref)
		}
		w.inbox[id] <- r.Run.Ref
	}
	return true
}

// work reports the ends of what has come in, as an agent does: what came meanwhile goes together.
func (w *instant) work(ctx context.Context, tb testing.TB, id shoal.MachineID) {
	data := make([]byte, w.output)
	for {
		var reports []api.TaskReport
		var output []api.Output
		select {
		case <-ctx.Done():
			return
		case ref := <-w.inbox[id]:
			for more := true; more; {
				now := time.Now()
				reports = append(reports, api.TaskReport{Ref: ref, State: shoal.JobSucceeded, Cause: shoal.CauseExit, Started: now, Ended: now, StdoutBytes: int64(w.output)})
				if w.output > 0 {
					output = append(output, api.Output{Ref: ref, Stream: "stdout", Data: data})
				}
				select {
				case ref = <-w.inbox[id]:
				default:
					more = false
				}
			}
		}
		if _, err := w.Report(ctx, id, reports, output); err != nil && ctx.Err() == nil {
			tb.Error(err)
			return
		}
	}
}

func (w *instant) submit(tb testing.TB, s shoal.JobSpec) shoal.Job {
	s.Command = "true"
	j, err := w.Submit(context.Background(), alice, s, "")
	if err != nil {
		tb.Fatal(err)
	}
	return j
}

func (w *instant) wait(tb testing.TB, id shoal.JobID) {
	if end, err := w.Wait(context.Background(), alice, id); err != nil || end.Job.State != shoal.JobSucceeded {
		tb.Fatalf("%+v, %v", end, err)
	}
}

// An array of tasks that take no time: what the server alone can do.
func BenchmarkArray(b *testing.B) {
	for _, c := range []struct{ tasks, machines, slots, output int }{{1000, 4, 2, 0}, {10_000, 4, 2, 0}, {10_000, 4, 16, 0}, {10_000, 50, 4, 0}, {10_000, 4, 16, 10}} {
		b.Run(fmt.Sprintf("tasks=%d,machines=%d,slots=%d,output=%d", c.tasks, c.machines, c.slots, c.output), func(b *testing.B) {
			w := newInstant(b, c.machines, c.slots, c.output)
			for b.Loop() {
				w.wait(b, w.submit(b, shoal.JobSpec{Array: fmt.Sprintf("1-%d", c.tasks)}).ID)
			}
			b.ReportMetric(float64(c.tasks*b.N)/b.Elapsed().Seconds(), "tasks/s")
		})
	}
}

// Jobs of one task each, submitted by 8 clients.
func BenchmarkJobs(b *testing.B) {
	w := newInstant(b, 4, 16, 0)
	const clients, each = 8, 100
	for b.Loop() {
		var wg sync.WaitGroup
		for range clients {
			wg.Go(func() {
				var ids []shoal.JobID
				for range each {
					ids = append(ids, w.submit(b, shoal.JobSpec{}).ID)
				}
				for _, id := range ids {
					w.wait(b, id)
				}
			})
		}
		wg.Wait()
	}
	b.ReportMetric(float64(clients*each*b.N)/b.Elapsed().Seconds(), "jobs/s")
}

// From the call of Submit on an idle pool until the agent is told.
func BenchmarkLatency(b *testing.B) {
	w := newInstant(b, 4, 2, 0)
	told := make(chan time.Time, 1)
	w.placed = func(shoal.AttemptRef) { told <- time.Now() }
	var all []time.Duration
	for b.Loop() {
		start := time.Now()
		j := w.submit(b, shoal.JobSpec{})
		all = append(all, (<-told).Sub(start))
		w.wait(b, j.ID)
	}
	sort.Slice(all, func(i, k int) bool { return all[i] < all[k] })
	b.ReportMetric(float64(all[len(all)/2].Microseconds()), "µs-median")
	b.ReportMetric(float64(all[len(all)*99/100].Microseconds()), "µs-p99")
}

// TestMemory measures what a hundred thousand waiting tasks take.
func TestMemory(t *testing.T) {
	if os.Getenv("BATCH_MEMORY") == "" {
		t.Skip("set BATCH_MEMORY=1")
	}
	for name, submit := range map[string]func(*instant){
		"array": func(w *instant) { w.submit(t, shoal.JobSpec{Array: "1-100000"}) },
		"jobs": func(w *instant) {
			var wg sync.WaitGroup
			for c := range 100 {
				wg.Go(func() {
					for i := range 1000 {
						w.submit(t, shoal.JobSpec{Name: "job-" + strconv.Itoa(c*1000+i), Env: map[string]string{"A": "some value"}})
					}
				})
			}
			wg.Wait()
		},
	} {
		t.Run(name, func(t *testing.T) {
			start := time.Now()
			w := newInstant(t, 0, 1, 0)
			before := heap()
			submit(w)
			t.Logf("submitted in %v; heap +%d MB, resident %s", time.Since(start).Round(time.Millisecond), (heap()-before)>>20, resident())
			w.stop()
			start = time.Now()
			again, err := batch.New(batch.Config{Store: w.db, Dir: t.TempDir()})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() { defer close(done); _ = again.Run(ctx) }()
			if _, err := again.Report(ctx, "m-1", []api.TaskReport{{State: shoal.JobRunning}}, nil); err != nil {
				t.Fatal(err)
			}
			t.Logf("read again in %v; resident %s", time.Since(start).Round(time.Millisecond), resident())
			cancel()
			<-done
		})
	}
}

func heap() int64 {
	debug.FreeOSMemory()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func resident() string {
	data, _ := os.ReadFile("/proc/self/statm")
	var size, pages int
	_, _ = fmt.Sscan(string(data), &size, &pages)
	return fmt.Sprintf("%d MB", pages*os.Getpagesize()>>20)
}
