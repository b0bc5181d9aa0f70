package mounts

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/spec/shares"
	"github.com/shoal-pool/shoal/provider"
)

// Config is how a set is made. All but Self, Secret and Groups are needed.
type Config struct {
	Dir string // of what is mounted; made if absent
	Run string // on a tmpfs, for credentials; made if absent
	// Self is this program, which calls Child first: /proc/self/exe. Empty: there are only directories.
	Self string
	// Secret returns the value of a share's credentials, and puts on record that it did.
	Secret func(ctx context.Context, share shoal.ShareName, name string) ([]byte, error)
	// Groups are the control files of the group that clients join, to outlive the server.
	Groups func() ([]string, error)
	// Machines lists the machines that run. Changed is called when what Trouble says has changed. Neither waits.
	Machines func() []Machine
	Changed  func()
	// InUse are the keys of all mounts that some machine has or is about to have.
	InUse func() []string
	Log   *slog.Logger

	// Timeout bounds mounting, and looking whether a share answers. Interval is how often that is done. Zero: 20 s and 15 s.
	Timeout, Interval time.Duration
	// Kernel reports whether the kernel has a client; nil: ask it.
	Kernel func(ctx context.Context, fs string) bool
}

// Machine is one that runs, with the shares it shall have.
type Machine struct {
	ID     shoal.MachineID
	PID    int // of its first process, as the host sees it
	Mounts []provider.Mount
	Homes  []provider.HomeMount
	// Mask is a directory of the host, the machine's own, for what covers the places of homes.
	Mask string
}

// Bind is a directory of the host on its way into a machine.
type Bind struct {
	From     string
	To       string
	ReadOnly bool
}

// Set is the mounts of one provider. Its methods may be called from any goroutine.
type Set struct {
	cfg  Config
	kick chan struct{}

	giving sync.Mutex // one gives machines their mounts at a time

	mu    sync.Mutex
	units map[string]*unit
	// has is which generation machines were given, by machine and place. What is not here was given by a former server.
	has map[spot]int
	// given is what machines were found to have. The place of its spots is empty.
	given   map[spot]given
	waiting map[string]*late // who asks a directory that does not answer
	kept    map[string]bool  // units that left files behind, which has been told
}

type spot struct {
	machine shoal.MachineID
	pid     int
	at      string
}

// unit is one mount: a share, or the directory of one user on it.
type unit struct {
	key      string
	share    shoal.Share
	src      shares.Source
	sub      string // of a home
	uid, gid int

	busy sync.Mutex // one mounts or unmounts it at a time

	// Guarded by the set's mutex.
	rec      record
	trouble  string
	since    time.Time // of the trouble
	failures int       // in a row
	next     time.Time // mounting is not tried again before
	wait     time.Duration
	renew    bool // its secret was changed
	looking  bool
}

func (u *unit) home() bool { return u.sub != "" }

// record is what is on disk of a unit.
type record struct {
	Share    shoal.Share
	Sub      string `json:",omitempty"`
	UID, GID int    `json:",omitempty"`
	Gen      int    // of the mount; 0: none yet
	Client   client
	PID      int    `json:",omitempty"` // of the client in user space
	Start    uint64 `json:",omitempty"`
	Cache    string `json:",omitempty"`
	Read     time.Time
}

// Key names what a share is mounted as: it changes with whatever changes the mount.
func Key(share shoal.Share) string { return key(share, "", 0, 0) }

func key(share shoal.Share, sub string, uid, gid int) string {
	sum := sha256.Sum256(fmt.Append(nil, share.Source, share.Options, share.Credentials, sub, uid, gid))
	return string(share.Name) + "-" + hex.EncodeToString(sum[:4])
}

// Keys are those of the mounts that a machine's shares need.
func Keys(mounts []provider.Mount, homes []provider.HomeMount) []string {
	var out []string
	for _, m := range mounts {
		if !path.IsAbs(m.Share.Source) {
			out = append(out, Key(m.Share))
		}
	}
	for _, h := range homes {
		out = append(out, Key(h.Share), key(h.Share, h.Sub, h.UID, h.GID))
	}
	return out
}

// Open makes a set and reads what a former one has mounted.
func Open(cfg Config) (*Set, error) {
	if cfg.Timeout == 0 {
		cfg.Timeout = 20 * time.Second
	}
	if cfg.Interval == 0 {
		cfg.Interval = 15 * time.Second
	}
	if cfg.Kernel == nil {
		cfg.Kernel = hasKernel
	}
	s := &Set{cfg: cfg, kick: make(chan struct{}, 1), units: map[string]*unit{}, has: map[spot]int{}, given: map[spot]given{}, waiting: map[string]*late{}, kept: map[string]bool{}}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(cfg.Dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		var rec record
		b, err := os.ReadFile(filepath.Join(cfg.Dir, e.Name(), "record.json"))
		if err != nil || json.Unmarshal(b, &rec) != nil || key(rec.Share, rec.Sub, rec.UID, rec.GID) != e.Name() {
			continue
		}
		if src, err := shares.Parse(rec.Share); err == nil {
			s.units[e.Name()] = &unit{key: e.Name(), share: rec.Share, src: src, sub: rec.Sub, uid: rec.UID, gid: rec.GID, rec: rec}
		}
	}
	s.forgetCredentials()
	return s, nil
}

// Close removes what was needed while there were mounts, where there are none any more.
func (s *Set) Close() error {
	for _, dir := range []string{filepath.Join(s.cfg.Run, "stage"), s.cfg.Run} {
		if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// forgetCredentials removes what nobody needs any more: the keys of clients that are not there.
func (s *Set) forgetCredentials() {
	entries, _ := os.ReadDir(s.cfg.Run)
	for _, e := range entries {
		u := s.units[strings.TrimSuffix(e.Name(), ".key")]
		if u == nil || startTime(u.rec.PID) != u.rec.Start {
			_ = os.Remove(filepath.Join(s.cfg.Run, e.Name()))
		}
	}
}

// unit returns the one of a share, or of a user's directory on it.
func (s *Set) unit(share shoal.Share, sub string, uid, gid int) (*unit, error) {
	src, err := shares.Parse(share)
	if err != nil {
		return nil, err
	}
	k := key(share, sub, uid, gid)
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.units[k]
	if u == nil {
		u = &unit{key: k, share: share, src: src, sub: sub, uid: uid, gid: gid}
		u.rec = record{Share: share, Sub: sub, UID: uid, GID: gid}
		s.units[k] = u
	}
	return u, nil
}

// dir is where a generation of a unit is mounted.
func (s *Set) dir(u *unit, gen int) string {
	return filepath.Join(s.cfg.Dir, u.key, fmt.Sprintf("g%d", gen))
}

// Ready mounts what is not mounted, waits until it answers, and returns the directories to bind into a machine that starts.
func (s *Set) Ready(ctx context.Context, m Machine) ([]Bind, error) {
	var out []Bind
	for _, b := range m.Mounts {
		from, err := s.Reach(ctx, b.Share)
		if err != nil {
			return nil, err
		}
		out = append(out, Bind{from, path.Clean(b.Path), b.ReadOnly})
	}
	for _, h := range m.Homes {
		from, err := s.reachHome(ctx, h)
		if err != nil {
			return nil, err
		}
		mask, err := mask(m.Mask, h)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(out, mask) {
			out = append(out, mask)
		}
		out = append(out, Bind{from, path.Clean(h.Path), h.ReadOnly})
	}
	return out, nil
}

// Reach makes one share reachable and returns its directory.
func (s *Set) Reach(ctx context.Context, share shoal.Share) (string, error) {
	if err := shares.Usable(share); err != nil {
		return "", err
	}
	u, err := s.unit(share, "", 0, 0)
	if err != nil {
		return "", err
	}
	switch u.src.Kind {
	case shares.Directory:
		return u.src.Path, s.isDirectory(ctx, share, u.src.Path)
	case shares.Claim:
		return "", shoal.Errorf(shoal.KindInvalid, "this host cannot mount share %s (%s): only pods can mount a claim", share.Name, share.Source).
			WithHint("use a directory or a file server's share, or a pool with provider: kubernetes")
	}
	return s.ensure(ctx, u)
}

// reachHome makes a user's directory on a share reachable, making it there first.
func (s *Set) reachHome(ctx context.Context, h provider.HomeMount) (string, error) {
	clean := path.Clean(h.Sub)
	if clean != h.Sub || path.IsAbs(clean) || clean == ".." || strings.HasPrefix(clean, "../") || !strings.Contains(clean, "/") || h.Share.Owned() || h.UID <= 0 {
		return "", shoal.Errorf(shoal.KindInvalid, "cannot mount %q of share %s for uid %d: it must be a directory of one user below another, on a share without owners", h.Sub, h.Share.Name, h.UID).
			WithHint("let homes lie in a directory of the share: home.path: home/{user}")
	}
	whole, err := s.Reach(ctx, h.Share)
	if err != nil {
		return "", err
	}
	u, err := s.unit(h.Share, h.Sub, h.UID, h.GID)
	if err != nil {
		return "", err
	}
	if err := s.child(ctx, task{Do: "makedir", Dir: whole, Sub: h.Sub}); err != nil {
		return "", shareError(h.Share, "cannot make %s there: %w", h.Sub, err)
	}
	return s.ensure(ctx, u)
}

// mask makes what covers the place where homes lie: a directory in which there is nothing but places for them.
func mask(dir string, h provider.HomeMount) (Bind, error) {
	at := path.Dir(path.Clean(h.Path))
	sum := sha256.Sum256([]byte(at))
	dir = filepath.Join(dir, hex.EncodeToString(sum[:4]))
	err := os.MkdirAll(filepath.Join(dir, path.Base(h.Path)), 0o711)
	return Bind{dir, at, true}, err
}

// ensure mounts a unit if it is not, or does not answer.
func (s *Set) ensure(ctx context.Context, u *unit) (string, error) {
	u.busy.Lock()
	defer u.busy.Unlock()
	if dir, err := s.look(ctx, u); err == nil {
		s.well(u)
		return dir, nil
	}
	dir, err := s.mountAnew(ctx, u)
	if err == nil {
		s.well(u)
	}
	return dir, err
}

// look finds out whether a unit is mounted and answers.
func (s *Set) look(ctx context.Context, u *unit) (string, error) {
	s.mu.Lock()
	rec := u.rec
	s.mu.Unlock()
	if rec.Gen == 0 {
		return "", errors.New("it is not mounted")
	}
	if rec.PID != 0 && startTime(rec.PID) != rec.Start {
		return "", fmt.Errorf("%s, which mounted it, has ended", rec.Client)
	}
	dir := s.dir(u, rec.Gen)
	table, err := mountTable(0)
	if err != nil {
		return "", err
	}
	if _, ok := table[dir]; !ok {
		return "", errors.New("it is not mounted any more")
	}
	if err := s.ask(dir, func() error { return s.child(ctx, task{Do: "probe", Dir: dir}) }); err != nil {
		if errors.Is(err, context.DeadlineExceeded) {
			err = fmt.Errorf("its server does not answer within %s", shoal.Duration(s.cfg.Timeout))
		}
		return "", err
	}
	return dir, nil
}

// isDirectory looks at a directory in a child, since looking may hang.
func (s *Set) isDirectory(ctx context.Context, share shoal.Share, dir string) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	err := s.ask(dir, func() error { return bounded(ctx, exec.Command("test", "-d", dir), nil) })
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return shareError(share, "%s does not answer within %s", dir, s.cfg.Timeout)
	case err != nil:
		return &notThere{shareError(share, "%s is not a directory", dir)}
	}
	return nil
}

// notThere is the error of a directory that is none. Waiting does not make one of it.
type notThere struct{ error }

func (n *notThere) Unwrap() error { return n.error }

// Waits reports whether an error may go by itself: a server that does not answer, not a share that is written wrongly.
func Waits(err error) bool {
	if _, ok := errors.AsType[*notThere](err); ok {
		return false
	}
	return shoal.KindOf(err) == shoal.KindUnavailable
}

// shareError names the share and says what to do.
func shareError(share shoal.Share, format string, args ...any) error {
	return shoal.Errorf(shoal.KindUnavailable, "cannot reach share %s (%s): %w", share.Name, share.Source, fmt.Errorf(format, args...)).
		WithHint("try by hand on this host: mount or list %s", share.Source)
}

// save writes a unit's record.
func (s *Set) save(u *unit) error {
	s.mu.Lock()
	b, err := json.Marshal(u.rec)
	s.mu.Unlock()
	if err != nil {
		return err
	}
	file := filepath.Join(s.cfg.Dir, u.key, "record.json")
	if err := os.WriteFile(file+".new", b, 0o600); err != nil {
		return err
	}
	return os.Rename(file+".new", file)
}

// DropUnused unmounts what nobody has. What is in use is asked for once a unit's lock is had, so that no mount is under
// way: a machine that comes meanwhile mounts its shares anew.
func (s *Set) DropUnused(ctx context.Context) error {
	entries, err := os.ReadDir(s.cfg.Dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		s.mu.Lock()
		u := s.units[e.Name()]
		if u == nil {
			u = &unit{key: e.Name()}
			s.units[e.Name()] = u
		}
		s.mu.Unlock()
		if !u.busy.TryLock() {
			continue // on its way
		}
		if !slices.Contains(s.cfg.InUse(), u.key) {
			errs = append(errs, s.drop(ctx, u))
		}
		u.busy.Unlock()
	}
	return errors.Join(errs...)
}

// drop unmounts all generations of a unit and removes what there is of it. Its lock is held.
func (s *Set) drop(ctx context.Context, u *unit) error {
	dir := filepath.Join(s.cfg.Dir, u.key)
	table, err := mountTable(0)
	if err != nil {
		return err
	}
	written(ctx, dir)
	for at := range table {
		if filepath.Dir(at) == dir {
			if err := s.release(ctx, at); err != nil {
				return err
			}
		}
	}
	s.mu.Lock()
	rec, told := u.rec, s.kept[u.key]
	delete(s.units, u.key)
	s.mu.Unlock()
	s.endClient(rec)
	_ = os.Remove(filepath.Join(s.cfg.Run, u.key+".key"))
	if unwritten(dir) {
		s.mu.Lock()
		s.kept[u.key] = true
		s.mu.Unlock()
		if told {
			return nil
		}
		s.cfg.Log.Warn("a share that nobody uses any more has files that could not be written to its server; they are kept", "share", u.share.Name, "dir", dir)
		return nil
	}
	// Mount points are removed one by one: whatever is still mounted must not be emptied.
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		p := filepath.Join(dir, e.Name())
		if strings.HasPrefix(e.Name(), "cache-") {
			err = os.RemoveAll(p)
		} else {
			err = os.Remove(p)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// written waits a while until rclone, which ends with its mount, has written everything to its server.
func written(ctx context.Context, dir string) {
	for range 50 {
		if ctx.Err() != nil || !unwritten(dir) {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// unwritten reports whether rclone keeps files below a directory that are not on their server yet.
func unwritten(dir string) bool {
	found := false
	_ = filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil
		}
		if d.IsDir() {
			if filepath.Dir(p) == dir && !strings.HasPrefix(d.Name(), "cache-") {
				return fs.SkipDir // a mount point
			}
			return nil
		}
		if strings.Contains(p, "/vfsMeta/") {
			b, _ := os.ReadFile(p)
			var meta struct{ Dirty bool }
			found = found || json.Unmarshal(b, &meta) == nil && meta.Dirty
		}
		return nil
	})
	return found
}

// release unmounts lazily: machines that still have it keep it, and nobody waits for the server.
func (s *Set) release(ctx context.Context, dir string) error {
	if err := s.child(ctx, task{Do: "unmount", Dir: dir}); err != nil {
		return fmt.Errorf("cannot unmount %s: %w", dir, err)
	}
	return nil
}
