package output

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/shoal-pool/shoal"
)

// file is where a stream of an attempt is kept that is not packed with others, or what of it is too
// long for that: a short path that stays. A byte's place in it is its offset in the stream.
func (s *Store) file(ref shoal.AttemptRef, rank int, stream Stream) string {
	node := ""
	if rank > 0 {
		node = fmt.Sprintf("%d.", rank)
	}
	return filepath.Join(s.dir, string(ref.Job), fmt.Sprintf("%d.%d.%s%s", ref.Index, ref.Attempt, node, stream))
}

// fileSize is the size of a file; 0 if it is not there.
func fileSize(name string) (int64, error) {
	info, err := os.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// writeAt writes to a file, which is made with its first byte.
func writeAt(name string, data []byte, offset int64) (err error) {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE, 0o600)
	if errors.Is(err, fs.ErrNotExist) {
		if err = os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			return err
		}
		f, err = os.OpenFile(name, os.O_WRONLY|os.O_CREATE, 0o600)
	}
	if err != nil {
		return err
	}
	_, err = f.WriteAt(data, offset)
	return errors.Join(err, f.Close())
}

// gap is what of a stream is not kept: between the cap's head and its tail.
type gap struct{ from, to int64 }

// has reports whether a byte is not kept.
func (g gap) has(offset int64) bool { return g.from <= offset && offset < g.to }

// gapOf is what a stream of so many bytes lacks. It grows in steps, so that it is seldom written.
func (s *Store) gapOf(size int64) gap {
	head := s.cap / 2 &^ 4095
	step := max(s.cap/16&^4095, 4096)
	to := (size - (s.cap - head)) / step * step
	if to < head+step {
		return gap{}
	}
	return gap{head, to}
}

// readGap reads what a stream lacks. It is kept beside the file, since the cap may change.
func readGap(name string) (g gap, err error) {
	b, err := os.ReadFile(name + ".gap")
	if errors.Is(err, fs.ErrNotExist) {
		return g, nil
	}
	if err == nil {
		_, err = fmt.Sscanf(string(b), "%d %d\n", &g.from, &g.to)
	}
	return g, err
}

// letGo gives the space of a gap back. It is announced before: who reads zeros where something was
// looks again. A file system that cannot do it keeps more than it need.
func letGo(name string, g gap) error {
	temp := name + ".gap.new"
	if err := os.WriteFile(temp, fmt.Appendf(nil, "%d %d\n", g.from, g.to), 0o600); err != nil {
		return err
	}
	if err := os.Rename(temp, name+".gap"); err != nil {
		return err
	}
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	err = unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, g.from, g.to-g.from)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		err = nil
	}
	return err
}
