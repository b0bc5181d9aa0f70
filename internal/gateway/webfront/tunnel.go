package webfront

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/shoal-pool/shoal/internal/gateway/webfront/pump"
	"github.com/shoal-pool/shoal/internal/gateway/webfront/record"
)

// shakeTime is how long a server may take to agree to a websocket.
const shakeTime = 30 * time.Second

// isWebsocket reports whether a request asks to become a websocket. Other protocols are not switched to: what is
// said in them nobody here could look at.
func isWebsocket(r *http.Request) bool {
	if r.ProtoMajor != 1 || r.Method != http.MethodGet || !strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
		return false
	}
	for _, v := range r.Header["Connection"] {
		for token := range strings.SplitSeq(v, ",") {
			if strings.EqualFold(strings.TrimSpace(token), "upgrade") {
				return true
			}
		}
	}
	return false
}

// serveTunnel asks the server for a websocket and, where it agrees, passes bytes both ways until one end closes.
func (f *Front) serveTunnel(w http.ResponseWriter, r *http.Request, d dest) {
	source := sourceOf(r)
	if !f.tunnels.Enter(source) {
		f.cfg.Book.Refused(record.Websockets)
		f.fail(w, r, http.StatusTooManyRequests, "Too many websockets are open from where you are.")
		return
	}
	leave := func() { f.tunnels.Leave(source) }
	if d.user != "" {
		if !f.users.Enter(d.user) {
			leave()
			f.cfg.Book.Refused(record.Websockets)
			f.fail(w, r, http.StatusTooManyRequests, "Too many websockets are open to the servers of "+d.user+".")
			return
		}
		leave = func() { f.tunnels.Leave(source); f.users.Leave(d.user) }
	}
	var t *tunnel
	defer func() {
		if t == nil {
			leave()
		}
	}()
	c, err := f.askTunnel(r, d)
	if err != nil {
		f.unreachable(w, r, d, err)
		return
	}
	if c.response.StatusCode != http.StatusSwitchingProtocols {
		defer c.end()
		c.broken = true
		f.answer(w, r, d, c)
		return
	}
	if c.stop() {
		t = f.open(w, d, c, leave)
	}
	if t == nil {
		c.link.Close()
		return
	}
	t.begin()
}

// askTunnel asks the server for a websocket, on a connection of its own.
func (f *Front) askTunnel(r *http.Request, d dest) (*call, error) {
	l, err := f.pool.open(r.Context(), d)
	if err != nil {
		return nil, err
	}
	c := &call{pool: f.pool, link: l, request: r}
	c.stop = context.AfterFunc(r.Context(), func() { l.Close() })
	_ = l.SetDeadline(time.Now().Add(shakeTime))
	writeHead(l.w, r, d)
	l.w.WriteString("Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	if err = l.w.Flush(); err == nil {
		l.left = maxAnswerHeader
		err = c.read(discardEarly{}, 0)
	}
	if err == nil && c.response.StatusCode == http.StatusSwitchingProtocols && !strings.EqualFold(c.response.Header.Get("Upgrade"), "websocket") {
		err = errors.New("it has switched to another protocol than websocket")
	}
	if err == nil {
		err = l.SetDeadline(time.Time{})
	}
	if err != nil {
		c.stop()
		l.Close()
		return nil, err
	}
	return c, nil
}

// discardEarly takes answers ahead of the answer: a websocket has no use for them.
type discardEarly struct{}

func (discardEarly) Header() http.Header         { return http.Header{} }
func (discardEarly) Write(b []byte) (int, error) { return len(b), nil }
func (discardEarly) WriteHeader(int)             {}

// open takes the client's connection over and makes a tunnel of it, which needs nothing of the request any more. Nil: it
// cannot be.
func (f *Front) open(w http.ResponseWriter, d dest, c *call, ended func()) *tunnel {
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		f.log.Error("a connection cannot be taken over", "err", err)
		return nil
	}
	answerOf(w).Switched()
	if f.cfg.Guard != nil && !d.foreign {
		f.cfg.Guard.StripAnswer(c.response.Header)
	}
	if writeSwitch(conn, c.response.Header) != nil {
		conn.Close()
		return nil
	}
	now := time.Now()
	d.used(now)
	d.isBusy(now)
	t := &tunnel{front: f, client: conn, server: c.link.Conn, used: d.used, busy: d.busy, still: d.still, opened: now, ended: ended, fromClient: ahead(buffered.Reader), fromServer: ahead(c.link.r)}
	t.told.Store(-int64(time.Second))
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closing {
		conn.Close()
		return nil
	}
	if err := t.takePlain(); err != nil {
		f.log.Error("a websocket cannot be opened", "err", err)
		return nil
	}
	f.piping[t] = struct{}{}
	f.all.Add(1)
	f.cfg.Book.Websocket(1)
	f.pool.recycle(c.link)
	return t
}

// writeSwitch tells the client that the server has agreed.
func writeSwitch(conn net.Conn, from http.Header) error {
	out := bufio.NewWriterSize(conn, 1<<10)
	out.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n")
	head := http.Header{}
	copyHeader(head, from)
	delete(head, "Content-Length")
	for name, values := range head {
		for _, v := range values {
			writeHeader(out, name, v)
		}
	}
	out.WriteString("\r\n")
	return out.Flush()
}

// ahead takes out of a reader what it has read ahead.
func ahead(r *bufio.Reader) []byte {
	b, _ := r.Peek(r.Buffered())
	return append([]byte(nil), b...)
}

// tunnel is a websocket: two connections and the bytes between them.
type tunnel struct {
	front          *Front
	client, server net.Conn
	pair           *pump.Pair // of both connections, if both are plain; nil: there are two goroutines
	used, busy     func(time.Time)
	still          func() bool
	opened         time.Time
	asked          atomic.Int64 // when, in nanoseconds since it was opened
	told           atomic.Int64 // when it was told last that somebody does something, likewise
	ended          func()
	// What was read ahead goes first.
	fromClient, fromServer []byte
	closed                 atomic.Bool
	ways                   atomic.Int32 // that have ended
}

// takePlain gives both connections to a pump, if it can read them. On an error they are closed.
func (t *tunnel) takePlain() (err error) {
	c, ok := t.client.(*client)
	if !ok {
		return nil
	}
	a, ok := c.Conn.(*net.TCPConn)
	if !ok {
		return nil
	}
	b, ok := t.server.(*net.TCPConn)
	if !ok {
		return nil
	}
	t.pair, err = t.front.pumps.Take(pump.Task{A: a, B: b, FromA: t.fromClient, FromB: t.fromServer, See: t.see, Ended: func() {
		_ = c.Close() // it is counted no more
		t.over()
	}})
	t.client, t.server, t.fromClient, t.fromServer = nil, nil, nil, nil
	if err != nil {
		_ = c.Close()
	}
	return err
}

func (t *tunnel) close() {
	switch {
	case t.pair != nil:
		t.pair.Close()
	case t.closed.CompareAndSwap(false, true):
		t.client.Close()
		t.server.Close()
	}
}

// lingerTime is how long the other direction may go on once one has ended.
const lingerTime = pump.LingerTime

// begin passes bytes on until both directions have ended. It does not wait for that.
func (t *tunnel) begin() {
	if t.pair != nil {
		t.pair.Begin()
		return
	}
	go func() { t.copy(t.client, t.server, t.fromServer); t.end() }()
	go func() { t.copy(t.server, t.client, t.fromClient); t.end() }()
}

// end is the end of one direction.
func (t *tunnel) end() {
	if t.ways.Add(1) == 2 {
		t.close()
		t.over()
	}
}

// over is called when both connections are closed.
func (t *tunnel) over() {
	t.front.mu.Lock()
	delete(t.front.piping, t)
	t.front.mu.Unlock()
	t.front.cfg.Book.Websocket(-1)
	t.ended()
	t.front.all.Done()
}

// see notes that something passes. What it returns is to be asked before: whether whoever has opened the websocket is still
// signed in. It is, now and then.
func (t *tunnel) see(now time.Time, b []byte) (question func() bool) {
	ping := isPing(b)
	at := int64(now.Sub(t.opened))
	if t.still == nil || at-t.asked.Load() < int64(askAgain) {
		t.note(now, ping)
		return nil
	}
	t.asked.Store(at)
	return func() bool {
		if !t.still() {
			return false
		}
		t.note(now, ping)
		return true
	}
}

// note notes the use of the server behind; besides, once a second at most, that of an app.
func (t *tunnel) note(now time.Time, ping bool) {
	t.used(now)
	if at := int64(now.Sub(t.opened)); t.busy != nil && !ping && at-t.told.Load() >= int64(time.Second) {
		t.told.Store(at)
		t.busy(now)
	}
}

// Websockets are quiet for most of the time: their buffers are small, and borrowed when much comes.
const quietBuffer = 1 << 10

// copy passes on one direction.
func (t *tunnel) copy(to, from net.Conn, ahead []byte) {
	defer t.half(to)
	if len(ahead) > 0 {
		if _, err := to.Write(ahead); err != nil {
			return
		}
	}
	small := make([]byte, quietBuffer)
	var large *[]byte
	defer func() {
		if large != nil {
			t.front.pool.buffers.put(large)
		}
	}()
	for {
		buf := small
		if large != nil {
			buf = *large
		}
		n, err := from.Read(buf)
		if n > 0 {
			if question := t.see(time.Now(), buf[:n]); question != nil && !question() {
				t.close()
				return
			}
			if _, err := to.Write(buf[:n]); err != nil {
				t.close()
				return
			}
		}
		if err != nil {
			if !errors.Is(err, io.EOF) {
				t.close()
			}
			return
		}
		switch {
		case n == len(buf) && large == nil:
			large = t.front.pool.buffers.get()
		case n <= quietBuffer/2 && large != nil:
			t.front.pool.buffers.put(large)
			large = nil
		}
	}
}

// isPing reports whether what has come looks like a ping or its answer alone: servers send them as long as a page is open.
func isPing(b []byte) bool {
	const longest = 2 + 4 + 125 // head, mask, text
	return len(b) <= longest && (b[0] == 0x89 || b[0] == 0x8a)
}

// half tells an end that nothing more comes, and gives the other direction a moment.
func (t *tunnel) half(to net.Conn) {
	if t.ways.Load() > 0 {
		return // the other one has ended: both are about to be closed
	}
	if w, ok := to.(interface{ CloseWrite() error }); ok && w.CloseWrite() == nil {
		_ = t.client.SetReadDeadline(time.Now().Add(lingerTime))
		_ = t.server.SetReadDeadline(time.Now().Add(lingerTime))
		return
	}
	t.close()
}
