package launch_test

import (
	"testing"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/launch"
)

// BenchmarkOrder is what every task costs the server here.
func BenchmarkOrder(b *testing.B) {
	x := task(shoal.JobSpec{Command: "true", Array: "0-9999", Env: map[string]string{"A": "b"}}, 1)
	for b.Loop() {
		launch.Order(x, 0)
	}
}
