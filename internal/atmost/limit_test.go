package atmost_test

import (
	"sync"
	"testing"

	"github.com/shoal-pool/shoal/internal/atmost"
)

func TestLimit(t *testing.T) {
	t.Parallel()
	l := atmost.New[string](2, 3)
	enter := func(k string, want bool) {
		t.Helper()
		if got := l.Enter(k); got != want {
			t.Errorf("%s comes in: %v, want %v", k, got, want)
		}
	}
	enter("a", true)
	enter("a", true)
	enter("a", false)
	enter("b", true)
	enter("c", false)
	if its, all := l.Taken("a"); its != 2 || all != 3 {
		t.Errorf("%d of %d", its, all)
	}
	l.Leave("a")
	enter("c", true)
	enter("a", false)
	l.Leave("b")
	enter("a", true)
}

func TestMany(t *testing.T) {
	t.Parallel()
	l := atmost.New[int](3, 10)
	var all sync.WaitGroup
	for i := range 100 {
		all.Go(func() {
			for range 100 {
				if l.Enter(i % 7) {
					if its, all := l.Taken(i % 7); its > 3 || all > 10 {
						t.Errorf("%d of %d", its, all)
					}
					l.Leave(i % 7)
				}
			}
		})
	}
	all.Wait()
	for i := range 7 {
		if its, all := l.Taken(i); its != 0 || all != 0 {
			t.Errorf("%d of %d are left", its, all)
		}
	}
}
