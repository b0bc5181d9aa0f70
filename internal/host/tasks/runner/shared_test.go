package runner

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
)

// TestShared: the directory that a job's tasks share goes with the job, and nothing that only calls itself so.
func TestShared(t *testing.T) {
	b := newBox(t, false)
	home := users()["alice"].Home
	if p, ok := b.cfg.Lookup("alice"); ok {
		home = p.Home
	}
	shared, other := home+"/.shoal/scratch/1", home+"/mine"
	with := func(job, dir string) api.TaskOrder {
		return order(job, `mkdir -p "$SHOAL_JOB_SCRATCH/a" && : > "$SHOAL_JOB_SCRATCH/a/b"`, func(o *api.TaskOrder) {
			o.Env["SHOAL_JOB_SCRATCH"] = dir
			o.Outputs = []string{dir}
		})
	}
	b.run(with("1", shared))
	b.run(with("2", other))
	if _, err := os.Stat(shared + "/a/b"); err != nil {
		t.Errorf("it goes with a task: %v", err)
	}
	b.runner.Forget(api.ForgetTask{Jobs: []shoal.JobID{"1", "2"}})
	b.until("the shared directory is gone", func() bool { _, err := os.Stat(shared); return os.IsNotExist(err) })
	if _, err := os.Stat(filepath.Join(other, "a/b")); err != nil {
		t.Errorf("a directory of the user's own went with the job: %v", err)
	}
}
