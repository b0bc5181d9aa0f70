package agent

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
)

const (
	// mostStreams is how many streams the agent carries at once.
	mostStreams = 4096
	sshPort     = 22
	// portTime bounds a connection within the machine, and bringTime that to the server.
	portTime  = 5 * time.Second
	bringTime = 15 * time.Second
	// silentAfter is when a server that takes nothing is given up. The kernel's own patience is a quarter of an hour.
	silentAfter = 45 * time.Second
)

// streams are those that the agent carries between the gateway and ports of the machine.
type streams struct {
	life   context.Context // of the agent
	places chan struct{}
}

// comeFor connects a port of the machine to the server, which has asked for it. It does not wait.
func (a *Agent) comeFor(o api.ReachOrder) {
	select {
	case a.streams.places <- struct{}{}:
	default:
		a.working.Go(func() { a.unreached(o, fmt.Errorf("it carries %d streams already", mostStreams)) })
		return
	}
	a.working.Go(func() {
		defer func() { <-a.streams.places }()
		ctx, cancel := context.WithCancel(a.streams.life)
		defer cancel()
		if o.Bare && o.Port == 0 && a.cfg.LetIn != nil {
			a.letIn(ctx, o)
			return
		}
		host, port := "127.0.0.1", cmp.Or(o.Port, a.cfg.SSHPort, sshPort)
		if o.Port != 0 && a.cfg.Address != nil {
			host = a.cfg.Address()
		}
		d := net.Dialer{Timeout: portTime, KeepAlive: -1}
		inside, err := d.DialContext(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(port)))
		if err != nil {
			a.unreached(o, err)
			return
		}
		defer inside.Close()
		outside, _, err := a.control.bring(ctx, o.Stream, api.ReachProtocol)
		if err != nil {
			a.cfg.Log.Info("a stream is not taken", "port", port, "error", err)
			return
		}
		defer outside.Close()
		defer context.AfterFunc(ctx, func() { inside.Close(); outside.Close() })()
		carry(inside, outside)
	})
}

// letIn has sshd serve a connection to the server, without TLS. The agent has no more to do with it then.
func (a *Agent) letIn(ctx context.Context, o api.ReachOrder) {
	both, conn, err := a.control.bring(ctx, o.Stream, api.BareProtocol)
	if err != nil {
		a.cfg.Log.Info("a stream is not taken", "error", err)
		return
	}
	defer both.Close()
	bare := below(conn)
	defer bare.Close() // ahead of TLS, which would say something at its end
	f, err := fileOf(bare)
	if err == nil {
		defer f.Close()
		_, err = bare.Write([]byte(api.BareMark))
	}
	if err == nil {
		err = a.cfg.LetIn(f)
	}
	if err != nil {
		a.cfg.Log.Warn("nobody can come in by ssh", "error", err)
	}
}

// below is the connection below TLS.
func below(c net.Conn) net.Conn {
	if t, ok := c.(*tls.Conn); ok {
		return t.NetConn()
	}
	return c
}

// fileOf is a connection as a file, for another process.
func fileOf(c net.Conn) (*os.File, error) {
	f, ok := c.(interface{ File() (*os.File, error) })
	if !ok {
		return nil, fmt.Errorf("the connection to the server is no socket: %T", c)
	}
	return f.File()
}

// unreached tells the server that there is no connection for a stream.
func (a *Agent) unreached(o api.ReachOrder, why error) {
	err := a.control.post(a.streams.life, "/agent/v1/reach", api.Unreached{Stream: o.Stream, Refused: errors.Is(why, syscall.ECONNREFUSED), Error: why.Error()}, &struct{}{})
	if err != nil {
		a.cfg.Log.Info("a stream that cannot be had is waited for by nobody", "error", err)
	}
}

// bring opens a connection to the server for a stream. What is said on it goes by both; conn is what carries that.
func (c *control) bring(ctx context.Context, stream, protocol string) (both io.ReadWriteCloser, conn net.Conn, err error) {
	ctx, cancel := context.WithCancel(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { conn = i.Conn }}))
	late := time.AfterFunc(bringTime, cancel)
	resp, err := c.send(ctx, http.MethodGet, "/agent/v1/reach", nil, http.Header{
		"Connection": {"Upgrade"}, "Upgrade": {protocol}, api.StreamHeader: {stream}})
	if err == nil && !late.Stop() {
		err = errors.Join(ctx.Err(), resp.Body.Close())
	}
	if err != nil {
		cancel()
		return nil, nil, err
	}
	both, ok := resp.Body.(io.ReadWriteCloser)
	if !ok || resp.StatusCode != http.StatusSwitchingProtocols {
		cancel()
		return nil, nil, errors.Join(shoal.Errorf(shoal.KindInternal, "the control plane answers %s, and does not switch protocols", resp.Status), resp.Body.Close())
	}
	return &brought{both, cancel}, conn, nil
}

// brought is a connection to the server for one stream.
type brought struct {
	io.ReadWriteCloser
	cancel context.CancelFunc
}

// Close ends it.
func (b *brought) Close() error {
	b.cancel()
	return b.ReadWriteCloser.Close()
}

// CloseWrite says that nothing more comes.
func (b *brought) CloseWrite() error {
	if w, ok := b.ReadWriteCloser.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return errors.ErrUnsupported
}

// carry hands bytes on both ways, until both sides have said all or one breaks.
func carry(inside, outside io.ReadWriteCloser) {
	var way sync.WaitGroup
	way.Go(func() { pump(inside, outside) })
	pump(outside, inside)
	way.Wait()
}

// pump hands bytes on one way. Their end is handed on; an error ends both ways.
func pump(to, from io.ReadWriteCloser) {
	_, err := io.Copy(to, from)
	if err == nil {
		if w, ok := to.(interface{ CloseWrite() error }); ok && w.CloseWrite() == nil {
			return
		}
	}
	_ = to.Close()
	_ = from.Close()
}

// soonSilent has the kernel give up a server that takes nothing.
func soonSilent(network, _ string, raw syscall.RawConn) error {
	if network == "unix" {
		return nil
	}
	var failed error
	err := raw.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(silentAfter.Milliseconds()))
	})
	return errors.Join(err, failed)
}
