package runner

import (
	"errors"
	"io"
	"os"
	"path/filepath"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/host/tasks"
)

const (
	maxReports = 1000      // of one Collect
	minPiece   = 16 << 10  // bytes for each stream, when many have output
	ackEvery   = 256 << 10 // bytes until an acknowledgement is worth writing down
)

// item is what a Collect took of one attempt.
type item struct {
	a       *attempt
	gen     int
	ready   bool
	running bool
	ended   bool
	upTo    [2]int64
}

// Collect returns what is to be reported, with at most maxBytes of output. sent is called once that is
// acknowledged; until then the next Collect returns it again. An end comes with the last output or after it.
func (r *Runner) Collect(maxBytes int) (reports []api.TaskReport, output []api.Output, sent func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	taken := r.dirty[:min(len(r.dirty), maxReports)]
	piece := r.piece(taken, maxBytes)
	items := make([]item, 0, len(taken))
	for _, a := range taken {
		it := item{a: a, gen: a.gen, upTo: a.acked}
		for i, stream := range tasks.Streams() {
			n := min(a.size[i]-a.acked[i], int64(piece), int64(maxBytes))
			if n <= 0 {
				continue
			}
			data := r.read(a, i, n)
			maxBytes -= len(data)
			it.upTo[i] += int64(len(data))
			if len(data) > 0 {
				output = append(output, api.Output{Ref: a.ref, Stream: stream, Offset: a.acked[i], Data: data})
			}
		}
		switch {
		case a.phase == ended && it.upTo == a.size:
			if !a.ackedEnd {
				it.ended = true
				reports = append(reports, a.result.Report(a.ref))
			}
		case a.phase == running && !a.ackedRun:
			it.running = true
			reports = append(reports, api.TaskReport{Ref: a.ref, State: shoal.JobRunning, Started: a.started})
		case a.newlyReady():
			it.ready = true
			reports = append(reports, api.TaskReport{Ref: a.ref, State: shoal.JobStarting})
		}
		items = append(items, it)
	}
	return reports, output, func() { r.acknowledged(items) }
}

// piece is how much of each stream is sent at once, so that one that writes much leaves room for others.
func (r *Runner) piece(list []*attempt, maxBytes int) int {
	n := 0
	for _, a := range list {
		for i := range a.size {
			if a.size[i] > a.acked[i] {
				n++
			}
		}
	}
	return max(maxBytes/max(n, 1), min(minPiece, maxBytes))
}

// read reads output from disk. What is not there although it was is lost: the stream ends there.
func (r *Runner) read(a *attempt, i int, n int64) []byte {
	f, err := os.Open(filepath.Join(r.cfg.Dir, a.name+tasks.Endings()[i]))
	data := make([]byte, n)
	got := 0
	if err == nil {
		got, err = f.ReadAt(data, a.acked[i])
		_ = f.Close()
	}
	if int64(got) == n {
		return data
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	r.cfg.Log.Warn("output of a task is lost", "attempt", a.ref.String(), "stream", tasks.Streams()[i], "error", err)
	a.size[i] = a.acked[i] + int64(got) // the end still names all there was
	return data[:got]
}

// acknowledged takes note of what the control plane has.
func (r *Runner) acknowledged(items []item) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, it := range items {
		a := it.a
		if a.gen != it.gen || r.attempts[a.ref] != a {
			continue
		}
		for i := range a.acked {
			a.acked[i] = max(a.acked[i], it.upTo[i])
		}
		a.ackedReady = a.ackedReady || it.ready
		a.ackedRun = a.ackedRun || it.running || it.ended
		a.ackedEnd = a.ackedEnd || it.ended
		if a.acked[0]+a.acked[1]-a.savedAck >= ackEvery {
			a.saveAck(r.cfg.Dir)
		}
	}
	r.tidy(len(items))
}

// tidy takes off the list what has nothing more to report. The first n, which had their turn, go behind the others.
func (r *Runner) tidy(n int) {
	n = min(n, len(r.dirty))
	rest := make([]*attempt, 0, len(r.dirty))
	for i := range r.dirty {
		a := r.dirty[(i+n)%len(r.dirty)]
		if a.marked = r.attempts[a.ref] == a && a.news(); a.marked {
			rest = append(rest, a)
		}
	}
	r.dirty = rest
	if len(rest) > 0 {
		poke(r.changed)
	}
}

// newlyReady reports whether it is to be told that an attempt is ready to begin.
func (a *attempt) newlyReady() bool { return a.phase == sent && a.ready && !a.ackedReady }

// news reports whether there is something to report of an attempt.
func (a *attempt) news() bool {
	switch {
	case a.acked[0] < a.size[0] || a.acked[1] < a.size[1]:
		return true
	case a.newlyReady():
		return true
	case a.phase == running:
		return !a.ackedRun
	case a.phase == ended:
		return !a.ackedEnd
	}
	return false
}

// Resend makes Collect return output from an offset on again, and the end after it.
func (r *Runner) Resend(list []api.Resend) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, x := range list {
		a := r.attempts[x.Ref]
		if a == nil {
			continue
		}
		for i, s := range tasks.Streams() {
			if s == x.Stream && x.Offset >= 0 && x.Offset < a.size[i] {
				a.acked[i] = min(a.acked[i], x.Offset)
				a.gen++ // what was collected meanwhile did not arrive either
				a.ackedEnd = false
				if a.savedAck > 0 || a.adopted {
					a.savedAck = -1 // what is written down is no longer true
					a.saveAck(r.cfg.Dir)
				}
				r.mark(a)
			}
		}
	}
}
