package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/host/apps"
	"github.com/shoal-pool/shoal/internal/host/cgroups"
	"github.com/shoal-pool/shoal/internal/host/localdisk"
	"github.com/shoal-pool/shoal/internal/host/owner"
	"github.com/shoal-pool/shoal/internal/host/tasks"
)

// Times of an app.
const (
	grace       = 10 * time.Second // between a request to end and force
	firstLook   = 50 * time.Millisecond
	lastLook    = 200 * time.Millisecond // between looks whether it is ready
	probeTime   = 10 * time.Second       // for an answer
	activeEvery = 30 * time.Second       // between looks whether it works
	activeShare = 0.05                   // of a processor: then it does
	tries       = 3                      // with other ports, when somebody else had taken the one before
)

// logSize is how much is kept of what an app has written last; logLines how much of that is told.
const (
	logSize  = 64 << 10
	logLines = 4 << 10
)

// run starts the app and returns how it ended.
func (s *supervisor) run() apps.State {
	end := apps.State{User: s.o.Order.User, UID: s.o.Person.UID}
	if why, err := s.setUp(); err != nil {
		end.Report = failed(fmt.Sprintf("%s: %v", why, err))
	} else {
		for try := 1; ; try++ {
			a := attempt{supervisor: s}
			end.Report = a.run()
			if !a.taken || try == tries || s.ending() {
				break
			}
			if err := s.enclose(); err != nil { // since all that was in it was killed, nothing more may start in it
				end.Report = failed(err.Error())
				break
			}
		}
	}
	if s.door != nil {
		s.door.close(s.dir)
	}
	if err := tasks.RemoveGroup(s.group); err != nil {
		end.Report.Reason += "; " + err.Error()
	}
	end.Report.ID = s.o.Order.ID
	if end.Report.State == shoal.AppFailed {
		end.Report.Log = s.log.last(logLines)
	}
	return end
}

func failed(why string) api.AppReport { return api.AppReport{State: shoal.AppFailed, Reason: why} }

// setUp makes what the app needs. why says what could not be done.
func (s *supervisor) setUp() (why string, err error) {
	if err := s.enclose(); err != nil {
		return "cannot give it a slice of the machine", err
	}
	if s.o.Local != "" { // it stays when the app ends, for the next one here
		if err := localdisk.MakeIn(s.o.Local, s.o.Person.UID, s.o.Person.GID); err != nil {
			return "cannot make its directory on the machine's disk", err
		}
	}
	s.door, err = openDoor(s.dir, s.o.Person.UID, s.admits)
	return "cannot open the gateway's way in", err
}

// enclose makes the app's control group, if the machine has any.
func (s *supervisor) enclose() error {
	if s.o.Groups == nil {
		return nil
	}
	tree, err := cgroups.Open(*s.o.Groups)
	if err != nil {
		return err
	}
	// As much as a login of hers.
	s.group, err = tree.Task(s.o.Person.UID, apps.GroupName(s.o.Order.ID), shoal.Resources{CPUs: 4000})
	if err == nil {
		s.tell(func(x *apps.State) { x.Group = true })
	}
	return err
}

// attempt is the app at one port.
type attempt struct {
	*supervisor
	guard guard
	child *child
	taken bool // somebody else has the port

	ready   bool
	fails   int // probes that failed in a row
	problem string
	used    time.Duration // of the processor, at the look before
	looked  time.Time
}

// run is the life of the app at one port.
func (a *attempt) run() api.AppReport {
	port, err := freePort()
	if err != nil {
		return failed(err.Error())
	}
	a.guard = guard{port: port, uid: a.o.Person.UID}
	if a.child, err = a.start(port); err != nil {
		return failed(err.Error())
	}
	defer a.child.done()
	path := a.o.Order.Ready.Path
	a.tell(func(x *apps.State) { x.Report.Progress = "it is started, and asked at " + path + " until it answers" })
	a.looked = time.Now()
	r := a.watch()
	a.door.shut()
	a.killAll()
	return r
}

// watch waits until the app is ready, and then until it ends, or has to.
func (a *attempt) watch() api.AppReport {
	limit := time.Duration(a.o.Order.Ready.Timeout)
	late := time.NewTimer(limit)
	defer late.Stop()
	wait := firstLook
	look := time.NewTimer(wait)
	defer look.Stop()
	active := time.NewTicker(activeEvery)
	defer active.Stop()
	answers := make(chan error, 1)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	exited := a.child.exited
	for {
		select {
		case <-a.stop:
			a.askToEnd()
			return api.AppReport{State: shoal.AppEnded, Reason: "it was stopped"}
		case <-exited:
			if a.child.status.ExitStatus() != 0 || !a.serves() {
				return a.ended()
			}
			exited = nil // it has left another process behind that serves
		case <-late.C:
			if !a.ready {
				return failed(fmt.Sprintf("it did not answer at %s within %s: %s", a.o.Order.Ready.Path, shoal.Duration(limit), a.problem))
			}
		case <-active.C:
			a.noteWork()
			if exited == nil && !a.serves() {
				return a.ended()
			}
		case <-look.C:
			go func() { answers <- a.probe(ctx) }()
		case err := <-answers:
			if errors.Is(err, errTaken) && !a.ready {
				a.taken = true
				return failed(err.Error())
			}
			a.judge(err)
			wait = min(wait*3/2, lastLook)
			if a.ready {
				wait = time.Duration(a.o.Order.Ready.Interval)
			}
			look.Reset(wait)
		}
	}
}

// judge takes the outcome of a probe.
func (a *attempt) judge(err error) {
	if err == nil {
		a.fails, a.problem = 0, ""
		if !a.ready {
			a.ready = true
			a.door.open(a.guard)
		}
		a.tell(func(x *apps.State) {
			x.Report.State, x.Report.Port, x.Report.Progress, x.Report.Ill = shoal.AppRunning, a.door.port, "", ""
		})
		return
	}
	a.problem = err.Error()
	if !a.ready {
		return
	}
	if a.fails++; a.fails >= a.o.Order.Ready.Threshold {
		a.tell(func(x *apps.State) { x.Report.Ill = a.problem })
	}
}

// serves reports whether some process of the user's listens at the port.
func (a *attempt) serves() bool {
	s, err := owner.Listener(a.guard.at())
	return err == nil && s.UID == a.guard.uid
}

// noteWork notes that the app's processes work, if they do: a computation is somebody's use, though nobody looks.
func (a *attempt) noteWork() {
	u, err := a.group.Usage()
	now := time.Now()
	if err == nil && !a.group.None() && (u.CPU-a.used).Seconds() > activeShare*now.Sub(a.looked).Seconds() && a.ready {
		a.tell(func(x *apps.State) { x.Report.LastActivity = now.UTC().Truncate(time.Second) })
	}
	a.used, a.looked = u.CPU, now
}

// ended says how an app ended of itself.
func (a *attempt) ended() api.AppReport {
	when := ""
	if !a.ready {
		when = " before it answered"
	}
	status := a.child.status
	u, err := a.group.Usage()
	switch {
	case err == nil && u.OOMKilled:
		return failed("it was ended for want of memory" + when)
	case status.Signaled():
		r := failed(fmt.Sprintf("it was ended by signal %d (%s)%s", status.Signal(), unix.SignalName(status.Signal()), when))
		r.ExitCode = 128 + int(status.Signal())
		return r
	case status.ExitStatus() != 0 || !a.ready:
		r := failed(fmt.Sprintf("its command ended with exit code %d%s", status.ExitStatus(), when))
		r.ExitCode = status.ExitStatus()
		return r
	}
	return api.AppReport{State: shoal.AppEnded, Reason: "it ended by itself"}
}

// askToEnd asks all processes of the app to end, and waits for that, but not for ever.
func (a *attempt) askToEnd() {
	_ = unix.Kill(-a.child.pid, unix.SIGTERM)
	pids, _ := a.group.Pids()
	for _, pid := range pids {
		if pgid, err := unix.Getpgid(pid); err == nil && pgid != a.child.pid { // nobody twice
			_ = unix.Kill(pid, unix.SIGTERM)
		}
	}
	for end := time.Now().Add(grace); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		pids, _ := a.group.Pids()
		if len(pids) == 0 && a.child.gone() {
			return
		}
	}
}

// killAll kills what is left of the app.
func (a *attempt) killAll() {
	if !a.child.gone() {
		_ = unix.Kill(-a.child.pid, unix.SIGKILL)
	}
	if a.group.None() {
		tasks.KillStrays(a.o.Person.UID, "", []tasks.Started{{PID: a.child.pid, Born: a.child.born}})
		return
	}
	if err := a.group.Kill(); err != nil {
		a.log.note(err.Error())
	}
}

// errTaken says that somebody else has the app's port.
var errTaken = errors.New("a program of somebody else's has taken its port")

// probe asks the app whether it is well.
func (a *attempt) probe(ctx context.Context) error {
	s, err := owner.Listener(a.guard.at())
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return errors.New("nothing listens at 127.0.0.1:$SHOAL_PORT")
	case err != nil:
		return err
	case s.UID != a.guard.uid:
		return errTaken
	}
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	return a.ask(ctx)
}
