package runner

import (
	"context"
	"os/exec"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/host/tasks"
)

// shared is a job's directory on the share of its user's home, which its tasks on all machines have together. Every
// machine that made it removes it when the job has ended; who comes late finds nothing. A job with a release command
// sees to it itself: none of its machines knows whether the others still release.
type shared struct {
	path   string
	person tasks.Person
}

// sharedOf is the shared directory that an order has made, if it is one of those.
func sharedOf(o api.TaskOrder, p tasks.Person) (shared, bool) {
	dir := o.Env["SHOAL_JOB_SCRATCH"]
	own := path.Clean(dir) == dir && path.IsAbs(dir) && strings.HasSuffix(dir, "/.shoal/scratch/"+string(o.Ref.Job))
	return shared{dir, p}, own && slices.Contains(o.Outputs, dir)
}

// shares notes that an order's job has a shared directory. The mutex is held.
func (r *Runner) shares(o api.TaskOrder, p tasks.Person) {
	if s, ok := sharedOf(o, p); ok && r.jobs[o.Ref.Job] != nil {
		r.jobs[o.Ref.Job].shared = s
	}
}

// sharedTime bounds the removal, which goes on where the next machine does the same.
const sharedTime = 5 * time.Minute

// unshare removes the shared directory of a job that has ended, as its user and in its own time. The mutex is held.
func (r *Runner) unshare(id shoal.JobID) {
	j := r.jobs[id]
	if j == nil || j.shared.path == "" {
		return
	}
	s := j.shared
	j.shared = shared{}
	go func() { // ends with the process
		ctx, cancel := context.WithTimeout(context.Background(), sharedTime)
		defer cancel()
		c := exec.CommandContext(ctx, "rm", "-rf", "--", s.path)
		c.Dir = "/"
		c.WaitDelay = time.Second
		groups := make([]uint32, len(s.person.Groups))
		for i, g := range s.person.Groups {
			groups[i] = uint32(g)
		}
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(s.person.UID), Gid: uint32(s.person.GID), Groups: groups}}
		if out, err := c.CombinedOutput(); err != nil && !strings.Contains(string(out), "No such file or directory") {
			r.cfg.Log.Warn("a job's shared scratch directory stays", "job", id, "error", err, "output", string(out[:min(len(out), 200)]))
		}
	}()
}
