package once_test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-pool/shoal/internal/web/once"
)

func TestOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := once.New[string](time.Minute, 3, 100)
		secret, expires := b.Put("alice", "v")
		if time.Until(expires) != time.Minute {
			t.Errorf("expires in %s", time.Until(expires))
		}
		for _, bad := range []string{"", secret + "x", secret[1:]} {
			if _, ok := b.Take(bad); ok {
				t.Errorf("%q was good", bad)
			}
		}
		if v, ok := b.Look(secret); !ok || v != "v" {
			t.Error("it cannot be looked at")
		}
		if v, ok := b.Take(secret); !ok || v != "v" {
			t.Error("it was not there")
		}
		if _, ok := b.Take(secret); ok {
			t.Error("it was good twice")
		}
		secret, _ = b.Put("alice", "v")
		time.Sleep(time.Minute)
		if _, ok := b.Look(secret); ok {
			t.Error("it can be looked at after its time")
		}
		if _, ok := b.Take(secret); ok {
			t.Error("it was good after its time")
		}
	})
}

func TestBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := once.New[int](time.Minute, 3, 10)
		bob, _ := b.Put("bob", 0)
		var secrets []string
		for i := range 5 {
			s, _ := b.Put("alice", i)
			secrets = append(secrets, s)
			time.Sleep(time.Second)
		}
		for i, s := range secrets {
			if _, ok := b.Look(s); ok != (i >= 2) {
				t.Errorf("%d: %v", i, ok)
			}
		}
		if _, ok := b.Look(bob); !ok {
			t.Error("others are crowded out")
		}
		for i := range 100 {
			b.Put(fmt.Sprint(i), i)
		}
		if b.Len() > 10 {
			t.Errorf("%d are kept", b.Len())
		}
		last, _ := b.Put("bob", 1)
		other, _ := b.Put("carol", 1)
		b.Drop("bob")
		if _, ok := b.Look(last); ok {
			t.Error("it was not dropped")
		}
		if _, ok := b.Look(other); !ok {
			t.Error("another's was dropped")
		}
		time.Sleep(time.Minute)
		b.Put("alice", 0)
		if b.Len() != 1 {
			t.Errorf("%d are kept after their time", b.Len())
		}
	})
}

// TestRace: of many who come with one secret one gets it.
func TestRace(t *testing.T) {
	t.Parallel()
	b := once.New[int](time.Minute, 3, 10)
	secret, _ := b.Put("alice", 1)
	var won atomic.Int32
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			if _, ok := b.Take(secret); ok {
				won.Add(1)
			}
		})
	}
	all.Wait()
	if won.Load() != 1 {
		t.Errorf("%d got it", won.Load())
	}
}
