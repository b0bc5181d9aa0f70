package batch

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
)

// The streams of a task.
const (
	stdout = iota
	stderr
)

// streamOf reads the name of a stream.
func streamOf(name string) (int, bool) {
	switch name {
	case "stdout":
		return stdout, true
	case "stderr":
		return stderr, true
	}
	return 0, false
}

// outputFile is where a stream of an attempt is kept: a short path that stays.
func outputFile(dir string, ref shoal.AttemptRef, stream int) string {
	return filepath.Join(dir, string(ref.Job), fmt.Sprintf("%d.%d.%s", ref.Index, ref.Attempt, [...]string{"stdout", "stderr"}[stream]))
}

// output is how much of a live attempt's streams is kept.
type output struct {
	mu   sync.Mutex // held while a piece is written
	have [2]atomic.Int64
}

func (o *output) size(stream int) int64 { return o.have[stream].Load() }

// find takes the sizes from the files.
func (o *output) find(dir string, ref shoal.AttemptRef) {
	for stream := range o.have {
		if info, err := os.Stat(outputFile(dir, ref, stream)); err == nil {
			o.have[stream].Store(info.Size())
		}
	}
}

// add appends a piece as far as it is new. It returns false if there is a gap before it. The file
// is made with the first byte. What was written before an error is written again: followers read
// no further than size.
func (o *output) add(dir string, p api.Output, stream int) (bool, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	have := o.have[stream].Load()
	if p.Offset > have || p.Offset < 0 {
		return p.Offset < 0, nil
	}
	if known := have - p.Offset; known < int64(len(p.Data)) {
		data := p.Data[known:]
		if err := writeAt(outputFile(dir, p.Ref, stream), data, have); err != nil {
			return false, shoal.Errorf(shoal.KindUnavailable, "cannot keep the output of task %s: %w", p.Ref, err).
				WithHint("make space on the server's data directory; tasks go on, and their output is kept at their machines until then")
		}
		o.have[stream].Store(have + int64(len(data)))
	}
	return true, nil
}

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
