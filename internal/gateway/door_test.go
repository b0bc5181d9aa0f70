package gateway

import (
	"context"
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
		for _, from := range []string{"late", "late"} { // there are six of the flood, then five
			if g := enter(from); g == nil {
				t.Error("the flood, however new, does not make room")
			}
		}
		if g := enter("late"); g != nil {
			t.Error("let in although all others are new, did nothing wrong, and are hardly more")
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

// However many come from one source and say nothing, somebody from elsewhere comes in.
func TestDoorKeepsAFloodFromShuttingIt(t *testing.T) {
	for _, perSecond := range []int{50, 200, 400, 1000} {
		synctest.Test(t, func(t *testing.T) {
			d := NewDoor(DoorLimits{})
			ctx, cancel := context.WithCancel(t.Context())
			knock := func() {
				gone := make(chan struct{})
				g := d.Enter(ctx, "flood", func() { close(gone) })
				if g == nil {
					d.TurnAway(ctx)
					return
				}
				select {
				case <-gone:
				case <-ctx.Done():
					g.Leave()
				}
			}
			go func() {
				for ctx.Err() == nil {
					go knock()
					time.Sleep(time.Second / time.Duration(perSecond))
				}
			}()
			time.Sleep(10 * time.Second)
			const tries = 100
			in := 0
			for range tries {
				time.Sleep(370 * time.Millisecond)
				if g := d.Enter(ctx, "elsewhere", func() { t.Error("it is shown out for the flood") }); g != nil {
					in++
					g.Leave()
				}
			}
			if in < tries {
				t.Errorf("while %d a second come from one source, %d of %d come in from elsewhere", perSecond, in, tries)
			}
			cancel()
			time.Sleep(time.Second)
		})
	}
}

// A crowd from everywhere does not keep out who has logged in from her address before, nor is she shown out while she types.
func TestDoorKnowsWhoWasWelcome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := NewDoor(DoorLimits{Full: 20, Early: 10})
		shown := map[string]bool{}
		n := 0
		crowd := func(many int) (in int) {
			for range many {
				n++
				if d.Enter(t.Context(), fmt.Sprint("bot", n), func() {}) != nil {
					in++
				}
			}
			return in
		}
		enter := func(from string) *Guest { return d.Enter(t.Context(), from, func() { shown[from] = true }) }
		enter("home").Welcome()
		if crowd(100) > 20 {
			t.Error("there is more room than there is")
		}
		if g := enter("abroad"); g != nil {
			t.Error("somebody nobody knows was let in, where all are as new")
		}
		g := enter("home")
		if g == nil {
			t.Fatal("who was welcome before is not let in")
		}
		for range 30 { // she types her password, which is a guess as long as it is not looked at
			time.Sleep(time.Second)
			crowd(100)
		}
		g.Guess()
		crowd(100)
		synctest.Wait()
		if shown["home"] {
			t.Error("who was welcome before was shown out")
		}
		g.Leave()
		for range 20 { // a crowd from where somebody is known does not keep all others out
			enter("home")
		}
		time.Sleep(newcomer)
		if enter("abroad") == nil {
			t.Error("a crowd from a known address has shut the door")
		}
	})
}

// Those who wait for their turn keep nobody out who has none to wait for.
func TestDoorQueuesAreOfTheirSources(t *testing.T) {
	d := NewDoor(DoorLimits{})
	d.waiting = maxWaiting
	if d.Enter(t.Context(), "elsewhere", func() {}) == nil {
		t.Error("turned away although there is room")
	}
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
	full := NewDoor(DoorLimits{Full: 1})
	full.Enter(t.Context(), "one", func() {})
	if full.Enter(t.Context(), "one more", func() {}) != nil {
		t.Error("somebody came in although there is no room")
	}
	if len(d.sources) != 0 || len(full.sources) != 1 {
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
