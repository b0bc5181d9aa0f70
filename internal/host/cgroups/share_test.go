package cgroups

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"
)

// spend is what users use of a machine in a period, as the kernel has it: each runs at her pace until what she may use is
// spent, or what the machine may.
func spend(machine float64, paces, limits []float64) []float64 {
	used := make([]float64, len(paces))
	for left, over := 1.0, 0.0; left > 1e-9; {
		pace, step := 0.0, left
		for i, p := range paces {
			if limits[i] == 0 || used[i] < limits[i]-1e-9 {
				pace += p
				if limits[i] > 0 && p > 0 {
					step = min(step, (limits[i]-used[i])/p)
				}
			}
		}
		if pace == 0 || over >= machine-1e-9 {
			break
		}
		step = min(step, (machine-over)/pace)
		for i, p := range paces {
			if limits[i] == 0 || used[i] < limits[i]-1e-9 {
				used[i] += p * step
			}
		}
		over, left = over+pace*step, left-step
	}
	return used
}

// settle lets a machine come to rest, and returns what is used then.
func settle(machine float64, paces []float64, limits []float64) []float64 {
	var small, slack int64
	var used []float64
	for range 20 {
		used = spend(machine, paces, limits)
		all := make([]share, len(paces))
		for i := range all {
			all[i] = share{used: int64(1000 * used[i]), limit: int64(1000 * limits[i])}
		}
		var next []int64
		next, small, slack = divide(int64(1000*machine), all, small, slack)
		for i := range limits {
			limits[i] = float64(next[i]) / 1000
		}
	}
	return used
}

// However many processors the host has, one busy process against a hundred gets half of the machine, or its processor; and
// what others do not want is hers who wants it.
func TestDivide(t *testing.T) {
	t.Parallel()
	for _, host := range []float64{2, 4, 16, 64} {
		for _, machine := range []float64{0.25, 0.5, 1, 2, 8, 32} {
			if machine > host {
				continue
			}
			name := fmt.Sprintf("a machine of %g on a host of %g", machine, host)
			limits := []float64{0, 0}
			used := settle(machine, []float64{host - 0.95, 0.95}, limits)
			if want := min(machine/2, 0.95); used[1] < 0.9*want || used[0]+used[1] < 0.93*min(machine, host) {
				t.Errorf("%s: one process gets %.2f, and a hundred %.2f", name, used[1], used[0])
			}
			used = settle(machine, []float64{host, 0.02 * machine}, limits)
			if used[0] < 0.93*min(machine, host-0.1) {
				t.Errorf("%s: beside one that is nearly idle the other gets %.2f", name, used[0])
			}
			if used = settle(machine, []float64{host, 0}, limits); limits[0] != 0 {
				t.Errorf("%s: alone she is bounded to %.2f", name, limits[0])
			}
			settle(machine, []float64{host - 0.95, 0.95}, limits)
			if settle(machine, []float64{machine / 10, machine / 10}, limits); limits[0]+limits[1] != 0 {
				t.Errorf("%s: nobody is short, and %v is all there may be", name, limits)
			}
		}
	}
	used := settle(4, []float64{10, 4, 0.9, 0.9, 0.2}, make([]float64, 5))
	slices.Sort(used)
	if used[0] < 0.15 || used[1] < 0.7 || used[3] < 0.8 || used[4] > 1.4 {
		t.Errorf("five users: %.2f", used)
	}
}

// Who is below an equal part weighs more, as long as that is so, and who has to go weighs nothing.
func TestWeigh(t *testing.T) {
	t.Parallel()
	all := []share{{used: 700, weight: 1000}, {used: 300, weight: 1000}, {used: 1, weight: 1000}, {used: 0, weight: 1000}, {used: 200, weight: 2}}
	for range 30 {
		weights, several := weigh(1000, all)
		for i, w := range weights {
			all[i].weight = w
		}
		if !several {
			t.Error("several are at work")
		}
	}
	for i, want := range []int64{1000, mostWeight, 1000, 1000, 2} {
		if all[i].weight != want {
			t.Errorf("%d of thousand: it weighs %d, want %d", all[i].used, all[i].weight, want)
		}
	}
	all[0].used, all[1].used, all[4].used = 300, 500, 0
	if got, _ := weigh(1000, all); got[1] != sliceWeight {
		t.Errorf("above an equal part it weighs %d", got[1])
	}
	all[0].used, all[1].used = 500, 500
	if got, _ := weigh(1000, all); got[1] != mostWeight {
		t.Errorf("with an equal part it goes on, and weighs %d", got[1])
	}
	if got, several := weigh(1000, []share{{used: 2, weight: 1000}, {used: 1, weight: 1250}}); several || got[1] != sliceWeight {
		t.Errorf("nobody is at work, and they weigh %d", got)
	}
	for _, h := range []hierarchy{{controllers: []string{"cpu"}}, {controllers: []string{"cpu"}, v2: true}} {
		dir := t.TempDir()
		for _, w := range []int64{sliceWeight, 1250, mostWeight, 0} {
			s := weight(h, w)[0]
			if err := os.WriteFile(filepath.Join(dir, s.file), []byte(s.value+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			if got := h.weightOf(dir); max(got-w, w-got) > 10 {
				t.Errorf("%d is written as %s and read as %d", w, s.value, got)
			}
		}
	}
}

// The same with the kernel: a machine may use a tenth of a processor, and the host has several.
func TestSharesOfABoundedMachine(t *testing.T) {
	const machine = 100
	tree := testTree(t, Config{})
	i := slices.IndexFunc(tree.hierarchies, func(h hierarchy) bool { return h.has("cpu") })
	if i < 0 {
		t.Skip("no cpu controller")
	}
	h := tree.hierarchies[i]
	if err := h.set(h.dir, []setting{h.boundTo(machine)}); err != nil { // as its provider bounds a machine
		t.Fatal(err)
	}
	many, one := logins(t, tree)
	start(t, many, "sh", "-c", "for i in $(seq 100); do while :; do :; done & done; wait")
	start(t, one, "sh", "-c", "while :; do :; done")
	var s Shares
	soon, share := false, 0.0 // bounds alone would not do where the host has no time for all of the machine's
	a, b := time.Duration(0), time.Duration(0)
	until(t, "one of a hundred and one gets its part", func() bool {
		time.Sleep(300 * time.Millisecond)
		var err error
		if soon, err = s.Divide(tree, machine, time.Now()); err != nil {
			t.Fatal(err)
		}
		nowA, nowB := tree.spent(filepath.Dir(many.rel)), tree.spent(filepath.Dir(one.rel))
		share = float64(nowB-b) / max(float64(nowA-a+nowB-b), 1)
		a, b = nowA, nowB
		return soon && share > 0.45
	})
	t.Logf("one against a hundred: %.0f %%", 100*share)
	// Alone she is bounded by nothing, also by what an agent before has left.
	if err := one.Kill(); err != nil {
		t.Fatal(err)
	}
	s = Shares{}
	until(t, "she has the machine", func() bool {
		time.Sleep(100 * time.Millisecond)
		if _, err := s.Divide(tree, machine, time.Now()); err != nil {
			t.Fatal(err)
		}
		return h.bound(filepath.Dir(many.dir(h))) == 0
	})
	if err := many.Kill(); err != nil {
		t.Fatal(err)
	}
	until(t, "nobody is at work, and it need not be looked at soon", func() bool {
		time.Sleep(20 * time.Millisecond)
		soon, err := s.Divide(tree, machine, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		return !soon
	})
	if got := h.bound(h.dir); got != machine {
		t.Errorf("the machine's own bound is %s", strconv.FormatInt(got, 10))
	}
	killAll(t, many, one)
}
