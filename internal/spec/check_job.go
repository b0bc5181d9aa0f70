package spec

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/shoal-pool/shoal"
)

// The bounds of a job.
const (
	maxCommand  = 64 << 10
	maxEnv      = 1000
	maxArray    = 10_000_000
	maxArrayEnd = 1<<31 - 1
	maxRetries  = 100
)

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
	if strings.TrimSpace(j.Command) == "" {
		c.wrong("command", "", "the job has no command")
	}
	c.text("command", j.Command, maxCommand)
	c.text("prepare", j.Prepare, maxCommand)
	if j.Array != "" {
		if msg := arrayMistake(j.Array); msg != "" {
			c.wrong("array", "write 1-100, 0-9:3 or 1,4,7-9", "%s", msg)
		}
	}
	if j.Resources.CPUs < 0 {
		c.wrong("resources.cpus", "", "a task needs some processor")
	}
	c.within("resources.gpus", j.Resources.GPUs, 0, 64)
	if j.Workdir != "" {
		c.absolute("workdir", j.Workdir)
	}
	c.environment(j)
	c.within("retries", j.Retries, 0, maxRetries)
	for i, a := range j.After {
		if !jobName.MatchString(a) {
			c.wrong(fmt.Sprintf("after[%d]", i), "give the number or the name of a job", "%q cannot be a job", clip(a))
		}
	}
	c.oneOf("share", j.Share, "private", "group")
	c.oneOf("priority", j.Priority, "low", "normal", "high")
	c.oneOf("launcher", j.Launcher, "each", "head", "mpi")
	c.jobNotYet(j)
	return c.mistakes
}

// jobNotYet refuses what would be accepted and then have no effect.
func (c *checks) jobNotYet(j shoal.JobSpec) {
	if j.Nodes < 1 {
		c.wrong("nodes", "", "a job needs at least one node")
	}
	for _, f := range []struct {
		path string
		used bool
	}{{"nodes", j.Nodes > 1}, {"launcher", j.Launcher == "head" || j.Launcher == "mpi"}, {"secrets", len(j.Secrets) > 0},
		{"tasks", len(j.Tasks) > 0}, {"release", j.Release != ""}} {
		if f.used {
			c.wrong(f.path, "leave it out", "%s is not supported by this version of Shoal", f.path)
		}
	}
}

func (c *checks) environment(j shoal.JobSpec) {
	if len(j.Env) > maxEnv {
		c.wrong("env", "", "there are more than %d variables", maxEnv)
	}
	for key, value := range j.Env {
		at := join("env", key)
		switch {
		case !variable.MatchString(key):
			c.wrong(at, "use letters, digits and _", "%q cannot be a variable", clip(key))
		case strings.HasPrefix(key, "SHOAL_"):
			c.wrong(at, "choose another name", "variables that begin with SHOAL_ are set by Shoal")
		}
		c.text(at, value, maxCommand)
	}
	for field, dirs := range map[string]map[string]string{"inputs": j.Inputs, "outputs": j.Outputs} {
		for key, dir := range dirs {
			at := join(field, key)
			if !variable.MatchString(key) {
				c.wrong(at, "use letters, digits and _", "%q cannot be part of a variable", clip(key))
			}
			c.absolute(at, dir)
		}
	}
}

// arrayMistake says what is wrong with an array such as "1-100", "0-9:3" or "1,4,7-9"; empty if nothing.
func arrayMistake(s string) string {
	if len(s) > 16<<10 {
		return "the array is too long to read"
	}
	total := 0
	last := -1
	for part := range strings.SplitSeq(s, ",") {
		span, stepText, stepped := strings.Cut(strings.TrimSpace(part), ":")
		fromText, toText, ranged := strings.Cut(span, "-")
		if !ranged {
			toText = fromText
		}
		from, err1 := strconv.ParseUint(fromText, 10, 31)
		to, err2 := strconv.ParseUint(toText, 10, 31)
		step := uint64(1)
		var err3 error
		if stepped {
			step, err3 = strconv.ParseUint(stepText, 10, 31)
		}
		switch {
		case err1 != nil || err2 != nil || err3 != nil || step == 0 || stepped && !ranged || to > maxArrayEnd-1:
			return fmt.Sprintf("%q cannot be read as an array", clip(s))
		case from > to:
			return fmt.Sprintf("the range %s ends before it begins", clip(span))
		case int(from) <= last:
			return fmt.Sprintf("the indexes of %q are not in rising order, each once", clip(s))
		}
		total += int((to-from)/step) + 1
		last = int(to)
		if total > maxArray {
			return fmt.Sprintf("the array has more than %d tasks", maxArray)
		}
	}
	return ""
}
