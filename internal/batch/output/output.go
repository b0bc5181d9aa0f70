package output

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/shoal-pool/shoal"
)

// Stream is one of the streams of a task.
type Stream int

// The streams of a task.
const (
	Stdout Stream = iota
	Stderr
	streams
)

func (s Stream) String() string { return [...]string{"stdout", "stderr"}[s] }

// ParseStream reads the name of a stream.
func ParseStream(name string) (Stream, bool) {
	switch name {
	case "stdout":
		return Stdout, true
	case "stderr":
		return Stderr, true
	}
	return 0, false
}

// Store keeps output below a directory. Its methods may be called from any goroutine.
type Store struct{ dir string }

// Open makes a Store of a directory, which is made if it is not there.
func Open(dir string) (*Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, shoal.Errorf(shoal.KindUnavailable, "cannot keep the output of jobs: %w", err)
	}
	return &Store{dir: dir}, nil
}

// Remove deletes the output of a job. It is no error if there is none.
func (s *Store) Remove(id shoal.JobID) error {
	return os.RemoveAll(filepath.Join(s.dir, string(id)))
}

// file is where a stream of an attempt is kept: a short path that stays.
func (s *Store) file(ref shoal.AttemptRef, rank int, stream Stream) string {
	node := ""
	if rank > 0 {
		node = fmt.Sprintf("%d.", rank)
	}
	return filepath.Join(s.dir, string(ref.Job), fmt.Sprintf("%d.%d.%s%s", ref.Index, ref.Attempt, node, stream))
}

// Attempt is how much of a live attempt's streams is kept.
type Attempt struct {
	store *Store
	ref   shoal.AttemptRef

	writing sync.Mutex // held while a piece is written
	mu      sync.Mutex // guards what follows; never held in the file system
	have    [][streams]int64
}

// Attempt returns the output of an attempt that begins. For one that has begun, call Find.
func (s *Store) Attempt(ref shoal.AttemptRef) *Attempt { return &Attempt{store: s, ref: ref} }

// Size is how much of a stream of a node is kept.
func (a *Attempt) Size(rank int, stream Stream) int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	if rank >= len(a.have) {
		return 0
	}
	return a.have[rank][stream]
}

func (a *Attempt) set(rank int, stream Stream, size int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for len(a.have) <= rank {
		a.have = append(a.have, [streams]int64{})
	}
	a.have[rank][stream] = size
}

// Find takes the sizes from what is kept, for so many nodes.
func (a *Attempt) Find(nodes int) {
	for rank := range max(nodes, 1) {
		for stream := range streams {
			if info, err := os.Stat(a.store.file(a.ref, rank, stream)); err == nil {
				a.set(rank, stream, info.Size())
			}
		}
	}
}

// Add appends a piece as far as it is new. It returns false if there is a gap before it. What was
// written before an error is written again: readers read no further than Size.
func (a *Attempt) Add(rank int, stream Stream, offset int64, data []byte) (bool, error) {
	a.writing.Lock()
	defer a.writing.Unlock()
	have := a.Size(rank, stream)
	if offset > have || offset < 0 {
		return offset < 0, nil
	}
	if known := have - offset; known < int64(len(data)) {
		data = data[known:]
		if err := writeAt(a.store.file(a.ref, rank, stream), data, have); err != nil {
			return false, shoal.Errorf(shoal.KindUnavailable, "cannot keep the output of task %s: %w", a.ref, err).
				WithHint("make space on the server's data directory; tasks go on, and their output is kept at their machines until then")
		}
		a.set(rank, stream, have+int64(len(data)))
	}
	return true, nil
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
