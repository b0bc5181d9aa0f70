package runner

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/host/tasks"
)

// jobTime is how long what is kept for a job outlives its last attempt here, if nobody says that the job has ended.
const jobTime = time.Hour

// gonePrefix begins the names of scratch directories that are being removed.
const gonePrefix = "gone-"

// job is one of which something is kept on the machine: a scratch directory, and that it is prepared.
type job struct {
	attempts int
	over     bool
	timer    *time.Timer // while it has no attempts
	shared   shared
}

// jobIn counts an attempt of a job.
func (r *Runner) jobIn(id shoal.JobID) {
	j := r.jobs[id]
	if j == nil {
		j = &job{}
		r.jobs[id] = j
	}
	j.attempts++
	if j.timer != nil {
		j.timer.Stop()
		j.timer = nil
	}
}

// jobOut counts one less.
func (r *Runner) jobOut(id shoal.JobID) {
	if j := r.jobs[id]; j != nil {
		if j.attempts--; j.attempts == 0 {
			r.jobIdle(id, j)
		}
	}
}

// jobOver says that nothing of a job comes here any more.
func (r *Runner) jobOver(id shoal.JobID) {
	if j := r.jobs[id]; j != nil {
		j.over = true
		if j.attempts == 0 {
			r.jobIdle(id, j)
		}
	}
}

// jobIdle decides what becomes of what is kept for a job without attempts. Most have left nothing in their directory
// and were not prepared, so nothing is kept.
func (r *Runner) jobIdle(id shoal.JobID, j *job) {
	dir := r.cfg.JobScratch(id)
	if !j.over {
		_, err := os.Lstat(r.cfg.Prepared(id))
		if !errors.Is(err, fs.ErrNotExist) || errors.Is(unix.Rmdir(dir), unix.ENOTEMPTY) {
			if j.timer == nil {
				j.timer = time.AfterFunc(r.cfg.jobTime, func() { r.jobLeft(id) })
			}
			return
		}
	}
	if j.timer != nil {
		j.timer.Stop()
	}
	delete(r.jobs, id)
	if err := unix.Unlink(r.cfg.Prepared(id)); err != nil && !errors.Is(err, unix.ENOENT) {
		r.cfg.Log.Warn("that a job is prepared here is not forgotten", "job", id, "error", err)
	}
	r.clear(dir)
}

// jobLeft is called when a job was without attempts for long.
func (r *Runner) jobLeft(id shoal.JobID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	select {
	case <-r.done:
		return // the next Runner sees to it
	default:
	}
	r.jobOver(id)
}

// clear removes a directory in its own time. Under its name another may be made at once.
func (r *Runner) clear(dir string) {
	if err := unix.Rmdir(dir); err == nil || errors.Is(err, unix.ENOENT) {
		return
	}
	gone := dir
	if !strings.HasPrefix(filepath.Base(dir), gonePrefix) {
		gone = filepath.Join(r.cfg.Scratch, fmt.Sprintf("%s%d", gonePrefix, time.Now().UnixNano()))
		if err := os.Rename(dir, gone); err != nil {
			r.cfg.Log.Warn("a scratch directory stays", "error", err)
			return
		}
	}
	go func() { // ends with the process; what is left is found by the next
		if err := tasks.RemoveScratch(gone); err != nil {
			r.cfg.Log.Warn("a scratch directory stays", "error", err)
		}
	}()
}

// adoptJobs finds what is kept for jobs. After a start of the machine nothing of that is of use.
func (r *Runner) adoptJobs() {
	r.mu.Lock()
	defer r.mu.Unlock()
	err := os.Mkdir(r.cfg.Jobs(), 0o700)
	if errors.Is(err, fs.ErrNotExist) {
		err = errors.Join(os.MkdirAll(r.cfg.Run, 0o755), os.Mkdir(r.cfg.Jobs(), 0o700))
	}
	anew := err == nil
	if err != nil && !errors.Is(err, fs.ErrExist) {
		r.cfg.Log.Warn("it cannot be noted which jobs are prepared here", "error", err)
	}
	entries, err := os.ReadDir(r.cfg.Scratch)
	if err != nil {
		return // no task was here yet
	}
	for _, e := range entries {
		id, ok := strings.CutPrefix(e.Name(), tasks.JobPrefix)
		switch {
		case strings.HasPrefix(e.Name(), gonePrefix):
			r.clear(filepath.Join(r.cfg.Scratch, e.Name()))
		case !ok || r.jobs[shoal.JobID(id)] != nil:
		default:
			j := &job{over: anew}
			r.jobs[shoal.JobID(id)] = j
			r.jobIdle(shoal.JobID(id), j)
		}
	}
}
