package admit_test

import (
	"strings"
	"testing"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/batch/admit"
)

func TestCheck(t *testing.T) {
	const gib = 1 << 30
	pool := shoal.Pool{Name: "lab", Uses: []shoal.Use{shoal.UseInteractive, shoal.UseBatch}, Machine: shoal.Resources{CPUs: 4000, Memory: 8 * gib, GPUs: 2},
		Size: shoal.Size{Max: 3}, Seats: 2, Seat: shoal.Resources{CPUs: 1000, Memory: 2 * gib},
		Limits: shoal.Limits{MaxTimeLimit: shoal.Duration(time.Hour), PerUser: shoal.PerUser{GPUs: 3, CPUs: 8000}, PerGroup: shoal.PerGroup{Memory: 12 * gib}}}
	small := shoal.Resources{CPUs: 1000, Memory: gib}
	no := false
	for _, c := range []struct {
		spec shoal.JobSpec
		says string
	}{
		{shoal.JobSpec{Resources: small}, ""},
		{shoal.JobSpec{Resources: pool.Machine}, ""},
		{shoal.JobSpec{Resources: shoal.Resources{CPUs: 5000, Memory: gib}}, "it asks for 5 processors, and a machine of pool lab has 4 processors, 8GiB of memory and 2 GPUs"},
		{shoal.JobSpec{Resources: small, Nodes: shoal.Fixed(3)}, ""},
		{shoal.JobSpec{Resources: small, Nodes: shoal.Nodes{Min: 2, Max: 9}}, ""},
		{shoal.JobSpec{Resources: small, Nodes: shoal.Fixed(4)}, "it asks for 4 machines at once, and pool lab has 3 at most"},
		{shoal.JobSpec{Resources: small, TimeLimit: shoal.Duration(2 * time.Hour)}, "its time limit of 2h is longer than the 1h that pool lab allows"},
		{shoal.JobSpec{Resources: shoal.Resources{CPUs: 1000, Memory: gib, GPUs: 2}, Nodes: shoal.Fixed(2)}, "a task of it asks for 4 GPUs, and a user may hold 3 GPUs in pool lab"},
		{shoal.JobSpec{Resources: shoal.Resources{CPUs: 3000, Memory: 6 * gib}, Nodes: shoal.Fixed(3)}, "a task of it asks for 9 processors, and a user may hold 8 processors"},
		{shoal.JobSpec{Resources: shoal.Resources{CPUs: 1000, Memory: 5 * gib}, Nodes: shoal.Fixed(3)}, "a task of it asks for 15GiB of memory, and a group may hold 12GiB of memory"},
		{shoal.JobSpec{Resources: shoal.Resources{CPUs: 2000, Memory: 4 * gib}, Preemptible: &no}, ""},
		{shoal.JobSpec{Resources: shoal.Resources{CPUs: 3000, Memory: gib}, Preemptible: &no}, "it must not make room for logins, and 2 seats leave 2 processors, 4GiB of memory and 2 GPUs of a machine of pool lab"},
	} {
		err := admit.Check(c.spec, pool)
		if c.says == "" && err != nil || c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)) {
			t.Errorf("%+v: %v, want %q", c.spec.Resources, err, c.says)
		}
	}
	pool.Seat = shoal.Resources{}
	if err := admit.Check(shoal.JobSpec{Resources: small, Preemptible: &no}, pool); err == nil || shoal.HintOf(err) == "" {
		t.Errorf("where all is meant for logins: %v", err)
	}
}

func TestLimit(t *testing.T) {
	for _, c := range []struct{ own, usual, most, want time.Duration }{{1, 2, 3, 1}, {0, 2, 3, 2}, {0, 0, 3, 3}, {0, 0, 0, 0}} {
		s := shoal.JobSpec{TimeLimit: shoal.Duration(c.own)}
		admit.Limit(&s, shoal.Pool{Limits: shoal.Limits{DefaultTimeLimit: shoal.Duration(c.usual), MaxTimeLimit: shoal.Duration(c.most)}})
		if time.Duration(s.TimeLimit) != c.want {
			t.Errorf("%+v: %v", c, s.TimeLimit)
		}
	}
}
