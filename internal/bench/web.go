package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoal-pool/shoal/internal/bench/meter"
	"github.com/shoal-pool/shoal/internal/rig"
	"github.com/shoal-pool/shoal/internal/rig/proxy"
)

const (
	chp = "configurable-http-proxy"
	// crowd of open websockets, and for how long they are watched here; `make prove` does it for 10 minutes.
	webCrowd = 2000
	webWatch = 30 * time.Second
	// How long a rate is measured, and by how many connections.
	webLength  = 3 * time.Second
	webWarm    = time.Second // before the first, for the original compiles what it does often
	webCallers = 32
	webUsers   = 100 // each with a server of her own
	webBusy    = 256 // websockets that talk at once when there are many of them
)

// fronts are our front end and the original, as processes of their own with the same command line, before the same
// backends.
type fronts struct {
	fast       *proxy.Fast
	echoes     *proxy.Echoes
	echo       *proxy.Backend
	ours, peer *proxy.Proxy
	direct     string // address of the fast backend
}

// webRows compares our front end with configurable-http-proxy: both without TLS, told their routes by the same API.
func webRows(ctx context.Context, b *bench) error {
	return b.apart(ctx, "web", func() error { return b.withFronts(ctx, webRates, webLatency, webVisible) })
}

// crowdRows opens many websockets through both.
func crowdRows(ctx context.Context, b *bench) error {
	return b.apart(ctx, "websockets", func() error { return b.withFronts(ctx, webCrowds) })
}

// isApart is set for a process that apart has started.
const isApart = "SHOAL_BENCH_APART"

// plainNetwork makes a network of its own, in which packets are neither filtered nor counted, as servers' rules for their machines do,
// and in which TCP measures nothing that loopback always has enough of, as BBR and the tuning of buffers do. Either proxy would spend a
// good part of its work's time on these, and the load as much again.
const plainNetwork = `ip link set lo up && echo reno > /proc/sys/net/ipv4/tcp_congestion_control && echo 0 > /proc/sys/net/ipv4/tcp_moderate_rcvbuf && exec "$@"`

// apart has a rig measured by a process of its own in a network of its own.
func (b *bench) apart(ctx context.Context, name string, rows func() error) error {
	if os.Getenv(isApart) != "" {
		return rows()
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	out := filepath.Join(b.dir, name+".json")
	cmd := exec.CommandContext(ctx, "unshare", "--net", "sh", "-c", plainNetwork, "sh",
		self, "-bin", b.bin, "-run", "^"+name+"$", "-rounds", strconv.Itoa(b.rounds), "-o", out)
	cmd.Env = append(os.Environ(), isApart+"=1")
	cmd.Stderr = os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	if err := cmd.Run(); err != nil {
		return err
	}
	text, err := os.ReadFile(out)
	if err != nil {
		return err
	}
	var found []Row
	if err := json.Unmarshal(text, &found); err != nil {
		return err
	}
	b.rows = append(b.rows, found...)
	return nil
}

func (b *bench) withFronts(ctx context.Context, measure ...func(context.Context, *bench, *fronts) error) (err error) {
	f, err := b.fronts(ctx)
	if f != nil {
		defer func() { err = errors.Join(err, f.close()) }()
	}
	if err != nil {
		return err
	}
	for _, rows := range measure {
		if err := rows(ctx, b, f); err != nil {
			return err
		}
	}
	return nil
}

// fronts starts both. What it returns is to be closed, also after an error.
func (b *bench) fronts(ctx context.Context) (*fronts, error) {
	original, err := proxy.Original()
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(b.dir, "web")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	standIn, err := proxy.StandIn(".", dir)
	if err != nil {
		return nil, err
	}
	f := &fronts{}
	if f.fast, err = proxy.NewFast(); err != nil {
		return f, err
	}
	if f.echoes, err = proxy.NewEchoes(webUsers); err != nil {
		return f, err
	}
	if f.echo, err = proxy.NewBackend("echo"); err != nil {
		return f, err
	}
	f.direct = strings.TrimPrefix(f.fast.URL, "http://")
	err = proxy.OnOne(func() (err error) {
		if f.ours, err = proxy.Start(ctx, standIn, dir); err == nil {
			f.peer, err = proxy.Start(ctx, original, dir)
		}
		return err
	})
	if err != nil {
		return f, err
	}
	for _, p := range []*proxy.Proxy{f.ours, f.peer} {
		for i := range webUsers {
			if err := p.Add(ctx, fmt.Sprintf("/user/u%d", i), f.fast.URL); err != nil {
				return f, err
			}
			if err := p.Add(ctx, talkPath(i), f.echoes.URLs[i]); err != nil {
				return f, err
			}
		}
		if err := p.Add(ctx, "/echo", f.echo.URL); err != nil {
			return f, err
		}
	}
	return f, nil
}

func (f *fronts) close() error {
	var errs []error
	for _, p := range []*proxy.Proxy{f.ours, f.peer} {
		if p != nil {
			errs = append(errs, p.Close())
		}
	}
	if f.fast != nil {
		errs = append(errs, f.fast.Close())
	}
	if f.echoes != nil {
		errs = append(errs, f.echoes.Close())
	}
	if f.echo != nil {
		errs = append(errs, f.echo.Close())
	}
	return errors.Join(errs...)
}

// pair measures ours and the peer in alternating rounds.
func (b *bench) pair(f *fronts, measure func(*proxy.Proxy) (float64, error)) (ours, peer []float64, err error) {
	for range b.rounds {
		o, err := measure(f.ours)
		if err != nil {
			return nil, nil, fmt.Errorf("ours: %w", err)
		}
		p, err := measure(f.peer)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", chp, err)
		}
		ours, peer = append(ours, o), append(peer, p)
	}
	return ours, peer, nil
}

func talkPath(user int) string { return fmt.Sprintf("/talk/u%d", user) }

// webRates measures how much passes in a second, and what of the processors that takes.
//
// People have a proxy whose clients and servers are elsewhere; here all share a machine, and a rate tells of the load too. Of requests the
// proxy takes most of the time. Of websocket messages it does not, though the load is as cheap as it can be, for so is our proxy: four
// reads and four writes of the kernel's TCP, 7 µs, of which half are the proxy's. A proxy that costs a third of the original makes
// that 2.5 times as many messages, and one that costs nothing 5.3 times: docs/decisions/013-websockets.md has the figures.
//
// So the 2.5 that is wanted is asked of the rates of requests and of messages, and of the processor time that one takes of the proxy
// itself, which is what a machine is full of that has a proxy and nothing else: 0.4 of the original's at most. With many websockets
// at once, and where each is opened for one message, the rates are to be no worse than the original's.
//
// Both proxies get the very same load, and each the same one processor, on which the load of websockets is as well. With two, the
// kernel has them on one or on both as it likes, and a message takes twice as long from the other processor's cache. Ours would
// use all processors that there are, the original one.
func webRates(ctx context.Context, b *bench, f *fronts) error {
	talk := func(n int) (paths []string) {
		for i := range n {
			paths = append(paths, talkPath(i%webUsers))
		}
		return paths
	}
	for _, row := range []struct {
		measure, unit, note string
		least, most         float64 // ratio of the rates, and of the processor times
		rate                func(ctx context.Context, addr string, length time.Duration) (float64, error)
	}{
		{"requests", "requests/s", fmt.Sprintf("%d connections of clients, %d routes, without TLS", webCallers, 2*webUsers), 2.5, 0.4,
			func(ctx context.Context, addr string, length time.Duration) (float64, error) {
				return proxy.Requests(ctx, addr, "/user/u42/fast", webCallers, length)
			}},
		{"websocket messages there and back", "messages/s", fmt.Sprintf("%d open websockets, 64 bytes", webCallers), 2.5, 0.4,
			func(ctx context.Context, addr string, length time.Duration) (float64, error) {
				return f.echoes.RoundTrips(ctx, addr, talk(webCallers), length)
			}},
		{"websocket messages there and back, many at once", "messages/s", fmt.Sprintf("%d open websockets, 64 bytes", webBusy), 1, 0.4,
			func(ctx context.Context, addr string, length time.Duration) (float64, error) {
				return f.echoes.RoundTrips(ctx, addr, talk(webBusy), length)
			}},
		{"websockets opened, one message there and back, closed", "websockets/s", fmt.Sprintf("%d at a time, 64 bytes", webCallers), 1, 1,
			func(ctx context.Context, addr string, length time.Duration) (float64, error) {
				return f.echoes.Visits(ctx, addr, talk(webCallers), length)
			}},
	} {
		for _, p := range []*proxy.Proxy{f.ours, f.peer} {
			if _, err := row.rate(ctx, p.Addr, webWarm); err != nil {
				return err
			}
		}
		var ours, peer costs
		rates, peers, err := b.pair(f, func(p *proxy.Proxy) (float64, error) {
			to := &ours
			if p == f.peer {
				to = &peer
			}
			return to.measure(p, func() (float64, time.Duration, error) {
				start := time.Now()
				rate, err := row.rate(ctx, p.Addr, webLength)
				return rate, time.Since(start), err
			})
		})
		if err != nil {
			return err
		}
		b.add(Row{Measure: "front end: " + row.measure, Unit: row.unit, Ours: rates, Peer: peers, PeerIs: chp, Note: row.note}.judge(atLeast("ratio", row.least)))
		b.add(Row{Measure: "front end: processor time for " + row.measure, Unit: "µs", Ours: ours.proxy, Peer: peer.proxy, PeerIs: chp,
			Note: fmt.Sprintf("of the proxy, each; clients and backends take %s µs before ours, %s before the original", number(median(ours.load)), number(median(peer.load)))}.judge(atMost("ratio", row.most)))
	}
	return nil
}

// costs are the processor time that each of what was measured has taken, in microseconds.
type costs struct{ proxy, load []float64 }

func (s *costs) measure(p *proxy.Proxy, what func() (float64, time.Duration, error)) (float64, error) {
	pid := p.Cmd.Process.Pid
	before, err := meter.Ticks(pid)
	if err != nil {
		return 0, err
	}
	own := ownTime()
	rate, took, err := what()
	if err != nil {
		return 0, err
	}
	load := ownTime() - own
	after, err := meter.Ticks(pid)
	if err != nil {
		return 0, err
	}
	n := rate * took.Seconds()
	s.proxy = append(s.proxy, float64(after-before)*10_000/n) // a tick is a hundredth of a second
	s.load = append(s.load, load.Seconds()*1e6/n)
	return rate, nil
}

// ownTime is the processor time of this process.
func ownTime() time.Duration {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) != nil {
		return 0 // it cannot be for a process's own
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// webLatency compares with the backend alone.
func webLatency(ctx context.Context, b *bench, f *fronts) error {
	const n = 1000
	var ours, direct, peer []float64
	for range b.rounds {
		for _, way := range []struct {
			addr string
			to   *[]float64
		}{{f.direct, &direct}, {f.ours.Addr, &ours}, {f.peer.Addr, &peer}} {
			ms, err := proxy.Latency(ctx, way.addr, "/user/u42/fast", n)
			if err != nil {
				return err
			}
			*way.to = append(*way.to, ms)
		}
	}
	b.add(Row{Measure: "front end: time of a request, at the median", Unit: "ms", Ours: ours, Peer: direct, PeerIs: "backend alone",
		Note: fmt.Sprintf("through %s it takes %s ms", chp, number(median(peer)))}.judge(atMost("difference", 0.3)))
	return nil
}

// webVisible measures from the call that makes a route until it is served.
func webVisible(ctx context.Context, b *bench, f *fronts) error {
	n := 0
	ours, peer, err := b.pair(f, func(p *proxy.Proxy) (float64, error) {
		var took []float64
		for range 20 {
			n++
			path := fmt.Sprintf("/fresh/r%d", n)
			start := time.Now()
			if err := p.Add(ctx, path, f.fast.URL); err != nil {
				return 0, err
			}
			for {
				r, err := http.Get("http://" + p.Addr + path + "/fast")
				if err != nil {
					return 0, err
				}
				_ = r.Body.Close() // four bytes
				if r.StatusCode == http.StatusOK {
					break
				}
			}
			took = append(took, time.Since(start).Seconds()*1000)
		}
		return median(took), nil
	})
	if err != nil {
		return err
	}
	b.add(Row{Measure: "front end: a new route, from the call to an answer through it", Unit: "ms", Ours: ours, Peer: peer, PeerIs: chp}.judge(atMost("ours", 5)))
	return nil
}

// held is what a proxy has while a crowd is there, and after it.
type held struct{ each, growth, sockets, left float64 }

// webCrowds opens websockets, lets them talk now and then, and looks at what they cost.
func webCrowds(ctx context.Context, b *bench, f *fronts) error {
	var ours, peer []held
	for range min(b.rounds, 2) { // each is most of a minute
		for _, p := range []struct {
			*proxy.Proxy
			to *[]held
		}{{f.ours, &ours}, {f.peer, &peer}} {
			h, err := webHold(ctx, p.Proxy)
			if err != nil {
				return err
			}
			*p.to = append(*p.to, h)
		}
	}
	take := func(of []held, what func(held) float64) (all []float64) {
		for _, h := range of {
			all = append(all, what(h))
		}
		return all
	}
	row := func(what, unit string, value func(held) float64, g goal) {
		b.add(Row{Measure: fmt.Sprintf("front end, %d websockets: %s", webCrowd, what), Unit: unit, Ours: take(ours, value), Peer: take(peer, value), PeerIs: chp}.judge(g))
	}
	row("memory of each", "KiB", func(h held) float64 { return h.each }, atMost("ours", 64))
	row(fmt.Sprintf("growth of the memory in %s", webWatch), "%", func(h held) float64 { return h.growth }, atMost("ours", 3))
	row("sockets of each", "sockets", func(h held) float64 { return h.sockets }, atMost("ours", 2))
	row("sockets and ports left when they have gone", "sockets", func(h held) float64 { return h.left }, atMost("ours", 0))
	return nil
}

func webHold(ctx context.Context, p *proxy.Proxy) (held, error) {
	pid := p.Cmd.Process.Pid
	count := func() (float64, error) {
		n, err := proxy.Sockets(pid)
		return float64(n), err
	}
	if _, err := proxy.Requests(ctx, p.Addr, "/user/u1/fast", 1, 10*time.Millisecond); err != nil { // what is made once is made
		return held{}, err
	}
	idle, err := count()
	if err != nil {
		return held{}, err
	}
	empty, err := settledPSS(pid)
	if err != nil {
		return held{}, err
	}
	crowd, err := proxy.Gather(ctx, p.Addr, "/echo", webCrowd)
	if err != nil {
		return held{}, err
	}
	defer crowd.Leave()
	if err := crowd.Talk(ctx); err != nil {
		return held{}, err
	}
	full, err := settledPSS(pid)
	if err != nil {
		return held{}, err
	}
	open, err := count()
	if err != nil {
		return held{}, err
	}
	for end := time.Now().Add(webWatch); time.Now().Before(end); {
		if err := crowd.Talk(ctx); err != nil {
			return held{}, err
		}
		select {
		case <-ctx.Done():
			return held{}, ctx.Err()
		case <-time.After(webWatch / 10):
		}
	}
	later, err := settledPSS(pid)
	if err != nil {
		return held{}, err
	}
	crowd.Leave()
	h := held{each: (full - empty) / webCrowd, growth: 100 * (later - full) / full, sockets: (open - idle) / webCrowd}
	_ = rig.Until(ctx, 20*time.Second, "the sockets have gone", func() (bool, error) { // those that stay are the result
		left, err := count()
		h.left = max(0, left-idle-1) // one to a backend may be kept for the next request
		return h.left == 0, err
	})
	return h, nil
}
