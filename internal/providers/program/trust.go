package program

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/shoal-pool/shoal"
)

// Trust says whether a program may run with the rights of this process: nobody else must be able to put another in its place.
func Trust(path string) error {
	err := trust(path)
	if err == nil {
		return nil
	}
	return shoal.Errorf(shoal.KindInvalid, "cannot use provider %s: %w", path, err).
		WithHint("it runs as root: put it where only root can write, as below /usr/local/lib/shoal, and chmod 755")
}

func trust(path string) error {
	if !filepath.IsAbs(path) || filepath.Clean(path) != path {
		return errors.New("its path is not absolute")
	}
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return err
	}
	info, err := os.Stat(real)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() || info.Mode()&0o111 == 0 {
		return errors.New("it is not an executable file")
	}
	for _, p := range []string{path, real} { // links on the way are as good as what they lead to
		for ; ; p = filepath.Dir(p) {
			if err := ours(p); err != nil {
				return err
			}
			if p == filepath.Dir(p) {
				break
			}
		}
	}
	return nil
}

// ours refuses what somebody else could replace.
func ours(path string) error {
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return errors.New("its owner cannot be seen")
	}
	if st.Uid != 0 && int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("%s belongs to another user (uid %d)", path, st.Uid)
	}
	open := info.Mode().Perm()&0o022 != 0
	sticky := info.IsDir() && info.Mode()&fs.ModeSticky != 0 // others cannot replace what is not theirs
	if open && !sticky && info.Mode()&fs.ModeSymlink == 0 {
		return fmt.Errorf("others may write to %s", path)
	}
	return nil
}
