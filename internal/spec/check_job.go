package spec

import (
	"fmt"
	"strings"

	"github.com/shoal-pool/shoal"
)

// The bounds of a job.
const (
	maxCommand = 64 << 10
	maxEnv     = 1000
	maxRetries = 100
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
	if _, err := shoal.ParseArray(j.Array); err != nil {
		c.wrong("array", shoal.HintOf(err), "%s", err)
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
		if a.Task != "" || a.Condition != "" && a.Condition != shoal.AfterOK {
			c.wrong(fmt.Sprintf("after[%d]", i), "", "conditions are not supported by this version of Shoal")
		}
		if !jobName.MatchString(a.Job) {
			c.wrong(fmt.Sprintf("after[%d]", i), "give the number or the name of a job", "%q cannot be a job", clip(a.Job))
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
	for _, f := range []struct {
		path string
		used bool
	}{{"nodes", j.Nodes.Several()}, {"launcher", j.Launcher == "head" || j.Launcher == "mpi"}, {"secrets", len(j.Secrets) > 0},
		{"tasks", len(j.Tasks) > 0}, {"release", j.Release != ""}, {"items", len(j.Items) > 0}, {"processes", j.Processes != 0},
		{"container", j.Container != nil}, {"stdout", j.Stdout != ""}, {"stderr", j.Stderr != ""}, {"signal", j.Signal != ""}, {"retry", j.Retry != nil},
		{"requeue", j.Requeue != ""}, {"idempotent", j.Idempotent}, {"onNodeLoss", j.OnNodeLoss != ""}, {"maxRunning", j.MaxRunning != 0},
		{"maxFails", j.MaxFails != 0}, {"labels", len(j.Labels) > 0}, {"externalId", j.ExternalID != ""}, {"dialect", j.Dialect != ""}} {
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
	for key, dir := range j.Inputs {
		c.directory(join("inputs", key), key, dir)
	}
	for key, dir := range j.Outputs {
		c.directory(join("outputs", key), key, dir.Path)
	}
}

func (c *checks) directory(at, key, dir string) {
	if !variable.MatchString(key) {
		c.wrong(at, "use letters, digits and _", "%q cannot be part of a variable", clip(key))
	}
	c.absolute(at, dir)
}
