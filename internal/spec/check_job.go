package spec

import (
	"fmt"

	"github.com/shoal-pool/shoal"
)

// The bounds of a job.
const (
	maxCommand = 64 << 10
	maxEnv     = 1000
	maxRetries = 100
)

// leastMemory is what a process needs to begin at all: with less somebody forgot the unit.
const leastMemory = 64 << 10

// CheckJob returns what is wrong with a job that has its defaults. A job without a pool is right:
// whoever submits it may know one.
func CheckJob(j shoal.JobSpec) []shoal.Mistake {
	var c checks
	if j.Name != "" && !jobName.MatchString(j.Name) {
		c.wrong("name", "use letters, digits, ., _ and -, at most 63", "%q cannot be the name of a job", clip(j.Name))
	}
	if j.Pool != "" && !objectName.MatchString(string(j.Pool)) {
		c.wrong("pool", "", "%q cannot be the name of a pool", clip(string(j.Pool)))
	}
	c.work(j)
	c.text("prepare", j.Prepare, maxCommand)
	c.text("release", j.Release, maxCommand)
	if j.Resources.CPUs < 0 {
		c.wrong("resources.cpus", "", "a task needs some processor")
	}
	if m := j.Resources.Memory; m > 0 && m < leastMemory {
		c.wrong("resources.memory", fmt.Sprintf("write %dMiB or %dGiB", m, m), "no program fits into %s of memory", m)
	}
	c.within("resources.gpus", j.Resources.GPUs, 0, 64)
	if j.Workdir != "" {
		c.place("workdir", j.Workdir)
	}
	c.environment(j)
	c.several(j)
	c.again(j)
	c.after(j)
	c.identity(j)
	c.oneOf("share", j.Share, "private", "group")
	c.oneOf("priority", j.Priority, "low", "normal", "high")
	return c.mistakes
}
