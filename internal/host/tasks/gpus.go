package tasks

import (
	"errors"

	"golang.org/x/sys/unix"

	"github.com/shoal-pool/shoal/internal/host/gpu"
)

// GPUs are those of a machine, of which each task has its own.
type GPUs struct {
	Nodes []gpu.Device `json:"nodes"` // by number
	Mode  uint32       `json:"mode"`  // of a node that no task has
}

// Give makes a node its user's alone. Nobody but root may change what is in /dev. The group, which may say more, stays.
func (g *GPUs) Give(path string, uid int) error { return own(path, uid, 0o600) }

// Take takes a node back.
func (g *GPUs) Take(path string) error { return own(path, 0, g.Mode) }

// TakeAll takes back all nodes that tasks had which nobody watches over any more.
func (g *GPUs) TakeAll() error {
	if g == nil {
		return nil
	}
	var all []error
	for _, d := range g.Nodes {
		var st unix.Stat_t
		if err := unix.Lstat(d.Path, &st); err != nil {
			all = append(all, err)
		} else if st.Uid != 0 {
			all = append(all, g.Take(d.Path))
		}
	}
	return errors.Join(all...)
}

func own(path string, uid int, mode uint32) error {
	return errors.Join(unix.Lchown(path, uid, -1), unix.Chmod(path, mode))
}
