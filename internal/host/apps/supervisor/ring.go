package supervisor

import (
	"io"
	"strings"
	"sync"
)

// ring keeps the last bytes of what is written.
type ring struct {
	mu   sync.Mutex
	size int
	b    []byte
}

func newRing(size int) *ring { return &ring{size: size} }

// Write keeps the end of p.
func (r *ring) Write(p []byte) (int, error) {
	n := len(p)
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(p) > r.size {
		p = p[len(p)-r.size:]
	}
	r.b = append(r.b, p...)
	if len(r.b) > 2*r.size { // cut off seldom: it costs a copy
		r.b = append(r.b[:0], r.b[len(r.b)-r.size:]...)
	}
	return n, nil
}

// ReadFrom keeps the end of what is read.
func (r *ring) ReadFrom(from io.Reader) (total int64, err error) {
	buf := make([]byte, 4<<10)
	for {
		n, err := from.Read(buf)
		total += int64(n)
		_, _ = r.Write(buf[:n]) // it never fails
		if err != nil {
			return total, err
		}
	}
}

func (r *ring) note(s string) { _, _ = r.Write([]byte(s + "\n")) }

// last is the end of it, from the beginning of a line if there is one, at most limit bytes.
func (r *ring) last(limit int) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	b := r.b
	if len(b) > limit {
		b = b[len(b)-limit:]
		if _, rest, ok := strings.Cut(string(b), "\n"); ok && rest != "" {
			return strings.ToValidUTF8(rest, "?")
		}
	}
	return strings.ToValidUTF8(string(b), "?")
}
