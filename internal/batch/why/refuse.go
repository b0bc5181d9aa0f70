package why

import (
	"fmt"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/sched"
)

// Refuse says why no task of a job can ever start in a pool as it is; empty if one can.
func Refuse(p sched.Pool, j shoal.JobSpec) string {
	nodes := j.Nodes.Least()
	all := times(j.Resources, nodes)
	user, group := p.Limits.PerUser, p.Limits.PerGroup
	switch {
	case !j.Resources.Fits(p.Machine):
		return fmt.Sprintf("a machine of pool %s could not hold such a task even if it were empty", p.Name)
	case nodes > p.Most:
		return fmt.Sprintf("it needs %d machines at once, and pool %s has %d at most", nodes, p.Name, p.Most)
	case !all.Fits(bound(user.CPUs, user.Memory, user.GPUs)):
		return fmt.Sprintf("one task alone is more than a user may have running in pool %s", p.Name)
	case !all.Fits(bound(group.CPUs, group.Memory, group.GPUs)):
		return fmt.Sprintf("one task alone is more than a group may have running in pool %s", p.Name)
	case !j.GivesWay() && !j.Resources.Fits(p.Machine.Sub(p.Reserved())):
		return fmt.Sprintf("what must not be preempted may only use what the seats of pool %s leave of a machine, and that is too little", p.Name)
	}
	return ""
}

func times(r shoal.Resources, n int) shoal.Resources {
	return shoal.Resources{CPUs: r.CPUs * shoal.MilliCPU(n), Memory: r.Memory * shoal.Bytes(n), GPUs: r.GPUs * n}
}

// bound is a limit, where 0 means none.
func bound(cpus shoal.MilliCPU, memory shoal.Bytes, gpus int) shoal.Resources {
	const unlimited = 1 << 62
	r := shoal.Resources{CPUs: cpus, Memory: memory, GPUs: gpus}
	if cpus == 0 {
		r.CPUs = unlimited
	}
	if memory == 0 {
		r.Memory = unlimited
	}
	if gpus == 0 {
		r.GPUs = unlimited
	}
	return r
}
