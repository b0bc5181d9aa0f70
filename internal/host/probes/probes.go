// Package probes asks, on a machine, whether the endpoints of its pool answer there: desktops, and what listens at ports of
// tcp. Web apps are asked by their own supervisors, one for each.
//
// An endpoint is ill once so many questions in a row were not answered as the pool says, and well again with the first
// that is. Before it has answered at all it may take the time that the pool gives it to come up.
package probes

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/shoal-pool/shoal/api"
)

// Ask asks an endpoint once. A nil error means that it answers.
type Ask func(ctx context.Context, p api.EndpointProbe) error

// askTime bounds one question.
const askTime = 5 * time.Second

// Prober asks. Its methods may be called concurrently.
type Prober struct {
	ask     Ask
	changed chan struct{} // capacity 1
	parts   sync.WaitGroup

	mu    sync.Mutex
	known map[string]*endpoint
}

// endpoint is what is known of one. Its fields are the Prober's to lock.
type endpoint struct {
	probe api.EndpointProbe
	stop  context.CancelFunc
	found api.EndpointReport
	told  bool // there is nothing to report
}

// New makes a Prober, which asks nothing yet.
func New(ask Ask) *Prober {
	return &Prober{ask: ask, changed: make(chan struct{}, 1), known: map[string]*endpoint{}}
}

// Want takes all endpoints that are to be asked, and has what is known of them reported again.
func (p *Prober) Want(all []api.EndpointProbe) {
	p.mu.Lock()
	defer p.mu.Unlock()
	wanted := map[string]bool{}
	for _, w := range all {
		wanted[w.Name] = true
		if e := p.known[w.Name]; e != nil {
			e.told = e.found.Name == ""
			if e.probe == w {
				continue
			}
			e.stop()
		}
		ctx, cancel := context.WithCancel(context.Background())
		e := &endpoint{probe: w, stop: cancel, told: true}
		p.known[w.Name] = e
		p.parts.Go(func() { p.watch(ctx, e) })
	}
	for name, e := range p.known {
		if !wanted[name] {
			e.stop()
			delete(p.known, name)
		}
	}
	p.poke()
}

// Close ends all asking, and waits for that.
func (p *Prober) Close() error {
	p.Want(nil)
	p.parts.Wait()
	return nil
}

// Changed says that there is something to report.
func (p *Prober) Changed() <-chan struct{} { return p.changed }

func (p *Prober) poke() {
	select {
	case p.changed <- struct{}{}:
	default:
	}
}

// Collect returns what there is to report. sent is to be called once that is acknowledged.
func (p *Prober) Collect() (reports []api.EndpointReport, sent func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(p.known)) {
		if e := p.known[name]; !e.told {
			reports = append(reports, e.found)
		}
	}
	return reports, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, r := range reports {
			if e := p.known[r.Name]; e != nil && e.found == r {
				e.told = true
			}
		}
	}
}

// watch asks one endpoint until ctx ends.
func (p *Prober) watch(ctx context.Context, e *endpoint) {
	w := e.probe
	began, missed, well := time.Now(), 0, false
	tick := time.NewTicker(time.Duration(w.Interval))
	defer tick.Stop()
	for {
		short, cancel := context.WithTimeout(ctx, askTime)
		err := p.ask(short, w)
		cancel()
		if ctx.Err() != nil {
			return
		}
		switch {
		case err == nil:
			missed, well = 0, true
			p.found(e, "")
		case !well && time.Since(began) < time.Duration(w.Timeout):
		default:
			if missed++; missed >= w.Threshold {
				p.found(e, text(err))
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// found notes what was found; the same again is no news, however it is put into words.
func (p *Prober) found(e *endpoint, ill string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	was := e.found
	if was.Name != "" && (was.Ill == "") == (ill == "") {
		return
	}
	e.found, e.told = api.EndpointReport{Name: e.probe.Name, Ill: ill, Since: time.Now().UTC().Round(0)}, false
	p.poke()
}

// text is an error in the words of a report.
func text(err error) string {
	const most = 300
	s := strings.TrimSpace(strings.ReplaceAll(err.Error(), "\n", " "))
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	if s == "" {
		return "it does not answer"
	}
	return s
}
