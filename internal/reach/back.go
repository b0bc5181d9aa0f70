package reach

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
)

const (
	// backTime bounds the wait for an agent, which may be about to connect to this server again.
	backTime = 10 * time.Second
	// askAgain is after how long an agent is asked once more: the stream by which it was asked may have broken.
	askAgain = 3 * time.Second
	retry    = 50 * time.Millisecond
	// bareTime bounds the wait for the first bytes without TLS. What lets nothing but TLS through may swallow them.
	bareTime = 3 * time.Second
	// Bounds on streams: those of one machine, those of all together, and those that are waited for.
	mostOfOne   = 4096
	mostOfAll   = 32768
	mostWaiting = 1024
)

// stream is one that an agent was asked for.
type stream struct {
	machine shoal.MachineID
	bare    bool         // it may come without TLS around it
	came    chan arrival // capacity 1
	over    bool         // nobody waits for it any more; guarded by Reach.mu
}

// arrival is what came of a stream.
type arrival struct {
	conn net.Conn
	err  error
}

func (a arrival) close() {
	if a.conn != nil {
		a.conn.Close()
	}
}

// refused reports whether nobody listens at a port of a machine that is there.
func refused(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }

// errNotBare says that what lies between has not let through a connection without TLS.
var errNotBare = errors.New("it does not come through without TLS")

// back has a machine's agent connect a port of its machine to here. What it says by ssh comes without TLS, unless that has failed lately.
func (r *Reach) back(ctx context.Context, id shoal.MachineID, port int) (net.Conn, error) {
	if !r.open.Enter(id) {
		its, all := r.open.Taken(id)
		return nil, shoal.Errorf(shoal.KindExhausted, "machine %s has %d connections through its agent, all machines together %d", id, its, all)
	}
	ctx, cancel := context.WithTimeout(ctx, backTime)
	defer cancel()
	c, err := r.fetch(ctx, id, port, port == 0 && r.mayBeBare(id))
	if errors.Is(err, errNotBare) {
		r.cfg.Log.Info("what lies between lets nothing but TLS through, or broke", "machine", id, "error", err)
		r.seal(id)
		c, err = r.fetch(ctx, id, port, false)
	}
	if err != nil {
		r.open.Leave(id)
		return nil, fmt.Errorf("cannot reach machine %s through its agent: %w", id, err)
	}
	return &conn{Conn: c, left: sync.OnceFunc(func() { r.open.Leave(id) })}, nil
}

// fetch asks until a connection comes. An agent that was asked twice comes for nothing the second time.
func (r *Reach) fetch(ctx context.Context, id shoal.MachineID, port int, bare bool) (net.Conn, error) {
	secret, s, err := r.expect(id, bare)
	if err != nil {
		return nil, err
	}
	defer r.forget(secret, s)
	for asked := false; ; {
		pause := retry
		if r.cfg.Send(id, api.Record{Reach: &api.ReachOrder{Stream: secret, Port: port, Bare: bare}}) {
			asked, pause = true, askAgain
		}
		again := time.NewTimer(pause)
		select {
		case a := <-s.came:
			again.Stop()
			return a.conn, a.err
		case <-again.C:
		case <-ctx.Done():
			again.Stop()
			if asked {
				return nil, errors.New("no connection came from it")
			}
			return nil, errors.New("its agent is not connected")
		}
	}
}

// expect makes the secret of a stream that is waited for.
func (r *Reach) expect(id shoal.MachineID, bare bool) (string, *stream, error) {
	secret, s := rand.Text()+rand.Text(), &stream{machine: id, bare: bare, came: make(chan arrival, 1)}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.waiting) >= mostWaiting {
		return "", nil, shoal.Errorf(shoal.KindExhausted, "%d connections of agents are waited for", mostWaiting)
	}
	r.waiting[secret] = s
	return secret, s, nil
}

// forget waits for a stream no more. What was claimed and is not taken yet is closed when it comes.
func (r *Reach) forget(secret string, s *stream) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.waiting, secret)
	s.over = true
	select {
	case a := <-s.came:
		a.close()
	default:
	}
}

// deliver hands over what came of a stream.
func (r *Reach) deliver(s *stream, a arrival) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s.over {
		a.close()
		return
	}
	s.came <- a // it has room: whoever delivers has claimed it
}

// Claim takes the stream of a secret that a machine shows, which nobody can do again. Whoever has claimed it must deliver a
// connection, or why there is none. With bare the agent goes on without TLS, on the connection below the delivered one; deliver waits
// for it to begin.
func (r *Reach) Claim(machine shoal.MachineID, secret string, bare bool) (deliver func(net.Conn, error), err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.waiting[secret]
	if s == nil || s.machine != machine { // another's stays good for who it is for
		return nil, shoal.Errorf(shoal.KindNotFound, "nobody waits for this stream of machine %s", machine)
	}
	if bare && !s.bare {
		return nil, shoal.Errorf(shoal.KindDenied, "this stream of machine %s must stay within TLS", machine)
	}
	delete(r.waiting, secret)
	return func(c net.Conn, err error) {
		if bare && err == nil {
			c, err = strip(c)
		}
		r.deliver(s, arrival{c, err})
	}, nil
}

// Failed takes an agent's word that there is no connection for a stream.
func (r *Reach) Failed(machine shoal.MachineID, f api.Unreached) error {
	deliver, err := r.Claim(machine, f.Stream, false)
	if err != nil {
		return err
	}
	why := fmt.Errorf("it says: %.200s", f.Error)
	if f.Refused {
		why = fmt.Errorf("nobody listens there: %w", syscall.ECONNREFUSED)
	}
	deliver(nil, why)
	return nil
}

// strip takes TLS off a connection whose agent goes on without it.
func strip(c net.Conn) (net.Conn, error) {
	if t, ok := c.(interface{ NetConn() net.Conn }); ok {
		c = t.NetConn()
	}
	mark := make([]byte, len(api.BareMark))
	err := c.SetReadDeadline(time.Now().Add(bareTime))
	if err == nil {
		_, err = io.ReadFull(c, mark)
	}
	if err == nil && string(mark) != api.BareMark {
		err = fmt.Errorf("it begins with %q", mark)
	}
	if err == nil {
		err = c.SetReadDeadline(time.Time{})
	}
	if err != nil {
		c.Close()
		return nil, fmt.Errorf("%w: %w", errNotBare, err)
	}
	return c, nil
}

// mayBeBare reports whether ssh may come from a machine without TLS around it.
func (r *Reach) mayBeBare(id shoal.MachineID) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.paths[id]
	return p == nil || p.sealed.IsZero() || time.Since(p.sealed) > stale
}

// seal keeps what comes from a machine in TLS for a while.
func (r *Reach) seal(id shoal.MachineID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p := r.paths[id]; p != nil {
		p.sealed = time.Now()
	}
}

// conn is a connection that came from an agent.
type conn struct {
	net.Conn
	left func()
}

// Close ends it.
func (c *conn) Close() error {
	c.left()
	return c.Conn.Close()
}

// CloseWrite says that nothing more comes.
func (c *conn) CloseWrite() error {
	if w, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return errors.ErrUnsupported
}

// NetConn is the connection below TLS.
func (c *conn) NetConn() net.Conn {
	if t, ok := c.Conn.(interface{ NetConn() net.Conn }); ok {
		return t.NetConn()
	}
	return c.Conn
}
