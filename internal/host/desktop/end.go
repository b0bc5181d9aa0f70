package desktop

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// End begins to end a user's desktops: their X servers go, then the programs that show something there, and xrdp-sesman
// clears up. What she has started that needs no screen goes on, as after a logout.
func (s *Server) End(uid int) error {
	if uid == 0 {
		return errors.New("root has no desktop")
	}
	dirs, err := filepath.Glob(filepath.Join(s.cfg.Root, "proc", "[0-9]*"))
	if err != nil {
		return err
	}
	var errs []error
	for _, dir := range dirs {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err == nil && s.shows(dir, uid) {
			errs = append(errs, term(pid, dir, uid, s.shows))
		}
	}
	return errors.Join(errs...)
}

// shows reports whether a process is a user's X server, which xrdp-sesman has started.
func (s *Server) shows(dir string, uid int) bool {
	var st unix.Stat_t
	if unix.Stat(dir, &st) != nil || int(st.Uid) != uid {
		return false
	}
	name, parent, ok := status(dir)
	if !ok || name != "Xorg" && name != "Xvnc" {
		return false
	}
	above := filepath.Join(filepath.Dir(dir), parent)
	if unix.Stat(above, &st) != nil || st.Uid != 0 {
		return false
	}
	name, _, ok = status(above)
	return ok && name == "xrdp-sesman"
}

// status reads a process's name, and who started it.
func status(dir string) (name, parent string, ok bool) {
	text, err := os.ReadFile(filepath.Join(dir, "status"))
	if err != nil {
		return "", "", false
	}
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		switch key {
		case "Name":
			name = strings.TrimSpace(value)
		case "PPid":
			return name, strings.TrimSpace(value), true
		}
	}
	return "", "", false
}

// term asks a process to end. It is looked at once more where its number cannot go to another.
func term(pid int, dir string, uid int, still func(string, int) bool) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil // it has gone
	}
	defer unix.Close(fd)
	if !still(dir, uid) {
		return nil
	}
	if err := unix.PidfdSendSignal(fd, syscall.SIGTERM, nil, 0); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("cannot end the desktop's X server: %w", err)
	}
	return nil
}
