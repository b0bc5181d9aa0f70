package gateway

import (
	"fmt"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestDoorShowsOutGuessersOfTheLargestSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := NewDoor(DoorLimits{Full: 10, Early: 10})
		var shown atomic.Int32
		var last atomic.Value
		enter := func(from string) *Guest {
			return d.Enter(t.Context(), from, func() { shown.Add(1); last.Store(from) })
		}
		for i := range 8 {
			g := enter("flood")
			if i == 5 {
				g.Guess()
			}
		}
		other := enter("other")
		other.Guess()
		other.Guess()
		enter("third")
		if g := enter("late"); g == nil {
			t.Fatal("no room was made")
		}
		synctest.Wait()
		if shown.Load() != 1 || last.Load() != "flood" {
			t.Errorf("%d were shown out, the last of %v; want one of flood", shown.Load(), last.Load())
		}
		if g := enter("late"); g != nil {
			t.Error("let in although all others are new and did nothing wrong")
		}
		time.Sleep(newcomer)
		if g := enter("late"); g == nil {
			t.Error("the oldest of the flood did not have to leave")
		}
		synctest.Wait()
		if n := d.Guests(); n != 10 {
			t.Errorf("%d guests, want 10", n)
		}
		other.Leave()
		other.Leave()
		if n := d.Guests(); n != 9 {
			t.Errorf("%d guests after one has left, want 9", n)
		}
	})
}

func TestDoorBelievesWhoOfferedAKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := NewDoor(DoorLimits{Full: 3, Early: 3})
		shown := map[string]bool{}
		enter := func(name string) *Guest {
			return d.Enter(t.Context(), "one place", func() { shown[name] = true })
		}
		enter("with a key").Promise()
		time.Sleep(newcomer / 2)
		enter("second")
		enter("third")
		time.Sleep(newcomer)
		enter("fourth")
		synctest.Wait()
		if shown["with a key"] || !shown["second"] {
			t.Errorf("shown out were %v, want the oldest that offered nothing", shown)
		}
		time.Sleep(promising)
		enter("fifth")
		synctest.Wait()
		if !shown["with a key"] {
			t.Error("a promise that was not kept holds for ever")
		}
	})
}

func TestDoorForgetsSources(t *testing.T) {
	d := NewDoor(DoorLimits{})
	var in []*Guest
	for i := range 50 {
		in = append(in, d.Enter(t.Context(), fmt.Sprint(i), func() {}))
	}
	for _, g := range in {
		g.Leave()
	}
	d.waiting = maxWaiting
	if d.Enter(t.Context(), "one more", func() {}) != nil {
		t.Error("somebody came in although too many wait")
	}
	if len(d.sources) != 0 {
		t.Errorf("%d sources are remembered", len(d.sources))
	}
}

func TestDoorMakesCrowdsQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := NewDoor(DoorLimits{Full: 200, Early: 100})
		start := time.Now()
		for range 90 {
			if d.Enter(t.Context(), "crowd", func() {}) == nil {
				t.Fatal("turned away although there is room")
			}
		}
		if took := time.Since(start); took < 50*pace || took > time.Second {
			t.Errorf("90 of one source took %v", took)
		}
		before := time.Now()
		d.Enter(t.Context(), "else", func() {})
		if time.Since(before) != 0 {
			t.Error("somebody from elsewhere had to queue")
		}
	})
}

func TestSource(t *testing.T) {
	for in, want := range map[string]string{
		"192.0.2.1:22": "192.0.2.1", "[2001:db8:1:2:3:4:5:6]:22": "2001:db8:1:2::/64", "[::ffff:192.0.2.1]:1": "::ffff:192.0.2.1",
	} {
		a, err := net.ResolveTCPAddr("tcp", in)
		if err != nil {
			t.Fatal(err)
		}
		got := Source(a)
		if want == "::ffff:192.0.2.1" {
			want = "192.0.2.1" // net prints it so
		}
		if got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}
