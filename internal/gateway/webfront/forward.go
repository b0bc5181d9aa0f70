package webfront

import (
	"bufio"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/gateway/webfront/record"
)

// dest is where a request is passed on to.
type dest struct {
	target *url.URL // nil: it cannot be reached
	prefix string   // of the route, decoded
	strip  bool     // the server behind does not want to see the prefix
	user   string   // whose server it is, if a user's
	// foreign: under a host name that Shoal's own cookies are not sent to.
	foreign bool
	app     *shoal.App
	own     bool   // it is one of Shoal's own hub
	hub     bool   // it is a hub
	name    string // of the user's server
	used    func(time.Time)
	busy    func(time.Time) // besides, of what a person does with the app behind a route; nil: nothing is to be told
	still   func() bool     // whether whoever asks still may; nil: nobody looks
}

// askAgain is how long a request goes on until it is looked again whether it still may.
const askAgain = 15 * time.Second

var errNoMore = errors.New("whoever asked is not signed in any more")

// bodyTime is how long the next bytes of a request's body are waited for.
const bodyTime = 60 * time.Second

// forward passes a request on and its answer back.
func (f *Front) forward(w http.ResponseWriter, r *http.Request, d dest) {
	answerOf(w).Of(d.user)
	if d.target == nil {
		f.unreachable(w, r, d, errors.New("what was posted as the target is no address of a server"))
		return
	}
	if f.cfg.Guard != nil {
		f.cfg.Guard.Strip(r.Header)
	}
	f.forwarded(r, d)
	if isWebsocket(r) {
		f.serveTunnel(w, r, d)
		return
	}
	if !f.servers.Enter(d.target.Host) { // one that hangs takes nobody else's place
		w.Header().Set("Retry-After", "5")
		f.fail(w, r, http.StatusServiceUnavailable, "Too many requests wait for this server already.")
		return
	}
	defer f.servers.Leave(d.target.Host)
	call, err := f.pool.send(w, r, d)
	if err != nil {
		f.unreachable(w, r, d, err)
		return
	}
	defer call.end()
	if err := call.read(w, 0); err != nil {
		call.broken = true
		f.unreachable(w, r, d, err)
		return
	}
	f.answer(w, r, d, call)
}

// answerOf returns the account of an answer, or nil.
func answerOf(w http.ResponseWriter) *record.Answer {
	a, _ := w.(*record.Answer)
	return a
}

// answer passes the answer of a server back.
func (f *Front) answer(w http.ResponseWriter, r *http.Request, d dest, call *call) {
	res := call.response
	if f.cfg.Guard != nil && !d.foreign {
		f.cfg.Guard.StripAnswer(res.Header)
	}
	copyHeader(w.Header(), res.Header)
	d.keepApart(w.Header())
	if r.ProtoMajor == 1 && !r.Close { // it goes without saying in HTTP/1.1, but the original says it
		w.Header()["Connection"] = []string{"keep-alive"}
	}
	for name := range res.Trailer {
		w.Header().Add("Trailer", name)
	}
	w.WriteHeader(res.StatusCode)
	if call.link.r.Buffered() == 0 && res.ContentLength != 0 && r.Method != http.MethodHead { // who waits for a stream sees that it has begun
		_ = http.NewResponseController(w).Flush() // the next write tells of the same
	}
	if err := f.copyBody(w, r, res, d.still); err != nil {
		call.broken = true
		if r.Context().Err() == nil {
			f.log.Debug("an answer was cut off", "host", r.Host, "path", r.URL.Path, "server", d.target.Host, "err", err)
		}
		panic(http.ErrAbortHandler) // so the client sees that it is not whole
	}
	for name, values := range res.Trailer {
		w.Header()[name] = values
	}
	if res.StatusCode < 300 { // a server that only refuses is not in use
		now := time.Now()
		d.used(now)
		d.isBusy(now)
	}
}

// keepApart lets no cache, not the browser's own either, show what it has got to whoever uses the browser next. The address
// of an app is that of another server for everybody else.
func (d dest) keepApart(h http.Header) {
	said := h.Get("Cache-Control") != ""
	if d.app != nil || d.still != nil && !said {
		h.Add("Vary", "Cookie")
	}
	if d.app != nil && !said {
		h.Set("Cache-Control", "private")
	}
}

// unreachable answers for a server that does not.
func (f *Front) unreachable(w http.ResponseWriter, r *http.Request, d dest, err error) {
	var slow *slowBody
	if errors.As(err, &slow) {
		w.Header().Set("Connection", "close")
		if errors.Is(err, os.ErrDeadlineExceeded) {
			f.fail(w, r, http.StatusRequestTimeout, "The rest of the request did not come.")
		} else {
			f.fail(w, r, http.StatusBadRequest, "The body of the request is not as it says it is.")
		}
		return
	}
	if r.Context().Err() != nil {
		panic(http.ErrAbortHandler) // it is the client that has gone
	}
	server := "none"
	if d.target != nil {
		server = d.target.Host
	}
	if f.calm.first(d.prefix, time.Now()) {
		f.log.Info("a server does not answer", "prefix", d.prefix, "server", server, "err", err)
	}
	if d.own && d.hub {
		f.hubStarts(w, r) // it is supervised
		return
	}
	if isVisit(r) && (d.own || d.app != nil) {
		w.Header().Set("Refresh", "5") // by then it is known how it is, and she is led to where another one starts
	}
	if d.own {
		f.failHint(w, r, http.StatusServiceUnavailable, f.became(r, d), "The hub notices within half a minute that a server has ended: then it can be started again. /hub/home shows how it is.")
		return
	}
	if d.app != nil {
		f.failHint(w, r, http.StatusServiceUnavailable, "The app "+d.app.Endpoint+" of pool "+string(d.app.Pool)+" does not answer.", "Try again in a moment; /shoal/ shows how it is.")
		return
	}
	f.errorPage(w, r, http.StatusServiceUnavailable, "The server for this address does not answer.", "It may be starting, or have ended. Try again in a moment.")
}

// became says what has become of a user's server, as far as it is known.
func (f *Front) became(r *http.Request, d dest) string {
	if f.cfg.Server == nil || d.user == "" {
		return "This server does not answer."
	}
	app, known := f.cfg.Server(r.Context(), shoal.UserName(d.user), d.name)
	switch {
	case known && !app.Live() && app.Reason != "":
		return "This server has ended: " + strings.TrimSuffix(app.Reason, ".") + "."
	case known && !app.Live():
		return "This server has ended."
	case known && app.Unknown:
		return "The machine of this server does not answer."
	}
	return "This server does not answer. It may be starting."
}

// copyBody passes an answer's body on. What comes is sent at once, but for the end of a body whose length is
// known, which goes with what else there is to send.
func (f *Front) copyBody(w http.ResponseWriter, r *http.Request, res *http.Response, still func() bool) error {
	if res.ContentLength == 0 || r.Method == http.MethodHead {
		return nil
	}
	buf := f.pool.buffers.get()
	defer f.pool.buffers.put(buf)
	var control *http.ResponseController
	left := res.ContentLength
	var asked time.Time
	if still != nil {
		asked = time.Now()
	}
	for {
		n, err := res.Body.Read(*buf)
		if n > 0 && still != nil && time.Since(asked) > askAgain {
			if asked = time.Now(); !still() {
				return errNoMore
			}
		}
		if n > 0 {
			if r.ProtoMajor == 2 { // where one connection's deadline does not tell of a stream that nobody reads
				if control == nil {
					control = http.NewResponseController(w)
				}
				_ = control.SetWriteDeadline(time.Now().Add(writeTime))
			}
			if _, err := w.Write((*buf)[:n]); err != nil {
				return err
			}
			if left -= int64(n); left != 0 {
				if control == nil {
					control = http.NewResponseController(w)
				}
				if err := control.Flush(); err != nil {
					return err
				}
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// Headers that concern one connection, and are said anew on the next.
var hops = map[string]bool{"Connection": true, "Proxy-Connection": true, "Keep-Alive": true, "Te": true, "Trailer": true,
	"Transfer-Encoding": true, "Upgrade": true, "Content-Length": true, "Expect": true, "Host": true, "Http2-Settings": true,
	"Proxy-Authorization": true, "Proxy-Authenticate": true}

// named returns the further headers that concern one connection, by what Connection says.
func named(h http.Header) map[string]bool {
	values := h["Connection"]
	if len(values) == 0 {
		return nil
	}
	var all map[string]bool
	for _, v := range values {
		for name := range strings.SplitSeq(v, ",") {
			name = http.CanonicalHeaderKey(strings.TrimSpace(name))
			if name == "" || name == "Close" || name == "Keep-Alive" || name == "Upgrade" {
				continue
			}
			if all == nil {
				all = map[string]bool{}
			}
			all[name] = true
		}
	}
	return all
}

func copyHeader(to, from http.Header) {
	also := named(from)
	for name, values := range from {
		if hops[name] && name != "Content-Length" || also[name] {
			continue
		}
		to[name] = values
	}
	if _, said := from["Content-Type"]; !said {
		to["Content-Type"] = nil // the server says nothing: nor do we guess
	}
}

// The headers by which the server behind learns of the client. Others that mean the same are
// not passed on from clients.
var forgeable = map[string]bool{"X-Forwarded-For": true, "X-Forwarded-Port": true, "X-Forwarded-Proto": true, "X-Forwarded-Host": true,
	"X-Forwarded-Server": true, "X-Forwarded-Prefix": true, "X-Forwarded-Scheme": true, "X-Forwarded-Ssl": true, "Forwarded": true, "X-Real-Ip": true,
	"X-Scheme": true, "X-Original-Url": true, "X-Rewrite-Url": true, "True-Client-Ip": true}

// forwarded says in the headers who the client is. What the client says of that itself counts only from a proxy
// that is trusted.
func (f *Front) forwarded(r *http.Request, d dest) {
	peer, port := addrOf(peerOf(r)), "80"
	ip := peer.String()
	proto := "http"
	if isWebsocket(r) {
		proto = "ws"
	}
	if r.TLS != nil {
		proto, port = proto+"s", "443"
	}
	if i := strings.LastIndexByte(r.Host, ':'); i > strings.LastIndexByte(r.Host, ']') {
		if p := r.Host[i+1:]; p != "" {
			port = p
		}
	}
	h := r.Header
	if len(f.cfg.Trusted) > 0 && f.trusts(peer) {
		add := func(name, value string) {
			if former := h[name]; len(former) > 0 {
				value = strings.Join(former, ",") + "," + value
			}
			h[name] = []string{value}
		}
		add("X-Forwarded-For", ip)
		add("X-Forwarded-Port", port)
		add("X-Forwarded-Proto", proto)
		if h.Get("X-Forwarded-Host") == "" {
			h["X-Forwarded-Host"] = []string{r.Host}
		}
	} else {
		for name := range h {
			if forgeable[name] || strings.IndexByte(name, '_') >= 0 && forgeable[http.CanonicalHeaderKey(strings.ReplaceAll(name, "_", "-"))] {
				delete(h, name)
			}
		}
		h["X-Forwarded-For"], h["X-Forwarded-Port"] = []string{ip}, []string{port}
		h["X-Forwarded-Proto"], h["X-Forwarded-Host"] = []string{proto}, []string{r.Host}
	}
	if d.strip {
		h["X-Forwarded-Prefix"] = []string{d.prefix}
	}
}

// requestURI is what the server behind is asked for: byte for byte what the client has asked for, but for bytes that have
// no place in an address, and for the prefix where that is not wanted.
func requestURI(r *http.Request, d dest) string {
	uri := r.RequestURI
	if uri == "" || uri[0] != '/' { // the absolute form, or a request of HTTP/2 made by a test
		uri = r.URL.EscapedPath()
		if r.URL.RawQuery != "" || r.URL.ForceQuery {
			uri += "?" + r.URL.RawQuery
		}
	}
	if d.strip {
		for range strings.Count(d.prefix, "/") {
			if next := strings.IndexByte(uri[1:], '/'); next >= 0 {
				uri = uri[1+next:]
			} else {
				uri = "/"
			}
		}
		uri = "/" + strings.TrimLeft(uri, "/") // what begins with two slashes would be read as a host
	}
	if base := d.target.EscapedPath(); base != "" && base != "/" {
		uri = strings.TrimSuffix(base, "/") + uri
	}
	if d.app == nil {
		uri = joined(uri)
	}
	for i := range len(uri) {
		if uri[i] <= ' ' || uri[i] >= 0x7f {
			return escapeBytes(uri)
		}
	}
	return uri
}

// joined does to a path what the original does, which services of JupyterHub have come to rely on: several slashes
// become one, and the first http:/ and https:/ in it have two again. What follows a question mark stays as it is.
func joined(uri string) string {
	path, query, asked := strings.Cut(uri, "?")
	if !strings.Contains(path, "//") && !strings.Contains(path, "http:/") && !strings.Contains(path, "https:/") {
		return uri
	}
	var b strings.Builder
	for i := range len(path) {
		if path[i] != '/' || i == 0 || path[i-1] != '/' {
			b.WriteByte(path[i])
		}
	}
	path = strings.Replace(strings.Replace(b.String(), "http:/", "http://", 1), "https:/", "https://", 1)
	if asked {
		return path + "?" + query
	}
	return path
}

func escapeBytes(uri string) string {
	var b strings.Builder
	for i := range len(uri) {
		if c := uri[i]; c <= ' ' || c >= 0x7f {
			b.WriteByte('%')
			b.WriteString(strings.ToUpper(strconv.FormatUint(uint64(c)|0x100, 16)[1:]))
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// writeHead writes a request's first line and headers, but for those that say how long its body is, and the empty line.
func writeHead(out *bufio.Writer, r *http.Request, d dest) {
	out.WriteString(r.Method)
	out.WriteByte(' ')
	out.WriteString(requestURI(r, d))
	out.WriteString(" HTTP/1.1\r\nHost: ")
	out.WriteString(r.Host)
	out.WriteString("\r\n")
	also := named(r.Header)
	for name, values := range r.Header {
		if hops[name] || also[name] {
			continue
		}
		for _, v := range values {
			writeHeader(out, name, v)
		}
	}
	if len(r.Trailer) > 0 {
		names := slices.Sorted(maps.Keys(r.Trailer))
		writeHeader(out, "Trailer", strings.Join(names, ", "))
	}
}

// writeHeader writes one header. The server has checked that neither name nor value has a line's end.
func writeHeader(out *bufio.Writer, name, value string) {
	out.WriteString(name)
	out.WriteString(": ")
	out.WriteString(value)
	out.WriteString("\r\n")
}
