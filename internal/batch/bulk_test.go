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

// scale is what part of their full size the large measures have: SHOAL_SCALE, or a tenth.
func scale() float64 {
	if f, err := strconv.ParseFloat(os.Getenv("SHOAL_SCALE"), 64); err == nil {
		return f
	}
	return 0.1
}

var _ = time.Now
