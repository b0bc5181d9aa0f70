package apps

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/host/cgroups"
	"github.com/shoal-pool/shoal/internal/host/tasks"
)

// Config is how a Keeper is set up. Dir, Agent, Lookup and Log are needed.
type Config struct {
	Dir    string        // in memory, root's alone
	Agent  string        // the agent's binary
	Groups *cgroups.Tree // nil: none
	Lookup func(shoal.UserName) (tasks.Person, bool)
	Local  string // where users have local directories; empty: nowhere
	Log    *slog.Logger
}

const (
	helloTime  = 10 * time.Second // for a supervisor to answer
	retryTime  = 100 * time.Millisecond
	maxRetry   = 50               // of connecting to one that lives
	forgetTime = 10 * time.Minute // until an app whose end was told is one that was never there
)

// Keeper keeps the apps of one machine. Its methods may be called concurrently.
type Keeper struct {
	cfg     Config
	changed chan struct{} // capacity 1
	done    chan struct{} // closed by Close
	parts   sync.WaitGroup

	mu    sync.Mutex
	apps  map[shoal.AppID]*app
	doors []string
}

// app is one app. Its fields are the Keeper's to lock.
type app struct {
	id    shoal.AppID
	state State
	dirty bool      // there is something to report
	told  time.Time // when its end was acknowledged
	stop  bool      // it is to end
	conn  net.Conn  // to its supervisor; nil: none now
}

// Open makes a Keeper and adopts what a former one has started.
func Open(cfg Config) (*Keeper, error) {
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("cannot keep apps: %w", err)
	}
	k := &Keeper{cfg: cfg, changed: make(chan struct{}, 1), done: make(chan struct{}), apps: map[shoal.AppID]*app{}}
	entries, err := os.ReadDir(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("cannot keep apps: %w", err)
	}
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), AppFile)
		if id := shoal.AppID(name); ok && ValidID(id) {
			k.adopt(id)
		}
	}
	return k, nil
}

// adopt goes on with an app that a former Keeper has started.
func (k *Keeper) adopt(id shoal.AppID) {
	a := &app{id: id, dirty: true}
	if b, err := os.ReadFile(k.path(id, AppFile)); err != nil || json.Unmarshal(b, &a.state) != nil {
		a.state = State{}
	}
	a.state.Report.ID = id
	k.apps[id] = a
	k.parts.Go(func() { k.follow(a) })
}

func (k *Keeper) path(id shoal.AppID, ending string) string {
	return filepath.Join(k.cfg.Dir, string(id)+ending)
}

// Close lets go. Apps run on and are adopted by the next Keeper.
func (k *Keeper) Close() error {
	k.mu.Lock()
	select {
	case <-k.done:
	default:
		close(k.done)
	}
	for _, a := range k.apps {
		if a.conn != nil {
			_ = a.conn.Close()
		}
	}
	k.mu.Unlock()
	k.parts.Wait()
	return nil
}

// Changed says that there is something to report.
func (k *Keeper) Changed() <-chan struct{} { return k.changed }

func (k *Keeper) poke() {
	select {
	case k.changed <- struct{}{}:
	default:
	}
}

// Live counts the apps that have not ended.
func (k *Keeper) Live() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	n := 0
	for _, a := range k.apps {
		if !a.state.Report.State.Ended() {
			n++
		}
	}
	return n
}

// Want takes the whole set of a Snapshot, with where the gateway comes from: it starts what is missing, and ends what is not listed.
func (k *Keeper) Want(orders []api.AppOrder, doors []string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	moved := !slices.Equal(doors, k.doors)
	k.doors = slices.Clone(doors)
	listed := map[shoal.AppID]bool{}
	for _, o := range orders {
		listed[o.ID] = true
		k.start(o)
	}
	for id, a := range k.apps {
		ended := a.state.Report.State.Ended()
		switch {
		case ended && !a.told.IsZero() && time.Since(a.told) > forgetTime && !listed[id]:
			delete(k.apps, id)
		case ended:
		case !listed[id]:
			k.end(a)
		case moved && a.conn != nil:
			_ = WriteLine(a.conn, Request{Doors: &k.doors}) // else it is told when it is connected again
		}
		a.dirty = a.dirty || listed[id]
	}
	k.poke()
}

// Start starts an app, unless it is known.
func (k *Keeper) Start(o api.AppOrder) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.start(o)
	k.poke()
}

func (k *Keeper) start(o api.AppOrder) {
	if k.apps[o.ID] != nil || !ValidID(o.ID) {
		return
	}
	a := &app{id: o.ID, state: State{User: o.User}, dirty: true}
	a.state.Report.ID, a.state.Report.State = o.ID, shoal.AppStarting
	k.apps[o.ID] = a
	if o.Command == "" {
		a.state.Report = failure(o.ID, "the machine was started again meanwhile, and nothing of it is left")
		return
	}
	p, ok := k.cfg.Lookup(o.User)
	if !ok {
		a.state.Report = failure(o.ID, fmt.Sprintf("user %s has no account on the machine", o.User))
		return
	}
	a.state.UID = p.UID
	order := Order{Order: o, Person: p, Groups: k.cfg.Groups.Config(), Doors: slices.Clone(k.doors), Local: k.cfg.Local}
	k.parts.Go(func() {
		if err := k.spawn(a, order); err != nil {
			k.cfg.Log.Error("cannot start the supervisor of an app", "app", o.ID, "error", err)
			k.over(a, failure(o.ID, "the machine could not start it: "+err.Error()))
			return
		}
		k.follow(a)
	})
}

func failure(id shoal.AppID, why string) api.AppReport {
	return api.AppReport{ID: id, State: shoal.AppFailed, Reason: why}
}

// Stop ends an app. One that is not known is reported as ended.
func (k *Keeper) Stop(id shoal.AppID) {
	k.mu.Lock()
	defer k.mu.Unlock()
	a := k.apps[id]
	switch {
	case a == nil && ValidID(id):
		k.apps[id] = &app{id: id, dirty: true, state: State{Report: api.AppReport{ID: id, State: shoal.AppEnded, Reason: "the machine does not have it"}}}
	case a == nil:
	case a.state.Report.State.Ended():
		a.dirty = true
	default:
		k.end(a)
	}
	k.poke()
}

// end asks a supervisor to end its app. One that is not connected is asked when it is. The caller holds the lock.
func (k *Keeper) end(a *app) {
	a.stop = true
	if a.conn != nil {
		_ = WriteLine(a.conn, Request{Stop: true}) // if that breaks it is told anew
	}
}

// Collect returns what there is to report. sent is to be called once that is acknowledged.
func (k *Keeper) Collect() (reports []api.AppReport, sent func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, id := range slices.Sorted(maps.Keys(k.apps)) {
		if a := k.apps[id]; a.dirty {
			reports = append(reports, a.state.Report)
		}
	}
	return reports, func() { k.sent(reports) }
}

// sent takes note of what the control plane knows now.
func (k *Keeper) sent(reports []api.AppReport) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, r := range reports {
		a := k.apps[r.ID]
		if a == nil || a.state.Report != r {
			continue // there is newer news
		}
		a.dirty = false
		if r.State.Ended() && a.told.IsZero() {
			a.told = time.Now()
			for _, ending := range []string{EndFile, AppFile, SocketFile, LockFile} {
				if err := os.Remove(k.path(a.id, ending)); err != nil && !errors.Is(err, fs.ErrNotExist) {
					k.cfg.Log.Warn("a file of an app that has ended is not removed", "error", err)
				}
			}
		}
	}
}

// spawn starts a supervisor.
func (k *Keeper) spawn(a *app, o Order) error {
	in, err := json.Marshal(o)
	if err != nil {
		return err
	}
	first, err := json.Marshal(a.state)
	if err != nil {
		return err
	}
	if err := os.WriteFile(k.path(a.id, AppFile), first, 0o600); err != nil {
		return err
	}
	lock, err := k.lock(a.id)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := os.Remove(k.path(a.id, SocketFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: k.path(a.id, SocketFile), Net: "unix"})
	if err != nil {
		return err
	}
	l.SetUnlinkOnClose(false)
	defer l.Close()
	file, err := l.File()
	if err != nil {
		return err
	}
	defer file.Close()
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	defer w.Close()
	cmd := exec.Command(k.cfg.Agent, "app", "supervise", k.cfg.Dir, string(a.id))
	cmd.Dir, cmd.Stdin, cmd.Stderr = "/", r, os.Stderr
	cmd.ExtraFiles = []*os.File{file, lock}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	go func() { _ = cmd.Wait() }() // it is ours while we live, then the first process's
	_ = r.Close()
	_ = w.SetWriteDeadline(time.Now().Add(helloTime))
	_, err = w.Write(in)
	return err
}

// lock takes the lock that a supervisor holds while it lives. An error means that one does.
func (k *Keeper) lock(id shoal.AppID) (*os.File, error) {
	f, err := os.OpenFile(k.path(id, LockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// follow takes what a supervisor tells, until the app's end.
func (k *Keeper) follow(a *app) {
	for try := 0; ; {
		began := time.Now()
		err := k.listen(a)
		select {
		case <-k.done:
			return
		default:
		}
		if time.Since(began) > helloTime {
			try = 0
		}
		if end, ok := k.lastWord(a.id); ok {
			k.over(a, end)
			return
		}
		lock, busy := k.lock(a.id)
		if busy == nil {
			_ = lock.Close()
			if end, ok := k.lastWord(a.id); ok { // it went just now
				k.over(a, end)
				return
			}
			k.cfg.Log.Error("the supervisor of an app has gone", "app", a.id, "error", err)
			k.cleanUp(a)
			k.over(a, failure(a.id, "what watched over it was killed"))
			return
		}
		if try++; try > maxRetry {
			k.cfg.Log.Error("the supervisor of an app does not answer", "app", a.id, "error", err)
			try = 0
		}
		select {
		case <-k.done:
			return
		case <-time.After(retryTime * time.Duration(1+try)):
		}
	}
}

// lastWord is what a supervisor has left of an app that ended.
func (k *Keeper) lastWord(id shoal.AppID) (api.AppReport, bool) {
	b, err := os.ReadFile(k.path(id, EndFile))
	var s State
	if err != nil || json.Unmarshal(b, &s) != nil || !s.Report.State.Ended() || s.Report.ID != id {
		return api.AppReport{}, false
	}
	return s.Report, true
}

// listen takes states of a supervisor until the connection breaks.
func (k *Keeper) listen(a *app) error {
	c, err := net.DialTimeout("unix", k.path(a.id, SocketFile), helloTime)
	if err != nil {
		return err
	}
	defer c.Close()
	k.mu.Lock()
	select {
	case <-k.done:
		k.mu.Unlock()
		return nil
	default:
	}
	a.conn = c
	_ = WriteLine(c, Request{Doors: &k.doors})
	if a.stop {
		_ = WriteLine(c, Request{Stop: true})
	}
	k.mu.Unlock()
	defer func() {
		k.mu.Lock()
		a.conn = nil
		k.mu.Unlock()
	}()
	in := bufio.NewReader(c)
	for {
		var s State
		if err := ReadLine(in, &s); err != nil {
			return err
		}
		if s.Report.ID != a.id {
			return errors.New("it speaks of another app")
		}
		k.mu.Lock()
		if s != a.state && !s.Report.State.Ended() { // the end counts once it is on disk, or all is gone
			a.state, a.dirty = s, true
			k.poke()
		}
		k.mu.Unlock()
	}
}

// over notes the end of an app.
func (k *Keeper) over(a *app, r api.AppReport) {
	k.mu.Lock()
	defer k.mu.Unlock()
	a.state.Report, a.dirty = r, true
	k.poke()
}

// cleanUp ends what is left of an app whose supervisor was killed.
func (k *Keeper) cleanUp(a *app) {
	k.mu.Lock()
	uid := a.state.UID
	k.mu.Unlock()
	if uid == 0 || k.cfg.Groups == nil {
		return // its first process went with the supervisor
	}
	if err := tasks.RemoveGroup(k.cfg.Groups.Find(uid, GroupName(a.id))); err != nil {
		k.cfg.Log.Warn("what is left of an app does not go away", "app", a.id, "error", err)
	}
}
