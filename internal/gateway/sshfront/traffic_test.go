package sshfront

import (
	"testing"
	"time"
)

func TestTraffic(t *testing.T) {
	var c traffic
	now := time.Now()
	for _, s := range []struct {
		after time.Duration
		in    bool
		n     int
		want  bool
	}{
		{0, true, 100, false},
		{10 * time.Second, true, 10 << 10, false}, // an open page
		{70 * time.Second, true, 10 << 10, false},
		{80 * time.Second, true, 6 << 10, true},
		{90 * time.Second, true, 1 << 30, false}, // once a minute
		{140 * time.Second, false, 500 << 10, false},
		{141 * time.Second, false, 600 << 10, true},
		{150 * time.Second, true, 1 << 20, false},
	} {
		if got := c.moved(s.in, s.n, now.Add(s.after)); got != s.want {
			t.Errorf("after %s: %t", s.after, got)
		}
	}
}
