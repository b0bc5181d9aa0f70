package httpapi_test

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"testing"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/client"
	"github.com/shoal-pool/shoal/internal/access"
)

// step is a job as a workflow engine sends it, of which none fits the machine just now.
func step(i int) shoal.JobSpec {
	return shoal.JobSpec{Pool: "lab", Name: "step", Command: "python3 step.py --part " + strconv.Itoa(i), Env: map[string]string{"A": "some value"},
		Resources: shoal.Resources{CPUs: 4000, Memory: 1 << 30}, ExternalID: "e" + strconv.Itoa(i), Labels: map[string]string{"workflow": "w" + strconv.Itoa(i/10_000)}}
}

// blocked is a client of a world whose machine takes nobody.
func blocked(b *testing.B) *client.Client {
	w := newWorld(b)
	if _, err := w.cfg.Engine.Drain(context.Background(), access.Subject{Host: true}, "m-1", api.DrainRequest{Reason: "bench"}); err != nil {
		b.Fatal(err)
	}
	return w.client(w.tokens["alice"])
}

// Jobs submitted through POST /jobs:batch, and asked about.
func BenchmarkBatch(b *testing.B) {
	c := blocked(b)
	n := 0
	var last api.BatchResult
	b.Run("submit", func(b *testing.B) {
		for b.Loop() {
			req := api.BatchRequest{Jobs: make([]shoal.JobSpec, api.MaxBatch)}
			for i := range req.Jobs {
				req.Jobs[i] = step(n)
				n++
			}
			var err error
			if last, err = c.SubmitBatch(context.Background(), req, ""); err != nil || last.Items[0].ID == "" {
				b.Fatal(last.Items[0], err)
			}
		}
		b.ReportMetric(float64(api.MaxBatch*b.N)/b.Elapsed().Seconds(), "jobs/s")
	})
	b.Run("status", func(b *testing.B) {
		var ask api.StatusRequest
		for _, item := range last.Items {
			ask.IDs = append(ask.IDs, item.ID)
		}
		for b.Loop() {
			if r, err := c.JobStatus(context.Background(), ask); err != nil || len(r.Items) != api.MaxBatch || r.Items[0].Unknown {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(api.MaxBatch*b.N)/b.Elapsed().Seconds(), "jobs/s")
	})
}

// Jobs submitted one by one through POST /jobs.
func BenchmarkSubmit(b *testing.B) {
	for _, clients := range []int{1, 8, 32} {
		b.Run(fmt.Sprintf("clients=%d", clients), func(b *testing.B) {
			c := blocked(b)
			const each = 50
			n := 0
			for b.Loop() {
				var wg sync.WaitGroup
				for k := range clients {
					wg.Go(func() {
						for i := range each {
							if _, err := c.Submit(context.Background(), step(n+k*each+i), ""); err != nil {
								b.Error(err)
								return
							}
						}
					})
				}
				wg.Wait()
				n += clients * each
			}
			b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "jobs/s")
		})
	}
}
