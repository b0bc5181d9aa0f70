package cgroups

import (
	"fmt"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoal-pool/shoal"
)

// logins makes the slices of two users as their logins have them.
func logins(t *testing.T, tree *Tree) (a, b Group) {
	t.Helper()
	a, err := tree.User(20001)
	if err == nil {
		b, err = tree.User(20002)
	}
	if err != nil {
		t.Fatal(err)
	}
	return a, b
}

// Of the processor, a user with one busy process gets as much as one with a hundred. All of them are on one processor, so
// that the share does not depend on what else the host does.
func TestHundredProcessesAgainstOne(t *testing.T) {
	tree := testTree(t, Config{})
	if !tree.Offers("cpu") {
		t.Skip("no cpu controller")
	}
	many, one := logins(t, tree)
	var all unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		t.Fatal(err)
	}
	cpu := 0
	for !all.IsSet(cpu) {
		cpu++
	}
	busy := func(g Group, n int) {
		t.Helper()
		start(t, g, "taskset", "-c", strconv.Itoa(cpu), "sh", "-c", fmt.Sprintf("for i in $(seq %d); do while :; do :; done & done; wait", n))
		for end := time.Now().Add(time.Minute); len(must(g.Pids())) <= n; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%d processes have begun", len(must(g.Pids())))
			}
		}
	}
	busy(many, 100)
	busy(one, 1)
	used := func(g Group) time.Duration {
		u, err := g.Usage()
		if err != nil {
			t.Fatal(err)
		}
		return u.CPU
	}
	a, b := used(many), used(one)
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		da, db := used(many)-a, used(one)-b
		if da+db < time.Second && time.Now().Before(end) { // of the processor's time
			continue
		}
		if share := float64(db) / float64(da+db); share < 0.45 {
			t.Errorf("one against a hundred gets %.0f %% of the processor, of %s", 100*share, da+db)
		}
		break
	}
	killAll(t, many, one)
}

// A user whose login takes all memory ends that alone: others, and what they have, go on.
func TestMemoryHogInALoginEndsAlone(t *testing.T) {
	tree := testTree(t, Config{Memory: 64 << 20})
	if !tree.Offers("memory") {
		t.Skip("no memory controller")
	}
	hers, his := logins(t, tree)
	calm := start(t, his, "sleep", "1000")
	hog := start(t, hers, "tail", "/dev/zero")
	if err := hog.Wait(); err == nil {
		t.Error("the hog ended well")
	}
	u, err := hers.Usage()
	if err != nil || !u.OOMKilled || u.MaxMemory > 64<<20 {
		t.Errorf("usage %+v, %v", u, err)
	}
	if u, _ := his.Usage(); u.OOMKilled || calm.Process.Signal(syscall.Signal(0)) != nil {
		t.Error("another was hit")
	}
	killAll(t, hers, his)
}

func killAll(t *testing.T, groups ...Group) {
	t.Helper()
	for _, g := range groups {
		if err := g.Kill(); err != nil {
			t.Error(err)
		}
	}
}

// A user who takes all memory by many small processes ends those, and not the one large process of another.
func TestManySmallHogsEndAlone(t *testing.T) {
	const machine = 192 << 20
	tree := testTree(t, Config{Memory: machine})
	if !tree.Offers("memory") {
		t.Skip("no memory controller")
	}
	for _, h := range tree.hierarchies { // as its provider bounds a machine
		if h.has("memory") {
			if err := h.set(h.dir, memoryLimit(h, machine)); err != nil {
				t.Fatal(err)
			}
		}
	}
	hers, his := logins(t, tree)
	const holds = "(head -c %dM /dev/zero; exec sleep 1000) | tail > /dev/null" // tail keeps the last line, which has no end
	start(t, his, "sh", "-c", fmt.Sprintf(holds, 60))
	until(t, "his process has its memory", func() bool { return tree.has(his) > 60<<20 })
	start(t, hers, "sleep", "1000")
	if err := tree.Balance(); err != nil {
		t.Fatal(err)
	}
	start(t, hers, "sh", "-c", fmt.Sprintf("for i in $(seq 20); do (%s) & done; wait", fmt.Sprintf(holds, 12)))
	until(t, "one of hers is ended", func() bool { u, err := hers.Usage(); return err == nil && u.OOMKilled })
	if err := tree.Balance(); err != nil {
		t.Fatal(err)
	}
	if u, err := his.Usage(); err != nil || u.OOMKilled || tree.has(his) < 60<<20 {
		t.Errorf("his was ended: %+v %v", u, err)
	}
	killAll(t, hers, his)
	until(t, "it is over", func() bool { return tree.has(hers) < 10<<20 && tree.has(his) < 10<<20 })
	later, err := tree.User(20003)
	if err == nil {
		err = tree.Balance()
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range tree.hierarchies {
		if h.has("memory") && limitOf(h, later.dir(h)) < machine*3/4 {
			t.Errorf("who is alone has not nearly all: %d", limitOf(h, later.dir(h)))
		}
	}
}

func (t *Tree) has(g Group) int64 {
	for _, h := range t.hierarchies {
		if h.has("memory") {
			return has(h, g.dir(h))
		}
	}
	return 0
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// However much others have, there is room for a login.
func TestLoginsHaveRoom(t *testing.T) {
	const machine = 256 << 20
	tree := testTree(t, Config{Memory: machine})
	if !tree.Offers("memory") {
		t.Skip("no memory controller")
	}
	hers, his := logins(t, tree)
	task, err := tree.Task(20001, "1.0.1", shoal.Resources{Memory: machine})
	if err != nil {
		t.Fatal(err)
	}
	start(t, task, "sh", "-c", "(head -c 100M /dev/zero; exec sleep 1000) | tail > /dev/null")
	start(t, his, "sh", "-c", "(head -c 100M /dev/zero; exec sleep 1000) | tail > /dev/null")
	until(t, "both have their memory", func() bool { return tree.has(task) > 100<<20 && tree.has(his) > 100<<20 })
	start(t, hers, "sleep", "1000")
	if err := tree.Balance(); err != nil {
		t.Fatal(err)
	}
	for _, h := range tree.hierarchies {
		if !h.has("memory") {
			continue
		}
		if a, b := limitOf(h, hers.dir(h)), limitOf(h, his.dir(h)); a < machine/4 || b < 100<<20 {
			t.Errorf("she may have %d, he %d", a, b)
		}
	}
	killAll(t, hers, his, task)
	if err := task.Remove(); err != nil {
		t.Error(err)
	}
}
