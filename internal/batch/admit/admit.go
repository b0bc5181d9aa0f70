// Package admit refuses at once what could never run.
package admit

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/sched"
)

// Limit gives a job without a time limit that of its pool.
func Limit(s *shoal.JobSpec, p shoal.Pool) {
	if s.TimeLimit == 0 {
		s.TimeLimit = p.Limits.DefaultTimeLimit
	}
	if s.TimeLimit == 0 {
		s.TimeLimit = p.Limits.MaxTimeLimit
	}
}

func refused(k shoal.Kind, format string, args ...any) *shoal.Error {
	return shoal.Errorf(k, "cannot submit the job: "+format, args...)
}

// Check says why a job that is complete could never run in a pool.
func Check(s shoal.JobSpec, p shoal.Pool) error {
	switch {
	case p.Deleting:
		return refused(shoal.KindConflict, "pool %s is being deleted", p.Name)
	case !p.Has(shoal.UseBatch):
		return refused(shoal.KindInvalid, "pool %s is not for jobs", p.Name).
			WithHint("choose a pool with `uses: [batch]`, or add batch to the uses of %s", p.Name)
	}
	if lacks := lacking(s.Resources, p.Machine); len(lacks) > 0 {
		return refused(shoal.KindInvalid, "it asks for %s, and a machine of pool %s has %s", strings.Join(lacks, " and "), p.Name, Words(p.Machine)).
			WithHint("ask for less, or choose a pool with larger machines")
	}
	if s.Nodes.Min > 1 && s.Nodes.Min > p.Size.Max {
		return refused(shoal.KindInvalid, "it asks for %d machines at once, and pool %s has %d at most", s.Nodes.Min, p.Name, p.Size.Max).
			WithHint("ask for fewer nodes, or have the pool's size.max raised")
	}
	if most := p.Limits.MaxTimeLimit; most > 0 && s.TimeLimit > most {
		return refused(shoal.KindInvalid, "its time limit of %s is longer than the %s that pool %s allows", s.TimeLimit, most, p.Name).
			WithHint("ask for less time, and have the job go on from where it was")
	}
	if err := borrows(s, p); err != nil {
		return err
	}
	return quotas(s, p)
}

// lacking says in words what of r a machine does not have.
func lacking(r, have shoal.Resources) (lacks []string) {
	if r.CPUs > have.CPUs {
		lacks = append(lacks, processors(r.CPUs))
	}
	if r.Memory > have.Memory {
		lacks = append(lacks, fmt.Sprintf("%s of memory", r.Memory))
	}
	if r.GPUs > have.GPUs {
		lacks = append(lacks, gpus(r.GPUs))
	}
	return lacks
}

// borrows refuses a job that must not be told to go where logins may need all there is.
func borrows(s shoal.JobSpec, p shoal.Pool) error {
	if s.GivesWay() {
		return nil
	}
	pool := sched.PoolOf(p)
	if !pool.Interactive {
		return nil
	}
	n := shoal.MilliCPU(pool.Seats)
	rest := shoal.Resources{CPUs: max(p.Machine.CPUs-n*pool.Seat.CPUs, 0), Memory: max(p.Machine.Memory-shoal.Bytes(n)*pool.Seat.Memory, 0), GPUs: p.Machine.GPUs}
	if s.Resources.Fits(rest) {
		return nil
	}
	left := Words(rest)
	if rest.CPUs == 0 || rest.Memory == 0 {
		left = "nothing"
	}
	return refused(shoal.KindInvalid, "it must not make room for logins, and %d seats leave %s of a machine of pool %s", p.Seats, left, p.Name).
		WithHint("leave out preemptible: false, choose a pool without logins, or set the pool's seat to less")
}

// quotas refuses a task that alone would use more than its user, or her group, may.
func quotas(s shoal.JobSpec, p shoal.Pool) error {
	n := s.Nodes.Least()
	all := shoal.Resources{CPUs: s.Resources.CPUs * shoal.MilliCPU(n), Memory: s.Resources.Memory * shoal.Bytes(n), GPUs: s.Resources.GPUs * n}
	u, g := p.Limits.PerUser, p.Limits.PerGroup
	for _, limit := range []struct {
		who  string
		most shoal.Resources
	}{{"a user", shoal.Resources{CPUs: u.CPUs, Memory: u.Memory, GPUs: u.GPUs}}, {"a group", shoal.Resources{CPUs: g.CPUs, Memory: g.Memory, GPUs: g.GPUs}}} {
		most := limit.most
		if most.CPUs == 0 {
			most.CPUs = all.CPUs
		}
		if most.Memory == 0 {
			most.Memory = all.Memory
		}
		if most.GPUs == 0 {
			most.GPUs = all.GPUs
		}
		if lacks := lacking(all, most); len(lacks) > 0 {
			return refused(shoal.KindInvalid, "a task of it asks for %s, and %s may hold %s in pool %s", strings.Join(lacks, " and "), limit.who, strings.Join(held(lacking(all, most), most), " and "), p.Name)
		}
	}
	return nil
}

// held says what may be held of each thing of which there is too little.
func held(lacks []string, most shoal.Resources) (all []string) {
	for _, l := range lacks {
		switch {
		case strings.Contains(l, "processor"):
			all = append(all, processors(most.CPUs))
		case strings.Contains(l, "memory"):
			all = append(all, most.Memory.String()+" of memory")
		default:
			all = append(all, gpus(most.GPUs))
		}
	}
	return all
}

// Clashes finds inputs and outputs that would be the same variable.
func Clashes(s shoal.JobSpec) []shoal.Mistake {
	var all []shoal.Mistake
	for field, names := range map[string][]string{"inputs": slices.Sorted(maps.Keys(s.Inputs)), "outputs": slices.Sorted(maps.Keys(s.Outputs))} {
		seen := map[string]string{}
		for _, name := range names {
			upper := strings.ToUpper(name)
			if other, ok := seen[upper]; ok {
				all = append(all, shoal.Mistake{Path: field + "." + name, Msg: fmt.Sprintf("%s and %s would be the same variable", other, name), Hint: "rename one of them"})
			}
			seen[upper] = name
		}
	}
	return all
}

// Words are an amount in words: "2 processors, 4GiB of memory and no GPU".
func Words(r shoal.Resources) string {
	return fmt.Sprintf("%s, %s of memory and %s", processors(r.CPUs), r.Memory, gpus(r.GPUs))
}

func processors(n shoal.MilliCPU) string {
	if n == 1000 {
		return "1 processor"
	}
	return n.String() + " processors"
}

func gpus(n int) string {
	switch n {
	case 0:
		return "no GPU"
	case 1:
		return "1 GPU"
	}
	return fmt.Sprintf("%d GPUs", n)
}
