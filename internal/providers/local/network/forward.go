package network

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// ip_forward is one switch for the whole host, and several installations may need it. The directory
// cfg.Forwarding holds what it was before the first came ("former") and a file for each that is there,
// named by its bridge. The last one to leave restores it and removes the directory. Installations that
// died and whose bridge is gone do not count.

const forwardSwitch = "/proc/sys/net/ipv4/ip_forward"

// forwardOn lets the host forward, and remembers what it did before.
func (n *Net) forwardOn() error {
	return n.withForwarding(func(dir string) error {
		former := filepath.Join(dir, "former")
		if _, err := os.Stat(former); errors.Is(err, fs.ErrNotExist) {
			now, err := os.ReadFile(n.forward)
			if err != nil {
				return err
			}
			if err := os.WriteFile(former, now, 0o600); err != nil {
				return err
			}
		}
		if err := os.WriteFile(filepath.Join(dir, n.cfg.Bridge), nil, 0o600); err != nil {
			return err
		}
		return n.setForward("1")
	})
}

// forwardOff restores it if nobody else needs it.
func (n *Net) forwardOff() error {
	if _, err := os.Stat(n.cfg.Forwarding); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return n.withForwarding(func(dir string) error {
		if err := os.Remove(filepath.Join(dir, n.cfg.Bridge)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		entries, err := os.ReadDir(dir)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if _, err := n.link.LinkByName(e.Name()); err == nil && e.Name() != n.cfg.Bridge {
				return nil
			}
		}
		former, err := os.ReadFile(filepath.Join(dir, "former"))
		if err == nil {
			err = n.setForward(strings.TrimSpace(string(former)))
		}
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		return errors.Join(err, os.RemoveAll(dir))
	})
}

// setForward writes only a change, since writing resets other settings of every interface.
func (n *Net) setForward(value string) error {
	now, err := os.ReadFile(n.forward)
	if err != nil || strings.TrimSpace(string(now)) == value {
		return err
	}
	return os.WriteFile(n.forward, []byte(value), 0)
}

// withForwarding runs fn alone, with the directory.
func (n *Net) withForwarding(fn func(dir string) error) error {
	err := n.alone(func() error {
		if err := os.MkdirAll(n.cfg.Forwarding, 0o700); err != nil {
			return err
		}
		return fn(n.cfg.Forwarding)
	})
	if err != nil {
		return fmt.Errorf("cannot switch the host's forwarding: %w", err)
	}
	return nil
}

// alone runs fn alone among all installations of the host. The lock is on the forwarding directory's
// parent, which outlives the directory.
func (n *Net) alone(fn func() error) error {
	parent, err := os.Open(filepath.Dir(n.cfg.Forwarding))
	if err != nil {
		return err
	}
	defer parent.Close()
	if err := unix.Flock(int(parent.Fd()), unix.LOCK_EX); err != nil {
		return err
	}
	return fn()
}
