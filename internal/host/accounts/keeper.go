package accounts

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoal-pool/shoal/api"
)

// Config is how a Keeper is set up. All fields are needed.
type Config struct {
	Etc    string   // the directory of passwd and its like: /etc
	State  string   // a file of the Keeper's own, on the same disk as Etc
	System []System // accounts that the machine needs besides its users
	Log    *slog.Logger
}

// Keeper keeps the files of accounts. Its methods may be called concurrently.
type Keeper struct {
	cfg Config

	mu sync.Mutex
}

// New makes a Keeper. It touches nothing.
func New(cfg Config) *Keeper { return &Keeper{cfg: cfg} }

// Outcome is what a Write found out.
type Outcome struct {
	Users []api.Account // who has an account now, disabled ones included
	Gone  []int         // uids of users who may have nothing running: disabled, or no longer listed and not Ended
}

// Write makes the accounts as wanted. Each file is replaced at once, passwd as the last, so a user
// appears when all about her is there. Writing the same again changes no file.
func (k *Keeper) Write(want api.Accounts) (Outcome, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	unlock, err := k.lock()
	if err != nil {
		return Outcome{}, fmt.Errorf("cannot lock the accounts: %w", err)
	}
	defer unlock()
	mine, err := k.load()
	if err != nil {
		return Outcome{}, fmt.Errorf("cannot read which accounts are Shoal's: %w", err)
	}
	old, err := k.read()
	if err != nil {
		return Outcome{}, err
	}
	m := merge(old, mine, want, k.cfg.System, executable)
	for _, p := range m.problems {
		k.cfg.Log.Warn("an account was left out: " + p)
	}
	m.mine.Gone = leaving(mine, m)
	if err := k.store(old, m, mine); err != nil {
		return Outcome{}, fmt.Errorf("cannot write the accounts: %w", err)
	}
	out := Outcome{Users: m.users, Gone: slices.Clone(m.mine.Gone)}
	for _, u := range m.users {
		if u.Disabled {
			out.Gone = append(out.Gone, u.UID)
		}
	}
	slices.Sort(out.Gone)
	return out, nil
}

// leaving are the uids of users that are no longer listed. A number that someone else has now is hers.
func leaving(mine names, m merged) []int {
	gone := slices.Clone(mine.Gone)
	for _, uid := range mine.Users {
		gone = append(gone, uid)
	}
	slices.Sort(gone)
	return slices.DeleteFunc(slices.Compact(gone), func(uid int) bool {
		return slices.ContainsFunc(m.users, func(u api.Account) bool { return u.UID == uid })
	})
}

// Ended says that nothing of these uids runs any more. Those of users who are no longer listed are among what Write finds until then.
func (k *Keeper) Ended(uids []int) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	mine, err := k.load()
	if err != nil {
		return fmt.Errorf("cannot read which accounts are Shoal's: %w", err)
	}
	mine.Gone = slices.DeleteFunc(mine.Gone, func(uid int) bool { return slices.Contains(uids, uid) })
	return k.remember(mine)
}

// Prepare adds the accounts that the machine itself needs and leaves all others as they are.
func (k *Keeper) Prepare() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	unlock, err := k.lock()
	if err != nil {
		return fmt.Errorf("cannot lock the accounts: %w", err)
	}
	defer unlock()
	old, err := k.read()
	if err != nil {
		return err
	}
	mine, err := k.load()
	if err != nil {
		return fmt.Errorf("cannot read which accounts are Shoal's: %w", err)
	}
	m := merge(old, names{}, api.Accounts{}, k.cfg.System, executable)
	m.mine = mine
	if err := k.store(old, m, mine); err != nil {
		return fmt.Errorf("cannot write the accounts: %w", err)
	}
	return nil
}

// read reads the files as they are.
func (k *Keeper) read() (files, error) {
	var old files
	for _, f := range old.list() {
		text, err := os.ReadFile(k.path(f.name))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return old, fmt.Errorf("cannot read the accounts: %w", err)
		}
		*f.text = text
	}
	return old, nil
}

// executable reports whether a shell is there. Where the image keeps it may be a link.
func executable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

type file struct {
	name string
	text *[]byte
	mode uint32 // when it is new
}

// list gives the files in the order in which they are to be written.
func (f *files) list() []file {
	return []file{{"group", &f.group, 0o644}, {"gshadow", &f.gshadow, 0o640}, {"shadow", &f.shadow, 0o640}, {"passwd", &f.passwd, 0o644}}
}

func (k *Keeper) path(name string) string { return filepath.Join(k.cfg.Etc, name) }

// store writes what differs: first whose lines may be ours, then the lines, then whose lines are.
func (k *Keeper) store(old files, m merged, mine names) error {
	var changed []file
	before := old.list()
	for i, f := range m.list() {
		if !bytes.Equal(*f.text, *before[i].text) {
			changed = append(changed, f)
		}
	}
	if len(changed) > 0 {
		either := names{Users: maps.Clone(mine.Users), Groups: maps.Clone(mine.Groups), Gone: mine.Gone}
		maps.Copy(either.Users, m.mine.Users)
		maps.Copy(either.Groups, m.mine.Groups)
		if err := k.remember(either); err != nil {
			return err
		}
	}
	for _, f := range changed {
		if err := replace(k.path(f.name), *f.text, f.mode); err != nil {
			return err
		}
	}
	return k.remember(m.mine)
}

func (k *Keeper) load() (names, error) {
	n := names{Users: map[string]int{}, Groups: map[string]bool{}}
	b, err := os.ReadFile(k.cfg.State)
	if errors.Is(err, fs.ErrNotExist) {
		return n, nil
	}
	if err != nil {
		return n, err
	}
	if err := json.Unmarshal(b, &n); err != nil {
		return n, err
	}
	if n.Users == nil || n.Groups == nil {
		return n, fmt.Errorf("%s holds no accounts", k.cfg.State)
	}
	return n, nil
}

func (k *Keeper) remember(n names) error {
	b, err := json.Marshal(n)
	if err != nil {
		return err
	}
	if old, err := os.ReadFile(k.cfg.State); err == nil && bytes.Equal(old, b) {
		return nil
	}
	return replace(k.cfg.State, b, 0o600)
}

// replace puts a new file in place of one, with the owner and mode of the old.
func replace(path string, text []byte, mode uint32) error {
	uid, gid := 0, 0
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err == nil && st.Mode&unix.S_IFMT == unix.S_IFREG {
		uid, gid, mode = int(st.Uid), int(st.Gid), st.Mode&0o7777
	}
	tmp := path + ".shoal-new"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	err = errors.Join(err, f.Chown(uid, gid), unix.Fchmod(int(f.Fd()), mode), f.Close())
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	return nil
}

// lockPatience is how long another program may hold the accounts: one that adds a package's user
// takes a moment.
const lockPatience = 15 * time.Second

// lock takes the lock that passwd, useradd and their like take (lckpwdf).
func (k *Keeper) lock() (func(), error) {
	f, err := os.OpenFile(k.path(".pwd.lock"), os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	for end := time.Now().Add(lockPatience); ; time.Sleep(20 * time.Millisecond) {
		err = unix.FcntlFlock(f.Fd(), unix.F_SETLK, &unix.Flock_t{Type: unix.F_WRLCK})
		if err == nil || !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EACCES) {
			break
		}
		if time.Now().After(end) {
			break
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", f.Name(), err), f.Close())
	}
	return func() { _ = f.Close() }, nil // closing unlocks
}
