package output

import (
	"errors"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"sync"

	"github.com/shoal-pool/shoal"
)

// DefaultCap is how much of a stream is kept unless Config says otherwise.
const DefaultCap = 1 << 30

// MinCap is the least that Config may say.
const MinCap = 64 << 10

const (
	maxOpen = 128      // logs that are open at a time while nobody uses them
	maxPack = 64 << 20 // of a stream that is packed with others; what is behind has a file of its own
)

// Config is what a Store needs.
type Config struct {
	Dir string // made if it is not there
	Cap int64  // of each stream so many bytes are kept, half of them from its beginning; 0: DefaultCap
	Log *slog.Logger
}

// Store keeps output. Its methods may be called from any goroutine.
type Store struct {
	dir string
	cap int64
	log *slog.Logger

	mu    sync.Mutex // guards what follows; never held in the file system
	logs  map[shoal.JobID]*log
	count int64 // of logs let go
}

// Open makes a Store.
func Open(cfg Config) (*Store, error) {
	if cfg.Cap == 0 {
		cfg.Cap = DefaultCap
	}
	if cfg.Cap < MinCap {
		return nil, shoal.Errorf(shoal.KindInvalid, "cannot keep %s of each task's output: that is less than %s", shoal.Bytes(cfg.Cap), shoal.Bytes(MinCap))
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, shoal.Errorf(shoal.KindUnavailable, "cannot keep the output of jobs: %w", err)
	}
	return &Store{dir: cfg.Dir, cap: cfg.Cap, log: cfg.Log, logs: map[shoal.JobID]*log{}}, nil
}

// Close writes what need not be found again. What is in use meanwhile stays open.
func (s *Store) Close() {
	s.mu.Lock()
	var all []*log
	for _, l := range s.logs {
		l.users++
		all = append(all, l)
	}
	s.mu.Unlock()
	for _, l := range all {
		s.retire(l)
	}
}

// Remove deletes the output of a job that has ended. It is no error if there is none. Who reads it
// just then is told that it is not there.
func (s *Store) Remove(job shoal.JobID) error {
	s.mu.Lock()
	l := s.logs[job]
	if l != nil {
		l.users++
		delete(s.logs, job)
	}
	s.mu.Unlock()
	if l != nil {
		s.retire(l)
	}
	return os.RemoveAll(filepath.Join(s.dir, string(job)))
}

// acquire opens the log of a job, or finds it open; nil if there is none and it is not to be made.
// Whoever gets one calls release.
func (s *Store) acquire(job shoal.JobID, create bool) (*log, error) {
	s.mu.Lock()
	l := s.logs[job]
	if l == nil {
		l = &log{store: s, job: job}
		s.logs[job] = l
	}
	l.users++
	s.mu.Unlock()
	l.mu.Lock()
	var err error
	if l.f == nil {
		err = l.open(create)
	}
	l.mu.Unlock()
	if err == nil {
		return l, nil
	}
	s.release(l)
	if !create && errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return nil, err
}

// release lets a log go. Of those that nobody uses some stay open.
func (s *Store) release(l *log) {
	s.mu.Lock()
	l.users--
	s.count++
	l.used = s.count
	if l.users == 0 && l.f == nil && s.logs[l.job] == l {
		delete(s.logs, l.job) // it was not there, or is no more
	}
	var oldest *log
	if len(s.logs) > maxOpen {
		used := int64(math.MaxInt64)
		for _, l := range s.logs {
			if l.users == 0 && l.used < used {
				oldest, used = l, l.used
			}
		}
	}
	if oldest != nil {
		oldest.users++
	}
	s.mu.Unlock()
	if oldest != nil {
		s.retire(oldest)
	}
}

// retire closes a log, unless somebody else has come to use it. It ends the caller's own use.
func (s *Store) retire(l *log) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s.mu.Lock()
	alone := l.users == 1
	s.mu.Unlock()
	if alone && l.f != nil { // whoever comes now waits for l.mu, and opens it again
		l.close()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if l.users--; l.users == 0 && l.f == nil && s.logs[l.job] == l {
		delete(s.logs, l.job)
	}
}
