package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
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
	"github.com/shoal-pool/shoal/internal/agent"
	"github.com/shoal-pool/shoal/internal/host/accounts"
	"github.com/shoal-pool/shoal/internal/host/homes"
	"github.com/shoal-pool/shoal/internal/whole"
)

// rosterFile tells the door and init whose homes are archived. It is there where homes are local and link to a share.
const rosterFile = agentDir + "/homes.json"

// Times of homes.
const (
	bringTime = 2 * time.Minute  // for a home to come back while its user waits
	saveTime  = 10 * time.Minute // for one to be archived after its user has left
	lastTime  = 4 * time.Minute  // for all that is not archived yet when the machine ends; its provider gives it a little more
	restTime  = 20 * time.Second // between looks at the home of somebody who is connected
	lockTime  = 20 * time.Second // for what else is done to a home that somebody waits for
)

// roster is whose homes are archived, and where.
type roster struct {
	Machine shoal.MachineID          `json:"machine"`
	State   string                   `json:"state"` // a directory with a file for each user
	Homes   map[shoal.UserName]local `json:"homes"`
}

// local is a local home.
type local struct {
	UID   int      `json:"uid"`
	GID   int      `json:"gid"`
	Home  string   `json:"home"`
	Dir   string   `json:"dir"`   // hers on the share
	Share string   `json:"share"` // the name of the link to it
	Leave []string `json:"leave"`
}

// record is what is known of a local home.
type record struct {
	Saved  int64            `json:"saved"` // what was changed before is archived
	Merged map[string]int64 `json:"merged,omitempty"`
	Left   string           `json:"left,omitempty"`  // what is not in the archive
	Error  string           `json:"error,omitempty"` // why there is no newer archive
}

// roll says whose homes are archived, if any are. Fresh are the paths of those that were made just now.
func (m *machine) roll(want api.Accounts, mounts []api.AgentMount, fresh map[string]bool) error {
	i := slices.IndexFunc(mounts, func(a api.AgentMount) bool { return a.Links && !a.ReadOnly })
	if i < 0 {
		return nil
	}
	r := roster{Machine: shoal.MachineID(filepath.Base(m.state)), State: filepath.Join(m.state, "homes"), Homes: map[shoal.UserName]local{}}
	if err := os.MkdirAll(r.State, 0o700); err != nil {
		return err
	}
	now := int64(0)
	for _, u := range want.Users { // disabled ones too: they may have left something
		l := local{UID: u.UID, GID: u.GID, Home: filepath.Clean(u.Home), Dir: accounts.Notebooks(mounts[i], u.Name), Share: string(mounts[i].Share)}
		var st unix.Stat_t
		if distant(l.Home, mounts) || unix.Lstat(l.Home, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR || int(st.Uid) != u.UID {
			continue
		}
		for _, link := range accounts.LinksTo(mounts[i], u.Name) {
			l.Leave = append(l.Leave, link.Path)
		}
		r.Homes[u.Name] = l
		if _, err := os.Stat(r.file(u.Name)); errors.Is(err, fs.ErrNotExist) {
			var rec record
			if fresh[l.Home] { // it holds what each new home does, which is no loss
				if now == 0 {
					now = homes.Tick()
				}
				rec.Saved = now
			}
			if err := r.put(u.Name, rec); err != nil {
				return err
			}
		}
	}
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if old, err := os.ReadFile(rosterFile); err == nil && bytes.Equal(old, b) {
		return nil
	}
	return whole.Write(rosterFile, b, 0o600)
}

// readRoster returns an empty roster where there is none.
func readRoster() roster {
	var r roster
	if b, err := os.ReadFile(rosterFile); err != nil || json.Unmarshal(b, &r) != nil {
		return roster{}
	}
	return r
}

func (r roster) file(name shoal.UserName) string { return filepath.Join(r.State, string(name)+".json") }

func (r roster) get(name shoal.UserName) (rec record) {
	if b, err := os.ReadFile(r.file(name)); err != nil || json.Unmarshal(b, &rec) != nil {
		return record{}
	}
	return rec
}

func (r roster) put(name shoal.UserName, rec record) error {
	b, err := json.Marshal(rec)
	if err != nil {
		return err
	}
	return whole.Write(r.file(name), b, 0o600)
}

// do archives a home or brings it back, while nobody else does either.
func (r roster) do(ctx context.Context, what string, name shoal.UserName) (homes.Done, error) {
	l, ok := r.Homes[name]
	if !ok {
		return homes.Done{Nothing: true}, nil
	}
	unlock, err := lockHome(ctx, filepath.Join(agentDir, "home-"+string(name)+".lock"), patienceOf(what))
	if err != nil {
		return homes.Done{}, err
	}
	defer unlock()
	rec := r.get(name)
	done, err := homeApart(ctx, what, l, homes.Order{Home: l.Home, Dir: l.Dir, Machine: string(r.Machine), Leave: l.Leave, Merged: rec.Merged, Saved: rec.Saved})
	if err != nil && done.Saved == 0 {
		done.Saved, done.Merged = rec.Saved, rec.Merged
	}
	next := record{Saved: done.Saved, Merged: done.Merged, Left: rec.Left, Error: rec.Error}
	if what == "save" {
		next.Error = ""
		if err != nil {
			next.Error = err.Error()
		} else if !done.Nothing {
			next.Left = done.Left
		}
	}
	return done, errors.Join(err, r.put(name, next))
}

// patienceOf is how long the home may be somebody else's to work at. Nobody waits for an archive but a machine that ends, and
// that loses what is in none.
func patienceOf(what string) time.Duration {
	if what == "save" {
		return saveTime
	}
	return lockTime
}

// lockHome waits until nobody else works at a home.
func lockHome(ctx context.Context, path string, patience time.Duration) (func(), error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		if err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err == nil {
			return func() { _ = f.Close() }, nil
		}
		if ctx.Err() != nil || time.Now().After(end) {
			return nil, errors.Join(shoal.Errorf(shoal.KindUnavailable, "the home is being archived"), f.Close())
		}
	}
}

// homeAnswer is what the child says on standard output.
type homeAnswer struct {
	homes.Done
	Error string `json:"error,omitempty"`
}

// homeApart does it in a process with the user's rights.
func homeApart(ctx context.Context, what string, l local, o homes.Order) (homes.Done, error) {
	cmd := exec.CommandContext(ctx, "/proc/self/exe", "home", what)
	cmd.Dir, cmd.Env = "/", []string{}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(l.UID), Gid: uint32(l.GID)}}
	var a homeAnswer
	late, err := apart(ctx, cmd, o, &a)
	switch {
	case late:
		return homes.Done{}, shoal.Errorf(shoal.KindUnavailable, "it took too long; perhaps the share does not answer")
	case err != nil:
		return homes.Done{}, fmt.Errorf("cannot %s the home: %w", what, err)
	case a.Error != "":
		return a.Done, errors.New(a.Error)
	}
	return a.Done, nil
}

// homeMain archives a home, or brings it back, with the rights that it is started with. The order comes on standard input.
func homeMain(args []string) int {
	var o homes.Order
	if len(args) != 1 || json.NewDecoder(os.Stdin).Decode(&o) != nil {
		fmt.Fprintln(os.Stderr, "shoal-agent home is called by the agent")
		return 2
	}
	unix.Umask(0o077)
	var a homeAnswer
	var err error
	if args[0] == "save" {
		_ = unix.Setpriority(unix.PRIO_PROCESS, 0, 10) // people work meanwhile
		a.Done, err = o.Save()
	} else {
		a.Done, err = o.Restore()
	}
	if err != nil {
		a.Error = err.Error()
	}
	if json.NewEncoder(os.Stdout).Encode(a) != nil {
		return 1
	}
	return 0
}

// homesMain archives all homes that are not archived as they are. Init calls it when the machine ends.
func homesMain() int {
	r := readRoster()
	ctx, cancel := context.WithTimeout(context.Background(), lastTime)
	defer cancel()
	var all sync.WaitGroup
	slots := make(chan struct{}, 4)
	for name := range r.Homes {
		all.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			if _, err := r.do(ctx, "save", name); err != nil {
				fmt.Fprintf(os.Stderr, "shoal-agent: the home of %s is not archived: %v\n", name, err)
			}
		})
	}
	all.Wait()
	return 0
}

// maxTrouble bounds of how many users is told what cannot be made.
const maxTrouble = 50 // as agenthub takes

// troubled notes what cannot be made, for the door and for the load, and logs it once.
func (m *machine) troubled(problems []accounts.Problem) error {
	all := map[shoal.UserName]string{}
	for _, p := range problems {
		if before, ok := all[p.User]; ok {
			all[p.User] = before + "; " + p.Reason
		} else if len(all) < maxTrouble {
			all[p.User] = p.Reason
		}
	}
	m.mu.Lock()
	same := maps.Equal(all, m.trouble)
	m.trouble = all
	m.mu.Unlock()
	if same {
		return nil
	}
	for _, p := range problems {
		m.log.Warn(p.Reason, "user", p.User)
	}
	if len(all) == 0 {
		return os.Remove(troubleFile)
	}
	b, err := json.Marshal(all)
	if err != nil {
		return err
	}
	return whole.Write(troubleFile, b, 0o600)
}

// homes are what is wrong with homes: those that cannot be made, and those that cannot be archived.
func (m *machine) homes() map[shoal.UserName]string {
	m.mu.Lock()
	all := maps.Clone(m.trouble)
	m.mu.Unlock()
	r := readRoster()
	for name := range r.Homes {
		if rec := r.get(name); rec.Error != "" && len(all) < maxTrouble {
			if all == nil {
				all = map[shoal.UserName]string{}
			}
			all[name] = "what lies in her home on the machine's own disk cannot be archived: " + rec.Error
		}
	}
	if len(all) == 0 {
		return nil
	}
	return all
}

// mourn tells a user who logs in what could not be made for her.
func mourn(name shoal.UserName) {
	var all map[shoal.UserName]string
	if b, err := os.ReadFile(troubleFile); err != nil || json.Unmarshal(b, &all) != nil {
		return
	}
	if trouble, ok := all[name]; ok {
		fmt.Printf("Something of yours is missing here, and is tried again every minute: %s\n", trouble)
	}
}

// greet brings a user's home back when she logs in, and tells what she finds.
func greet(name shoal.UserName) {
	r := readRoster()
	l, ok := r.Homes[name]
	if !ok {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), bringTime)
	defer cancel()
	done, err := r.do(ctx, "restore", name)
	rec := r.get(name)
	fmt.Printf("This home is on the disk of machine %s. ~/%s and ~/notebooks/remote are on share %s; the rest is archived there when you leave.\n",
		r.Machine, l.Share, l.Share)
	switch {
	case err != nil:
		fmt.Printf("What is archived could not be brought back; it is kept, and tried again when you log in: %v\n", err)
	case !done.Nothing:
		fmt.Printf("Brought back from the archive of %s: %d files, %s.\n", done.From.UTC().Format("2006-01-02 15:04 MST"), done.Files, shoal.Bytes(done.Bytes))
	}
	if left := cmp.Or(done.Left, rec.Left); left != "" {
		fmt.Println(left)
	}
	if rec.Error != "" {
		fmt.Println("The last archiving has failed:", rec.Error)
	}
}

// visits ends the name of a file that says that somebody was here since her home was looked at last.
const visits = ".visited"

// visited notes that somebody has come or gone: she may be gone before anybody looks.
func visited(name shoal.UserName) {
	r := readRoster()
	if _, ok := r.Homes[name]; ok {
		_ = os.WriteFile(filepath.Join(r.State, string(name)+visits), nil, 0o600) // else she is seen, or the machine's end archives it
	}
}

// left are those who were here and are not any more.
func (l *leavers) left(now map[shoal.UserName]bool) []shoal.UserName {
	var out []shoal.UserName
	for name, was := range l.there {
		if was && !now[name] {
			out = append(out, name)
		}
	}
	files, _ := filepath.Glob(filepath.Join(l.m.state, "homes", "*"+visits))
	for _, f := range files {
		name := shoal.UserName(strings.TrimSuffix(filepath.Base(f), visits))
		if now[name] || os.Remove(f) != nil || slices.Contains(out, name) {
			continue
		}
		out = append(out, name)
	}
	return out
}

// leavers notices who leaves the machine, and archives their homes.
type leavers struct {
	agent.Watcher
	m *machine

	mu    sync.Mutex
	there map[shoal.UserName]bool
	tried map[shoal.UserName]time.Time // when a home was archived last, or found to be
	turn  chan struct{}                // one home at a time
}

func (m *machine) leavers(w agent.Watcher) *leavers {
	return &leavers{Watcher: w, m: m, tried: map[shoal.UserName]time.Time{}, turn: make(chan struct{}, 1)}
}

func (l *leavers) Look() (api.Activity, error) {
	seen, err := l.Watcher.Look()
	if err != nil {
		return seen, err
	}
	l.m.sweep()
	l.mu.Lock()
	defer l.mu.Unlock()
	now := map[shoal.UserName]bool{}
	r := readRoster()
	for _, u := range seen.Users {
		if h, ok := r.Homes[u.User]; ok {
			now[u.User] = len(u.Pins) > 0 || atWork(h.UID)
		}
	}
	leaving := l.left(now)
	for name, busy := range now { // whoever is connected and runs nothing may have run something since, unseen
		if !busy && time.Since(l.tried[name]) >= restTime && !slices.Contains(leaving, name) {
			leaving = append(leaving, name)
		}
	}
	for _, name := range leaving {
		l.tried[name] = time.Now()
		go l.save(name)
	}
	l.there = now
	return seen, nil
}

// atWork reports whether anything of a user's runs but connections: the gateway keeps hers for a while after she has gone.
func atWork(uid int) bool {
	return hasProcess(uid, func(name string) bool { return !strings.HasPrefix(name, "sshd") })
}

// hasProcess reports whether a user has a process with a name that counts, or that is not known.
func hasProcess(uid int, counts func(name string) bool) bool {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return true
	}
	for _, e := range entries {
		var st unix.Stat_t
		if e.Name()[0] < '1' || e.Name()[0] > '9' || unix.Stat("/proc/"+e.Name(), &st) != nil || int(st.Uid) != uid {
			continue
		}
		if comm, err := os.ReadFile("/proc/" + e.Name() + "/comm"); err == nil && counts(string(comm)) {
			return true
		}
	}
	return false
}

func (l *leavers) save(name shoal.UserName) {
	l.turn <- struct{}{}
	defer func() { <-l.turn }()
	ctx, cancel := context.WithTimeout(context.Background(), saveTime)
	defer cancel()
	r := readRoster()
	l.m.afterEnd(ctx, r.Homes[name].UID)
	if _, err := r.do(ctx, "save", name); err != nil {
		l.m.log.Warn("a home is not archived; the machine's end tries again", "user", name, "error", err)
	}
}
