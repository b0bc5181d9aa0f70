package proxy

import (
	"bufio"
	"context"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// What RoundTrips sends: one frame of a short text (RFC 6455, 5.2), four bytes of mask in it.
const (
	textLength = 64
	headLength = 2
	maskLength = 4
)

// RoundTrips sends messages of 64 bytes over n websockets to a Fast backend, each as soon as the former has come back,
// and returns how many came back in a second. Both ends do no more than read and write: what is measured is between.
func RoundTrips(ctx context.Context, addr, path string, n int, length time.Duration) (float64, error) {
	return during(ctx, n, length, func(context.Context) (func() error, func(), error) {
		s, err := shake(addr, path)
		if err != nil {
			return nil, nil, err
		}
		return s.trip, func() { _ = s.c.Close() }, nil
	})
}

// Visits opens websockets, n at a time, sends a message of 64 bytes there and back over each, and closes it; it returns how
// many were done in a second.
func Visits(ctx context.Context, addr, path string, n int, length time.Duration) (float64, error) {
	return during(ctx, n, length, func(context.Context) (func() error, func(), error) {
		return func() error {
			s, err := shake(addr, path)
			if err != nil {
				return err
			}
			return errors.Join(s.trip(), s.c.Close())
		}, func() {}, nil
	})
}

// socket is a websocket to a Fast backend.
type socket struct {
	c           net.Conn
	in          *bufio.Reader
	frame, back []byte
}

// trip sends a message there and back.
func (s *socket) trip() error {
	if _, err := s.c.Write(s.frame); err != nil {
		return err
	}
	if _, err := io.ReadFull(s.in, s.back); err != nil {
		return err
	}
	if s.back[0] != 0x81 || s.back[1] != textLength || s.back[9] != s.frame[headLength+maskLength+7]^s.frame[headLength+3] {
		return fmt.Errorf("% x came back", s.back[:10])
	}
	return nil
}

// shake makes a websocket of a new connection.
func shake(addr, path string) (*socket, error) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	s := &socket{c: c, in: bufio.NewReader(c), frame: make([]byte, headLength+maskLength+textLength), back: make([]byte, headLength+textLength)}
	s.frame[0], s.frame[1] = 0x81, 0x80|textLength
	for i := range s.frame[headLength:] {
		s.frame[headLength+i] = byte(i)
	}
	_, err = fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", path, addr)
	if err == nil {
		var r *http.Response
		if r, err = http.ReadResponse(s.in, nil); err == nil && r.StatusCode != http.StatusSwitchingProtocols {
			err = errors.New("no websocket: " + r.Status)
		}
	}
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return s, nil
}

// echoFrames agrees to a websocket and sends back what RoundTrips sends.
func echoFrames(c net.Conn, in *bufio.Reader, key string) {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	if _, err := fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: %s\r\n\r\n", base64.StdEncoding.EncodeToString(sum[:])); err != nil {
		return
	}
	frame := make([]byte, headLength+maskLength+textLength)
	for {
		if _, err := io.ReadFull(in, frame); err != nil || frame[1] != 0x80|textLength {
			return
		}
		mask := frame[headLength : headLength+maskLength]
		back := frame[maskLength:]
		for i := range textLength {
			back[headLength+i] ^= mask[i%maskLength]
		}
		back[0], back[1] = 0x81, textLength // where the mask was
		if _, err := c.Write(back); err != nil {
			return
		}
	}
}
