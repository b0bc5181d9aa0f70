// Package localdisk knows users' directories on a machine's own disk, and the variables by which programs find them. Sockets,
// locks and databases of a home that is on a share do not work there, or for one machine only.
package localdisk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// Dir is where the directories of users are, a directory each.
const Dir = "/var/lib/shoal-local"

const runtime = "/run/user"

// variables and their values, where $local and $runtime are a user's directories.
var variables = []struct{ name, value string }{
	{"SHOAL_LOCAL", "$local"},
	{"XDG_RUNTIME_DIR", "$runtime"},
	{"XDG_CACHE_HOME", "$local/cache"},
	{"JUPYTER_RUNTIME_DIR", "$local/jupyter-runtime"},
}

// Names are the variables' names.
func Names() []string {
	var names []string
	for _, v := range variables {
		names = append(names, v.name)
	}
	return names
}

// Variables are a user's, NAME=VALUE.
func Variables(uid int) []string {
	dirs := map[string]string{"local": Of(Dir, uid), "runtime": Of(runtime, uid)}
	var all []string
	for _, v := range variables {
		all = append(all, v.name+"="+os.Expand(v.value, func(name string) string { return dirs[name] }))
	}
	return all
}

// Shell exports them in a shell of the user where the directories are there and hers.
func Shell() string {
	text := "local=" + Dir + "/$(id -u) runtime=" + runtime + "/$(id -u)\n" +
		`if [ -O "$local" ] && [ -d "$local" ] && [ -O "$runtime" ] && [ -d "$runtime" ]; then # a home on a share is no place for these` + "\n\texport"
	for _, v := range variables {
		text += " " + v.name + `="` + v.value + `"`
	}
	return text + "\nfi\nunset local runtime\n"
}

// Of is the directory of a user below dir.
func Of(dir string, uid int) string { return filepath.Join(dir, strconv.Itoa(uid)) }

// Make makes a user's directories where they are missing. Root makes nothing below what is hers: programs do.
func Make(uid, gid int) error {
	return errors.Join(MakeIn(Dir, uid, gid), own(Of(runtime, uid), uid, gid))
}

// MakeIn makes the directory of a user below dir, and dir.
func MakeIn(dir string, uid, gid int) error {
	if err := os.Mkdir(dir, 0o711); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return own(Of(dir, uid), uid, gid)
}

// own makes a directory of a user's. One that is root's was made by who did not live to give it away; nobody else makes any there.
func own(dir string, uid, gid int) error {
	err := os.Mkdir(dir, 0o700)
	if errors.Is(err, fs.ErrExist) {
		var st unix.Stat_t
		if err = unix.Lstat(dir, &st); err == nil && st.Uid != 0 {
			return nil
		}
	}
	if err == nil {
		err = os.Lchown(dir, uid, gid)
	}
	if err != nil {
		return fmt.Errorf("cannot make %s: %w", dir, err)
	}
	return nil
}
