package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"time"

	"github.com/shoal-pool/shoal"
)

// Events yields the stored events since a time (zero: all that are left), oldest first, and with
// follow those that come, also over restarts of the server, until ctx ends or the loop is left.
// An error ends it; the end of ctx is one of kind cancelled.
func (c *Client) Events(ctx context.Context, since time.Time, follow bool) iter.Seq2[shoal.Event, error] {
	return func(yield func(shoal.Event, error) bool) {
		p := c.patient(c.patience)
		last := ""
		for {
			over, err := c.events(ctx, since, follow, &last, func(e shoal.Event) bool {
				p.reset()
				return yield(e, nil)
			})
			if over {
				return
			}
			if !p.again(ctx, err) {
				yield(shoal.Event{}, err)
				return
			}
		}
	}
}

// events reads one connection's worth of events; last is the identifier of the latest. over: there
// is nothing more to be had, or nobody who wants it.
func (c *Client) events(ctx context.Context, since time.Time, follow bool, last *string, yield func(shoal.Event) bool) (over bool, err error) {
	k := call{method: http.MethodGet, path: "/events", query: query("since", instant(since)), header: http.Header{"Accept": {"text/event-stream"}}}
	if !follow {
		k.query.Set("follow", "false")
	}
	if *last != "" {
		k.header.Set("Last-Event-ID", *last)
	}
	resp, err := c.send(ctx, k)
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	r := bufio.NewReader(resp.Body)
	for {
		m, err := readMessage(r)
		switch {
		case err == io.EOF && !follow:
			return true, nil
		case errors.Is(err, errLong):
			return false, shoal.Errorf(shoal.KindInternal, "cannot read the server's events: %w", err)
		case err != nil:
			return false, c.broken(ctx, err)
		}
		var e shoal.Event
		if err := json.Unmarshal(m.data, &e); err != nil {
			return false, shoal.Errorf(shoal.KindInternal, "cannot read an event of the server: %w", err)
		}
		if !yield(e) {
			return true, nil
		}
		if m.id != "" {
			*last = m.id
		}
	}
}

// message is one message of a text/event-stream.
type message struct {
	id   string
	data []byte
}

// maxMessage bounds a message.
const maxMessage = 1 << 20

var errLong = fmt.Errorf("a message is longer than %d bytes", maxMessage)

// readMessage reads the next message with data (WHATWG HTML, 9.2.6); comments and other fields are
// passed over. io.EOF only between messages.
func readMessage(r *bufio.Reader) (message, error) {
	var m message
	begun := false
	for {
		line, err := readLine(r)
		if err != nil {
			if err == io.EOF && (begun || len(line) > 0) {
				err = io.ErrUnexpectedEOF
			}
			return message{}, err
		}
		if len(line) == 0 {
			if m.data != nil {
				return m, nil
			}
			begun = false
			continue
		}
		begun = true
		field, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimPrefix(value, []byte(" "))
		switch string(field) {
		case "id":
			m.id = string(value)
		case "data":
			if m.data != nil {
				m.data = append(m.data, '\n')
			}
			m.data = append(m.data, value...)
			if m.data == nil {
				m.data = []byte{}
			}
			if len(m.data) > maxMessage {
				return message{}, errLong
			}
		}
	}
}

// readLine reads a line without its end. Lines end in \n or \r\n; the server writes no bare \r.
func readLine(r *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		line = append(line, part...)
		if len(line) > maxMessage {
			return nil, errLong
		}
		if err == bufio.ErrBufferFull {
			continue
		}
		if err != nil {
			return line, err
		}
		return bytes.TrimSuffix(line[:len(line)-1], []byte("\r")), nil
	}
}
