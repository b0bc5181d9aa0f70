// Package record keeps account of what the front end for browsers was asked: figures for Prometheus, whose number does not
// grow with users or addresses, and the lines of an access log.
//
// A line has no query, no header and no body: secrets travel there. What a user's own app puts into a path is told as it is.
package record

import (
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Part is who answers a request.
type Part string

// The parts.
const (
	Pages  Part = "pages"  // Shoal's own
	API    Part = "api"    // Shoal's own
	App    Part = "app"    // a user's own web app
	Server Part = "server" // whoever a route leads to
)

// Limit is why somebody was turned away.
type Limit string

// The limits.
const (
	Connections Limit = "connections"
	Requests    Limit = "requests"
	Websockets  Limit = "websockets"
)

// Book is the account. It is a prometheus.Collector.
type Book struct {
	log        *slog.Logger // nil: there is no access log
	requests   *prometheus.CounterVec
	refused    *prometheus.CounterVec
	seconds    *prometheus.HistogramVec
	open       prometheus.Gauge
	websockets prometheus.Gauge
}

// New makes an account. Lines of an access log go to log, each in one call; nil: there is none.
func New(log io.Writer) *Book {
	b := &Book{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "shoal_web_requests_total",
			Help: "Requests of browsers, by who answers and the class of the answer; none: it was broken off before."}, []string{"part", "class"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "shoal_web_refused_total",
			Help: "Connections, requests and websockets that were over a limit."}, []string{"limit"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "shoal_web_answer_seconds",
			Help: "Time from the headers of a request to those of its answer.", Buckets: []float64{.001, .005, .02, .1, .5, 2, 10, 60}}, []string{"part"}),
		open:       prometheus.NewGauge(prometheus.GaugeOpts{Name: "shoal_web_requests_open", Help: "Requests of browsers that are being answered."}),
		websockets: prometheus.NewGauge(prometheus.GaugeOpts{Name: "shoal_web_websockets_open", Help: "Open websockets."}),
	}
	if log != nil {
		b.log = slog.New(slog.NewJSONHandler(log, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.LevelKey || a.Key == slog.MessageKey { // they are the same in every line
				return slog.Attr{}
			}
			return a
		}}))
	}
	return b
}

func (b *Book) all() []prometheus.Collector {
	return []prometheus.Collector{b.requests, b.refused, b.seconds, b.open, b.websockets}
}

// Describe implements prometheus.Collector.
func (b *Book) Describe(ch chan<- *prometheus.Desc) {
	for _, c := range b.all() {
		c.Describe(ch)
	}
}

// Collect implements prometheus.Collector.
func (b *Book) Collect(ch chan<- prometheus.Metric) {
	for _, c := range b.all() {
		c.Collect(ch)
	}
}

// Refused counts somebody who was turned away.
func (b *Book) Refused(l Limit) { b.refused.WithLabelValues(string(l)).Inc() }

// Websocket counts one that has opened (1) or ended (-1).
func (b *Book) Websocket(n float64) { b.websockets.Add(n) }

// Begin begins the account of a request, of which End tells the end. The answer goes through what it returns.
func (b *Book) Begin(w http.ResponseWriter, r *http.Request, p Part, peer string) *Answer {
	b.open.Inc()
	return &Answer{ResponseWriter: w, book: b, request: r, part: p, peer: peer, began: time.Now()}
}

// Answer is an http.ResponseWriter that notes what passes. Its methods for further notes may be called on a nil one.
type Answer struct {
	http.ResponseWriter
	book   *Book
	peer   string
	part   Part
	began  time.Time
	status int // zero: none yet
	bytes  int64
	whole  bool
	owner  string
	// request is only read at the end for what no handler changes.
	request *http.Request
}

// Unwrap is for http.ResponseController.
func (a *Answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// WriteHeader implements http.ResponseWriter.
func (a *Answer) WriteHeader(status int) {
	if status >= 200 { // answers ahead of the answer are none
		a.begins(status)
	}
	a.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (a *Answer) Write(p []byte) (int, error) {
	a.begins(http.StatusOK)
	n, err := a.ResponseWriter.Write(p)
	a.bytes += int64(n)
	return n, err
}

func (a *Answer) begins(status int) {
	if a.status == 0 {
		a.status = status
		a.book.seconds.WithLabelValues(string(a.part)).Observe(time.Since(a.began).Seconds())
	}
}

// Switched notes that the connection has become a websocket.
func (a *Answer) Switched() {
	if a != nil {
		a.begins(http.StatusSwitchingProtocols)
	}
}

// Of notes whose server answers.
func (a *Answer) Of(owner string) {
	if a != nil {
		a.owner = owner
	}
}

// Whole notes that nothing was cut off.
func (a *Answer) Whole() {
	a.begins(http.StatusOK) // so it is when a handler says nothing
	a.whole = true
}

// longest is how much of what a client has sent is in a line.
const longest = 512

// End ends the account.
func (a *Answer) End() {
	b := a.book
	b.open.Dec()
	class := "none"
	if a.status >= 100 && a.status < 600 {
		class = strconv.Itoa(a.status/100) + "xx"
	}
	b.requests.WithLabelValues(string(a.part), class).Inc()
	if b.log == nil {
		return
	}
	r := a.request
	attrs := []slog.Attr{slog.String("client", a.peer), slog.String("method", cut(r.Method)), slog.String("host", cut(r.Host)), slog.String("path", cut(r.URL.EscapedPath())),
		slog.String("protocol", r.Proto), slog.Int("status", a.status), slog.Int64("bytes", a.bytes), slog.Float64("seconds", time.Since(a.began).Round(time.Microsecond).Seconds()), slog.String("part", string(a.part))}
	if a.owner != "" {
		attrs = append(attrs, slog.String("owner", a.owner))
	}
	if !a.whole {
		attrs = append(attrs, slog.Bool("cut", true))
	}
	b.log.LogAttrs(r.Context(), slog.LevelInfo, "", attrs...)
}

func cut(s string) string {
	if len(s) > longest {
		return s[:longest] + "…"
	}
	return s
}
