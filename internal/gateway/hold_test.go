package gateway

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func TestHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		type word struct {
			after time.Duration
			text  string
		}
		var said []word
		say := func(s string) { said = append(said, word{time.Since(start), s}) }
		failed := errors.New("no")
		err := Hold(t.Context(), say, func(_ context.Context, progress func(string)) error {
			time.Sleep(100 * time.Millisecond)
			progress("first")
			time.Sleep(2900 * time.Millisecond)
			progress("second")
			progress("second")
			time.Sleep(22 * time.Second)
			progress("third")
			progress("fourth")
			time.Sleep(time.Millisecond)
			return failed
		})
		if err != failed {
			t.Errorf("got %v", err)
		}
		ms := time.Millisecond
		want := []word{{700 * ms, "first"}, {3000 * ms, "second"}, {13000 * ms, "second (13s)"}, {23000 * ms, "second (23s)"}, {25000 * ms, "fourth"}}
		if !slices.Equal(said, want) && len(said) == len(want) {
			t.Errorf("said %v, want %v", said, want)
		}
		if len(said) != len(want) {
			t.Errorf("said %v, want %v", said, want)
		}
	})
}

func TestHoldSaysNothingOfShortWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		err := Hold(t.Context(), func(s string) { t.Errorf("said %q", s) }, func(_ context.Context, progress func(string)) error {
			progress("soon")
			time.Sleep(600 * time.Millisecond)
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	})
}
