// Package vault holds the secrets that a pool gives people's sessions, as files in memory: each user's in a directory of
// root's that only her group may enter, each file hers alone. They are there while she is: the door notes who has come,
// and what nobody uses any more is swept away.
package vault

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/whole"
)

// Vault is the vault of one machine. Several processes may have it open: the door and the agent.
type Vault struct {
	dir   string // of the files
	state string // root's alone: which variables there are, and who has come
	born  func(pid int) uint64
}

// At is the vault in a directory, with what is to be known of it in another, which only root reads. Born tells when a
// process started, zero if it is gone. It touches nothing.
func At(dir, state string, born func(pid int) uint64) *Vault { return &Vault{dir, state, born} }

// Owner is whose secrets are put there.
type Owner struct {
	User     shoal.UserName
	UID, GID int // the group is hers alone
}

func (v *Vault) wantedFile() string { return filepath.Join(v.state, "variables.json") }

// Wanted are the variables that sessions get, in order; none: there is nothing to be put here.
func (v *Vault) Wanted() (variables []string) {
	if b, err := os.ReadFile(v.wantedFile()); err != nil || json.Unmarshal(b, &variables) != nil {
		return nil
	}
	return variables
}

// Want says which variables sessions get from now on.
func (v *Vault) Want(variables []string) error {
	if slices.Equal(variables, v.Wanted()) {
		return nil
	}
	b, err := json.Marshal(variables)
	if err == nil {
		err = os.MkdirAll(v.state, 0o700)
	}
	if err == nil {
		err = whole.Write(v.wantedFile(), b, 0o600)
	}
	if err != nil {
		return fmt.Errorf("cannot say which secrets sessions get: %w", err)
	}
	return nil
}

// lock keeps others from changing anything until unlock is called.
func (v *Vault) lock() (unlock func(), err error) {
	if err := os.MkdirAll(v.state, 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(v.state, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil { // nobody holds it for long: all is in memory
		return nil, errors.Join(err, f.Close())
	}
	return func() { _ = f.Close() }, nil
}

// Put makes a user's files hold the values, by their variables, and removes those of others.
func (v *Vault) Put(o Owner, values map[string][]byte) error {
	unlock, err := v.lock()
	if err != nil {
		return err
	}
	defer unlock()
	dir := filepath.Join(v.dir, string(o.User))
	if err := v.makeDir(dir, o.GID); err != nil {
		return err
	}
	there, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range there {
		if _, ok := values[e.Name()]; !ok {
			if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	for variable, value := range values {
		if err := put(filepath.Join(dir, variable), value, o); err != nil {
			return err
		}
	}
	return nil
}

// makeDir makes a user's directory. It is root's, so that nothing can be put in the way of who writes there.
func (v *Vault) makeDir(dir string, gid int) error {
	if err := os.Mkdir(v.dir, 0o711); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return errors.Join(os.Chown(dir, 0, gid), os.Chmod(dir, 0o750))
}

// put replaces a file at once. Before it is its user's nobody but root can read it.
func put(path string, value []byte, o Owner) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(value)
	if err = errors.Join(err, f.Chown(o.UID, o.GID), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// visit names the file that says that a process has come for a user.
func (v *Vault) visit(user shoal.UserName, pid int) string {
	return filepath.Join(v.state, fmt.Sprintf("%s:%d:%d", user, pid, v.born(pid)))
}

// Came notes that a process, which outlives the call, uses the secrets of a user. Went takes it back; its end does too.
func (v *Vault) Came(user shoal.UserName, pid int) error {
	unlock, err := v.lock()
	if err != nil {
		return err
	}
	defer unlock()
	return os.WriteFile(v.visit(user, pid), nil, 0o600)
}

// Went notes that a process does not use them any more.
func (v *Vault) Went(user shoal.UserName, pid int) { _ = os.Remove(v.visit(user, pid)) }

// Sweep removes the files of all who have gone: no process has come for them, and busy says that none of theirs runs.
func (v *Vault) Sweep(busy func(shoal.UserName) bool) error {
	if _, err := os.Stat(v.state); err != nil {
		return nil //nolint:nilerr // nobody has ever got anything
	}
	unlock, err := v.lock()
	if err != nil {
		return err
	}
	defer unlock()
	users, err := os.ReadDir(v.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	here, visitErr := v.here()
	errs := []error{err, visitErr}
	for _, e := range users {
		if user := shoal.UserName(e.Name()); visitErr == nil && !here[user] && !busy(user) {
			errs = append(errs, os.RemoveAll(filepath.Join(v.dir, e.Name())))
		}
	}
	return errors.Join(errs...)
}

// here are those for whom a process has come that is still there. What is noted of others is removed.
func (v *Vault) here() (map[shoal.UserName]bool, error) {
	entries, err := os.ReadDir(v.state)
	if err != nil {
		return nil, err
	}
	here := map[shoal.UserName]bool{}
	for _, e := range entries {
		f := strings.Split(e.Name(), ":")
		if len(f) != 3 {
			continue
		}
		pid, err := strconv.Atoi(f[1])
		if born := v.born(pid); err == nil && born != 0 && strconv.FormatUint(born, 10) == f[2] {
			here[shoal.UserName(f[0])] = true
			continue
		}
		if err := os.Remove(filepath.Join(v.state, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	return here, nil
}
