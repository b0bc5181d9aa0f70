package output

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/shoal-pool/shoal"
)

// log is the output of all tasks of a job, packed into one file of frames, with an index beside it.
// It is there while somebody uses it, and for a while after.
type log struct {
	store *Store
	job   shoal.JobID

	// Guarded by Store.mu.
	users int
	used  int64 // when it was last let go, by the store's count

	mu     sync.Mutex // guards what follows; held while writing
	f      *os.File   // nil: not open
	end    int64      // of the last frame
	index  *index
	recent map[key]tail // what changed since the index was written
}

// indexEvery is how much of a log is written before its index is, and so what is read of it at the
// most when it is opened.
const indexEvery = 64 << 20

func (l *log) path(name string) string { return filepath.Join(l.store.dir, string(l.job), name) }

// open opens the files, and reads from the log what the index does not cover. What is no frame at
// its end was being written when the server died, and is cut. l.mu is held.
func (l *log) open(create bool) (err error) {
	flags := os.O_RDWR
	if create {
		flags |= os.O_CREATE
	}
	f, err := os.OpenFile(l.path("log"), flags, 0o600)
	if create && errors.Is(err, fs.ErrNotExist) {
		if err = os.MkdirAll(l.path(""), 0o700); err != nil {
			return err
		}
		f, err = os.OpenFile(l.path("log"), flags, 0o600)
	}
	if err != nil {
		return err
	}
	x, err := os.OpenFile(l.path("index"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return errors.Join(err, f.Close())
	}
	info, err := f.Stat()
	if err == nil {
		l.index, err = openIndex(x, info.Size())
	}
	if err == nil {
		l.f = f
		err = l.recover(info.Size())
	}
	if err != nil {
		l.f, l.index, l.recent = nil, nil, nil
		return errors.Join(err, f.Close(), x.Close())
	}
	return nil
}

// close writes the index and closes the files. l.mu is held.
func (l *log) close() {
	l.flush()
	_ = l.f.Close() // it was written without a buffer
	_ = l.index.f.Close()
	l.f, l.index, l.recent = nil, nil, nil
}

// flush writes the index. What fails is tried again with more, or read from the log.
func (l *log) flush() {
	if len(l.recent) == 0 || l.end == l.index.upTo() {
		return
	}
	if l.index.add(l.end, l.recent) == nil {
		clear(l.recent)
	}
}

// recover reads the log from where the index ends, and cuts what is behind its last frame.
func (l *log) recover(size int64) error {
	l.recent = map[key]tail{}
	l.end = l.index.upTo()
	broken := int64(-1)
	err := scan(l.f, l.job, l.end, size, func(pos int64, f frame) {
		if pos != l.end && broken < 0 {
			broken = l.end
		}
		l.end = pos + f.length()
		l.note(f, pos)
	})
	if err != nil {
		return err
	}
	if broken >= 0 {
		l.store.log.Warn("output: a job's log is damaged; what can be read of it is kept", "job", string(l.job), "at", broken)
	}
	if l.end < size {
		return l.f.Truncate(l.end)
	}
	return nil
}

// note remembers that a stream's last frame is at a place.
func (l *log) note(f frame, pos int64) {
	l.recent[f.key] = tail{last: pos, size: f.end()}
	if len(l.recent) >= blockEntries || l.end-l.index.upTo() >= indexEvery {
		l.flush()
	}
}

// scan finds the frames between two places of a log. What is none is passed over.
func scan(r io.ReaderAt, job shoal.JobID, from, to int64, each func(pos int64, f frame)) error {
	const window = 16 * maxLength
	buf := make([]byte, 0, min(window, to-from))
	start := from // where in the log buf begins
	for pos := from; pos < to; {
		if have := start + int64(len(buf)) - pos; have < maxLength && start+int64(len(buf)) < to {
			start = pos
			buf = buf[:min(int64(cap(buf)), to-start)]
			if _, err := r.ReadAt(buf, start); err != nil && err != io.EOF {
				return err
			}
		}
		b := buf[pos-start:]
		if f, ok := checkFrame(job, b); ok {
			each(pos, f)
			pos += f.length()
		} else if i := bytes.Index(b[1:], []byte(magic)); i >= 0 {
			pos += int64(1 + i)
		} else {
			pos += int64(max(1, len(b)-len(magic)+1))
		}
	}
	return nil
}

// rebuild makes the index anew from the log. l.mu is held.
func (l *log) rebuild() error {
	l.store.log.Warn("output: the index of a job's log is damaged; it is made anew", "job", string(l.job))
	l.index.blocks = nil
	if err := l.index.f.Truncate(0); err != nil {
		return err
	}
	info, err := l.f.Stat()
	if err != nil {
		return err
	}
	return l.recover(info.Size())
}

// find looks a stream up, and returns its last frame. An index that has it wrong is made anew.
func (l *log) find(k key) (tail, frame, bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for again := false; ; again = true {
		t, seen := l.recent[k]
		found, whole := seen, true
		if !seen {
			t, found, whole = l.index.find(k)
		}
		if whole && !found {
			return t, frame{}, false, nil
		}
		if f, err := l.head(k, t.last); whole && err == nil && f.end() == t.size && (seen || l.intact(f, t.last)) {
			return t, f, true, nil
		}
		if again {
			return t, frame{}, false, l.damaged(t.last)
		}
		if err := l.rebuild(); err != nil {
			return t, frame{}, false, err
		}
	}
}

// intact holds a frame against its checksum.
func (l *log) intact(f frame, pos int64) bool {
	b := make([]byte, f.length())
	if _, err := l.f.ReadAt(b, pos); err != nil {
		return false
	}
	_, ok := checkFrame(l.job, b)
	return ok
}

// head reads the head of a stream's frame.
func (l *log) head(k key, pos int64) (frame, error) {
	b := make([]byte, maxHead)
	n, err := l.f.ReadAt(b, pos)
	if err != nil && err != io.EOF {
		return frame{}, err
	}
	f, ok := parseFrame(b[:n])
	if !ok || f.key != k {
		return f, l.damaged(pos)
	}
	return f, nil
}

func (l *log) damaged(pos int64) error {
	return fmt.Errorf("the log of job %s is %w at byte %d", l.job, fs.ErrInvalid, pos)
}

// writer appends to a stream of a log.
type writer struct {
	size  int64
	marks []mark // the last frame, on top, and those that jumps lead to from it
}

type mark struct{ number, pos, offset int64 }

// resume finds where a stream stands.
func (l *log) resume(k key) (writer, error) {
	t, f, found, err := l.find(k)
	if err != nil || !found {
		return writer{}, err
	}
	w := writer{size: t.size}
	for pos := t.last; ; {
		w.marks = append(w.marks, mark{f.number, pos, f.offset})
		if f.number == 0 {
			break
		}
		pos -= f.jump
		number := f.number
		if f, err = l.head(k, pos); err != nil {
			return w, err
		}
		if f.number != number&(number-1) {
			return w, l.damaged(pos)
		}
	}
	for i, j := 0, len(w.marks)-1; i < j; i, j = i+1, j-1 {
		w.marks[i], w.marks[j] = w.marks[j], w.marks[i]
	}
	return w, nil
}

// append adds data to a stream, of which w knows the end. After an error nothing was added.
func (l *log) append(k key, w *writer, data []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	f := frame{key: k, offset: w.size, size: len(data)}
	marks := w.marks
	if n := len(marks); n > 0 {
		last := marks[n-1]
		f.number, f.back = last.number+1, l.end-last.pos
		for marks[len(marks)-1].number != f.number&(f.number-1) {
			marks = marks[:len(marks)-1]
		}
		to := marks[len(marks)-1]
		f.jump, f.span = l.end-to.pos, f.offset-to.offset
	}
	b := appendFrame(make([]byte, 0, maxHead+len(data)), l.job, f, data)
	f.head = len(b) - len(data)
	if _, err := l.f.WriteAt(b, l.end); err != nil {
		_ = l.f.Truncate(l.end) // else the next frame is written over it
		return err
	}
	pos := l.end
	l.end += f.length()
	w.size, w.marks = f.end(), append(marks, mark{f.number, pos, f.offset})
	l.note(f, pos)
	return nil
}

// walker reads a stream of a log.
type walker struct {
	log  *log
	key  key
	path []step // frames that were passed on the way back, each before the one below it
	buf  []byte
	// behind is, after read told of damage, from where on the stream may be there. If that is not
	// behind what was asked for, nobody knows.
	behind int64
}

type step struct {
	frame
	pos int64
}

// read returns what a frame holds from an offset on, in memory that the next call uses again.
func (w *walker) read(offset int64) ([]byte, error) {
	s, err := w.seek(offset)
	if err != nil {
		return nil, err
	}
	if int64(cap(w.buf)) < s.length() {
		w.buf = make([]byte, s.length(), maxLength)
	}
	b := w.buf[:s.length()]
	if _, err := w.log.f.ReadAt(b, s.pos); err != nil && err != io.EOF {
		return nil, err
	}
	if f, ok := checkFrame(w.log.job, b); !ok || f != s.frame {
		w.path = w.path[:len(w.path)-1]
		w.behind = s.end()
		return nil, w.log.damaged(s.pos)
	}
	return b[int64(s.head)+offset-s.offset:], nil
}

// seek finds the frame that holds an offset; io.EOF if there is none.
func (w *walker) seek(offset int64) (step, error) {
	for n := len(w.path); n > 0 && w.path[n-1].end() <= offset; n-- {
		w.path = w.path[:n-1]
	}
	if len(w.path) == 0 {
		t, f, found, err := w.log.find(w.key)
		if err != nil {
			return step{}, err
		}
		if !found || t.size <= offset {
			return step{}, io.EOF
		}
		w.path = append(w.path, step{f, t.last})
	}
	for {
		s := w.path[len(w.path)-1]
		w.behind = s.offset
		if s.offset <= offset && offset < s.end() {
			return s, nil
		}
		if s.offset <= offset { // where it is not, and the next does not begin
			w.path = w.path[:len(w.path)-1]
			if n := len(w.path); n > 0 {
				w.behind = w.path[n-1].offset
			}
			return step{}, w.log.damaged(s.pos)
		}
		pos := s.pos - s.back
		if s.offset-s.span >= offset {
			pos = s.pos - s.jump
		}
		f, err := w.log.head(w.key, pos)
		if err != nil {
			return step{}, err
		}
		if f.number >= s.number || f.end() > s.offset {
			return step{}, w.log.damaged(pos)
		}
		w.path = append(w.path, step{f, pos})
	}
}
