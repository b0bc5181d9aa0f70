package supervisor

import (
	"errors"
	"io/fs"
	"os"

	"github.com/shoal-pool/shoal"
)

// preparation is a job's, under way on this machine.
type preparation struct {
	done chan struct{} // closed when it has ended
	why  string        // it failed; empty as well if whoever did it was ended before
}

// prepared sees that the job is prepared on this machine: once, whichever of its tasks comes first. The others wait.
// One that fails does so for all that wait; whoever comes later tries again.
func (t *task) prepared() bool {
	o := t.req.Order
	if o.Prepare == "" || o.Release {
		return true
	}
	for {
		done, err := t.s.isPrepared(t.ref.Job)
		if err != nil {
			t.fail("cannot see whether its job is prepared: " + err.Error())
			return false
		}
		if done {
			return true
		}
		p, mine := t.s.preparing(t.ref.Job)
		if mine {
			return t.prepare(p)
		}
		t.limit.Stop() // that another takes long is not its own time
		if !t.pause(p.done) {
			return false
		}
		t.arm()
		if p.why != "" {
			t.fail(p.why)
			return false
		}
	}
}

// prepare runs the preparation for all.
func (t *task) prepare(p *preparation) bool {
	ok := t.step("prepare", t.argv(t.req.Order.Prepare), t.workdir)
	if ok {
		if err := t.s.markPrepared(t.ref.Job); err != nil {
			t.fail("cannot note that its job is prepared: " + err.Error())
			ok = false
		}
	}
	if !ok && t.result.State == shoal.JobFailed {
		p.why = t.result.Reason
	}
	t.s.preparedOrNot(t.ref.Job, p)
	return ok
}

func (s *supervisor) isPrepared(job shoal.JobID) (bool, error) {
	_, err := os.Lstat(s.set.Prepared(job))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// markPrepared notes it where it is gone with the next start of the machine.
func (s *supervisor) markPrepared(job shoal.JobID) error {
	if err := os.MkdirAll(s.set.Jobs(), 0o700); err != nil {
		return err
	}
	return os.WriteFile(s.set.Prepared(job), nil, 0o600)
}

// preparing returns the preparation of a job that is under way; mine says that it is the caller's to do.
func (s *supervisor) preparing(job shoal.JobID) (p *preparation, mine bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.preparations[job]; p != nil {
		return p, false
	}
	p = &preparation{done: make(chan struct{})}
	s.preparations[job] = p
	return p, true
}

func (s *supervisor) preparedOrNot(job shoal.JobID, p *preparation) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.preparations, job)
	close(p.done)
}
