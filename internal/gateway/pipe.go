package gateway

import (
	"errors"
	"io"
	"net"
	"syscall"
	"time"
)

// Keepalive finds out connections whose other end has gone without a word, within about a minute and a half.
func Keepalive(c net.Conn) {
	if t, ok := c.(*net.TCPConn); ok {
		_ = t.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: 45 * time.Second, Interval: 15 * time.Second, Count: 3})
	}
}

// Pipe copies bytes both ways until both sides have said all, or one fails, and closes both. From is what the client
// says, which may begin with what was read before. A side that has said all is passed on as such: the other may go on
// speaking, for as long as linger; 0: for ever.
func Pipe(client net.Conn, from io.Reader, machine net.Conn, linger time.Duration) {
	defer client.Close()
	defer machine.Close()
	said := make(chan bool, 2) // whether the other side may go on
	half := func(to net.Conn, from io.Reader) {
		_, err := io.Copy(to, from)
		said <- err == nil && closeWrite(to)
	}
	go half(machine, from)
	go half(client, machine)
	if goOn := <-said; goOn {
		var late <-chan time.Time
		if linger > 0 {
			t := time.NewTimer(linger)
			defer t.Stop()
			late = t.C
		}
		select {
		case <-said:
			return
		case <-late:
		}
	}
	client.Close()
	machine.Close()
	<-said
}

// closeWrite says to a side that nothing more comes. It is false where that cannot be said by itself.
func closeWrite(c net.Conn) bool {
	w, ok := c.(interface{ CloseWrite() error })
	if !ok {
		return false
	}
	err := w.CloseWrite()
	return err == nil || errors.Is(err, net.ErrClosed)
}

// Refused reports whether nobody listens where a connection was tried: the machine is there, and answers so.
func Refused(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }
