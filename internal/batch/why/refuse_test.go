package why_test

import (
	"strings"
	"testing"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/batch/why"
	"github.com/shoal-pool/shoal/internal/sched"
)

func TestRefuse(t *testing.T) {
	t.Parallel()
	gigabytes := func(n int) shoal.Resources {
		return shoal.Resources{CPUs: shoal.MilliCPU(n) * 1000, Memory: shoal.Bytes(n) << 30}
	}
	p := sched.PoolOf(shoal.Pool{Name: "lab", Uses: []shoal.Use{shoal.UseInteractive, shoal.UseBatch}, Machine: gigabytes(4), Seats: 4, Size: shoal.Size{Max: 3},
		Limits: shoal.Limits{PerUser: shoal.PerUser{CPUs: 8000}, PerGroup: shoal.PerGroup{Memory: 10 << 30}}})
	firmly := false
	for _, r := range []struct {
		job  shoal.JobSpec
		want string
	}{
		{shoal.JobSpec{Resources: gigabytes(1)}, ""},
		{shoal.JobSpec{Resources: gigabytes(1), Preemptible: &firmly}, "must not be preempted"},
		{shoal.JobSpec{Resources: gigabytes(5)}, "even if it were empty"},
		{shoal.JobSpec{Resources: gigabytes(1), Nodes: shoal.Nodes{Min: 4, Max: 4}}, "3 at most"},
		{shoal.JobSpec{Resources: gigabytes(3), Nodes: shoal.Nodes{Min: 3, Max: 3}}, "more than a user"},
		{shoal.JobSpec{Resources: shoal.Resources{Memory: 4 << 30}, Nodes: shoal.Nodes{Min: 3, Max: 3}}, "more than a group"},
	} {
		if got := why.Refuse(p, r.job); (got == "") != (r.want == "") || !strings.Contains(got, r.want) {
			t.Errorf("%+v is refused with %q, want %q", r.job, got, r.want)
		}
	}
}
