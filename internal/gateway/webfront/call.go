package webfront

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// call is one request and its answer.
type call struct {
	pool     *pool
	link     *link
	request  *http.Request
	response *http.Response
	stop     func() bool
	body     *sending // of the request's body, if it has one
	broken   bool     // the connection cannot be used again
}

// send sends a request and waits for the first byte of its answer. What can be repeated is, when a connection
// that was kept turns out to be closed.
func (p *pool) send(w http.ResponseWriter, r *http.Request, d dest) (*call, error) {
	for first := true; ; first = false {
		var l *link
		if first {
			l = p.get(keyOf(d))
		}
		kept := l != nil
		if l == nil {
			var err error
			if l, err = p.open(r.Context(), d); err != nil {
				return nil, err
			}
		}
		c := &call{pool: p, link: l, request: r}
		c.stop = context.AfterFunc(r.Context(), func() { l.Close() })
		err := c.write(w, d)
		if err == nil {
			l.left = maxAnswerHeader
			_, err = l.r.Peek(1)
		}
		if err == nil {
			return c, nil
		}
		c.broken = true
		if sent := c.end(); sent != nil {
			return nil, sent // why the body could not be read is the cause
		}
		if !kept || !repeatable(r) || r.Context().Err() != nil {
			return nil, err
		}
	}
}

func repeatable(r *http.Request) bool {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
		return r.Body == nil || r.Body == http.NoBody
	}
	return false
}

// read reads the answer's head. What comes ahead of it is passed on.
func (c *call) read(w http.ResponseWriter, early int) error {
	res, err := http.ReadResponse(c.link.r, c.request)
	if err != nil {
		return fmt.Errorf("cannot read the answer: %w", err)
	}
	if res.StatusCode >= 200 || res.StatusCode == http.StatusSwitchingProtocols && isWebsocket(c.request) {
		c.link.left = -1
		c.response = res
		return nil
	}
	if early >= maxEarly || res.StatusCode < 100 || res.StatusCode == http.StatusSwitchingProtocols {
		return fmt.Errorf("the answer has status %d", res.StatusCode)
	}
	if res.StatusCode == http.StatusEarlyHints && c.request.ProtoAtLeast(1, 1) {
		h := w.Header()
		h["Link"] = res.Header["Link"]
		w.WriteHeader(http.StatusEarlyHints)
		delete(h, "Link")
	}
	return c.read(w, early+1)
}

// end keeps the connection for the next call where it can be, else closes it. It returns why the body of the request could
// not be read, if so.
func (c *call) end() error {
	var sent error
	if c.body != nil {
		sent = c.endBody()
	}
	if !c.stop() || c.broken || c.response == nil || c.response.Close || c.link.r.Buffered() > 0 {
		c.link.Close()
	} else {
		c.pool.put(c.link)
	}
	var slow *slowBody
	if errors.As(sent, &slow) {
		return sent
	}
	return nil
}

// lateBody is how much longer than its answer a request may take to be sent.
const lateBody = 100 * time.Millisecond

// endBody waits until the request's body is sent, and returns why it was not. Where the answer has come ahead of the end of the
// request, or not at all, it is cut off: the client's connection then ends, too.
func (c *call) endBody() error {
	patience := lateBody
	if c.response == nil || c.broken {
		patience = 0
	}
	sent, err := c.body.wait(patience)
	if !sent {
		c.link.Close()
		c.body.quit()
		err = <-c.body.done
	}
	c.broken = c.broken || !sent || err != nil
	return err
}

// smallBody is what a body is read and sent in one piece up to, without a goroutine.
const smallBody = 16 << 10

// write sends the request. A body that is not small goes on being sent meanwhile.
func (c *call) write(w http.ResponseWriter, d dest) error {
	r, out := c.request, c.link.w
	length := r.ContentLength
	if r.Body == nil || r.Body == http.NoBody {
		length = 0
	}
	writeHead(out, r, d)
	switch {
	case length > 0:
		out.WriteString("Content-Length: ")
		out.WriteString(strconv.FormatInt(length, 10))
		out.WriteString("\r\n")
	case length < 0:
		out.WriteString("Transfer-Encoding: chunked\r\n")
	case r.Method != http.MethodGet && r.Method != http.MethodHead && r.Method != http.MethodOptions && r.Method != http.MethodDelete:
		out.WriteString("Content-Length: 0\r\n")
	}
	out.WriteString("\r\n") // errors of all these stay with out, and are told by Flush
	if length == 0 {
		return out.Flush()
	}
	s := &sending{buffers: &c.pool.buffers, control: http.NewResponseController(w), done: make(chan error, 1)}
	c.body = s
	if length > 0 && length <= smallBody {
		n, err := s.copy(r.Body, out, func() error { return nil })
		if err == nil && n != length {
			err = &slowBody{errCut}
		}
		if err == nil {
			err = out.Flush()
		}
		s.finish(err)
		return err
	}
	if err := out.Flush(); err != nil {
		s.finish(err)
		return err
	}
	go func() {
		err := c.stream(s, length)
		var slow *slowBody
		if errors.As(err, &slow) {
			c.link.Close() // who waits for the answer waits in vain
		}
		s.finish(err)
	}()
	return nil
}

// stream sends a body as it comes. A negative length: nobody knows how long it is.
func (c *call) stream(s *sending, length int64) error {
	r, out := c.request, c.link.w
	if length > 0 {
		n, err := s.copy(r.Body, out, out.Flush)
		if err == nil && n != length {
			err = &slowBody{errCut}
		}
		return err
	}
	if _, err := s.copy(r.Body, chunks{out}, out.Flush); err != nil {
		return err
	}
	out.WriteString("0\r\n")
	for name, values := range r.Trailer {
		if hops[name] || forgeable[name] {
			continue
		}
		for _, v := range values {
			writeHeader(out, name, v)
		}
	}
	out.WriteString("\r\n")
	return out.Flush()
}

// chunks writes each piece as a chunk.
type chunks struct{ to io.Writer }

func (c chunks) Write(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil // it would end the body
	}
	if _, err := fmt.Fprintf(c.to, "%x\r\n", len(b)); err != nil {
		return 0, err
	}
	n, err := c.to.Write(b)
	if err == nil {
		_, err = io.WriteString(c.to, "\r\n")
	}
	return n, err
}

// slowBody is why the body of a request could not be read.
type slowBody struct{ err error }

func (s *slowBody) Error() string { return "the request's body does not come: " + s.err.Error() }
func (s *slowBody) Unwrap() error { return s.err }

var errCut = errors.New("it is shorter than it says")

// sending is a body of a request under way.
type sending struct {
	buffers *buffers
	control *http.ResponseController
	done    chan error // one value, at the end

	mu    sync.Mutex
	given bool // nobody waits for it any more
}

func (s *sending) finish(err error) { s.done <- err }

// quit lets a read that waits for the client return.
func (s *sending) quit() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.given = true
	_ = s.control.SetReadDeadline(time.Now().Add(-time.Second))
}

// wait waits for the end.
func (s *sending) wait(patience time.Duration) (sent bool, err error) {
	select {
	case err = <-s.done:
		return true, err
	default:
	}
	if patience == 0 {
		return false, nil
	}
	late := time.NewTimer(patience)
	defer late.Stop()
	select {
	case err = <-s.done:
		return true, err
	case <-late.C:
		return false, nil
	}
}

// allow sets until when the next read may wait.
func (s *sending) allow(until time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.given {
		_ = s.control.SetReadDeadline(until)
	}
}

// copy reads a body into out, calling flush after each piece, and returns how many bytes there were.
func (s *sending) copy(body io.Reader, out io.Writer, flush func() error) (int64, error) {
	buf := s.buffers.get()
	defer s.buffers.put(buf)
	var total int64
	for {
		s.allow(time.Now().Add(bodyTime))
		n, err := body.Read(*buf)
		if n > 0 {
			total += int64(n)
			if _, err := out.Write((*buf)[:n]); err != nil {
				return total, err
			}
			if err := flush(); err != nil {
				return total, err
			}
		}
		if errors.Is(err, io.EOF) {
			s.allow(time.Time{})
			return total, nil
		}
		if err != nil {
			return total, &slowBody{err}
		}
	}
}

// limitBody bounds how long a body is waited for that nobody reads: the server reads what is left of it before it goes on.
func limitBody(w http.ResponseWriter, r *http.Request) {
	if r.Body != nil && r.Body != http.NoBody {
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTime))
	}
}

// patient is the request with a body that is waited for bodyTime each time that more of it is asked for.
func patient(w http.ResponseWriter, r *http.Request) *http.Request {
	if r.Body != nil && r.Body != http.NoBody {
		r.Body = &patientBody{r.Body, http.NewResponseController(w)}
	}
	return r
}

type patientBody struct {
	io.ReadCloser
	control *http.ResponseController
}

func (b *patientBody) Read(p []byte) (int, error) {
	_ = b.control.SetReadDeadline(time.Now().Add(bodyTime))
	n, err := b.ReadCloser.Read(p)
	if errors.Is(err, io.EOF) {
		_ = b.control.SetReadDeadline(time.Time{}) // an answer may take longer
	}
	return n, err
}
