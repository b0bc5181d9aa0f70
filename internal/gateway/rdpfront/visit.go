package rdpfront

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/gateway"
	"github.com/shoal-pool/shoal/internal/gateway/rdpfront/desk"
	"github.com/shoal-pool/shoal/internal/route"
)

const (
	// packetTime is how long a client may take for its first packet, which it sends at once.
	packetTime = 10 * time.Second
	dialTime   = 10 * time.Second
	// linger is how long one side may go on speaking after the other has said all: RDP has no use for it.
	linger = 10 * time.Second
	// maxLost is how many machines are tried that do not answer.
	maxLost = 2
)

// visit is one client's connection.
type visit struct {
	front    *Front
	conn     net.Conn
	source   string
	pool     shoal.PoolName
	endpoint shoal.Endpoint
	part     string

	guest  *gateway.Guest
	in     *bufio.Reader
	active atomic.Int64 // when the client said something last, Unix nanoseconds
	target route.Target // with a session: it has a part of it
	seated bool
}

// errGone is that the client went away.
var errGone = errors.New("the client went away")

func (v *visit) serve(ctx context.Context, cancel context.CancelFunc) {
	f := v.front
	v.guest = f.door.Enter(ctx, gateway.Source(v.conn.RemoteAddr()), cancel)
	if v.guest == nil {
		f.door.TurnAway(ctx)
		return
	}
	defer v.guest.Leave()
	if !f.all.Enter("") {
		return
	}
	defer f.all.Leave("")
	_ = v.conn.SetDeadline(time.Now().Add(packetTime))
	q, err := readRequest(v.conn)
	if err != nil {
		if ctx.Err() == nil && !errors.Is(err, io.EOF) {
			f.log.refused(err.Error(), "source", v.source, "pool", v.pool)
		}
		return
	}
	_ = v.conn.SetDeadline(time.Time{})
	if err := v.lead(ctx, q); err != nil && ctx.Err() == nil && !errors.Is(err, errGone) {
		if f.log.refused(err.Error(), "source", v.source, "pool", v.pool, "name", q.name) && q.name != "" {
			f.cfg.Desk.Refused(ctx, shoal.UserName(q.name), v.pool, v.source, err.Error())
		}
		v.refuse(ctx, q)
	}
}

// refuse answers in the protocol's own words, and takes its time.
func (v *visit) refuse(ctx context.Context, q request) {
	if q.offers {
		_ = v.conn.SetWriteDeadline(time.Now().Add(packetTime))
		if _, err := v.conn.Write(refusal()); err == nil {
			if w, ok := v.conn.(interface{ CloseWrite() error }); ok {
				_ = w.CloseWrite()
			}
		}
	}
	v.front.door.TurnAway(ctx)
}

// lead brings the connection to a machine and pipes it. The error is why it was refused.
func (v *visit) lead(ctx context.Context, q request) error {
	f := v.front
	name := q.name
	if v.endpoint.Affinity == shoal.AffinitySource {
		name = ""
	}
	l, err := f.cfg.Desk.Lead(ctx, v.pool, name, v.source)
	if err != nil {
		return err
	}
	// A stranger who says her name must not take her places.
	whose := string(l.User)
	if !l.Known {
		whose += " by " + gateway.Source(v.conn.RemoteAddr())
	}
	if !f.users.Enter(whose) {
		return fmt.Errorf("there are too many connections to desktops of user %s", whose)
	}
	defer f.users.Leave(whose)
	v.in = bufio.NewReaderSize(v.conn, 4<<10)
	back, err := v.reach(ctx, l)
	defer func() {
		if v.seated { // now, or once the password was shown
			f.cfg.Router.Closed(v.target.Session, v.part)
		}
	}()
	if err != nil {
		return err
	}
	defer back.Close()
	if _, err := back.Write(q.raw); err != nil {
		return fmt.Errorf("machine %s does not take the connection: %w", v.target.Machine, err)
	}
	v.pipe(ctx, l.User, back)
	return nil
}

// reach finds the machine and connects to it, holding the client meanwhile.
func (v *visit) reach(ctx context.Context, l desk.Lead) (back net.Conn, err error) {
	holding, cancel := context.WithTimeout(ctx, v.front.cfg.Limits.Hold)
	defer cancel()
	stop := v.watch(cancel)
	defer func() {
		if stop() {
			return
		}
		if back != nil {
			back.Close()
		}
		back, err = nil, errors.Join(errGone, err)
	}()
	if !l.Known {
		v.target = route.Target{User: l.User, Pool: v.pool, Machine: l.Machine, Address: l.Address}
		return v.dial(holding)
	}
	v.guest.Leave() // whoever comes from there has shown before who she is
	req := route.Request{User: l.User, Pool: v.pool, Kind: shoal.ProtocolRDP, Source: v.source, Arrived: time.Now()}
	doing := ""
	for lost := 0; ; lost++ {
		target, err := v.front.cfg.Router.Login(holding, req, v.part, func(sentence string) { doing = sentence })
		if err != nil {
			if holding.Err() != nil && ctx.Err() == nil {
				return nil, fmt.Errorf("user %s was held for %s, longer than clients wait: %s", l.User, v.front.cfg.Limits.Hold, doing)
			}
			return nil, err
		}
		v.target, v.seated = target, true
		back, err := v.dial(holding)
		if err == nil || holding.Err() != nil || lost >= maxLost || errors.Is(err, errNoDesktop) {
			return back, err
		}
		v.front.cfg.Router.Closed(target.Session, v.part)
		v.front.cfg.Router.Suspect(target.Machine)
		v.seated, req.Avoid = false, target.Machine
	}
}

// errNoDesktop: the machine is there, and xrdp is not.
var errNoDesktop = errors.New("gives no desktops")

func (v *visit) dial(ctx context.Context) (net.Conn, error) {
	address, err := portOf(v.target.Address, v.endpoint.Port)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	if prove := v.front.cfg.Prove; prove != nil {
		c, err := v.connect(ctx, address)
		if err != nil {
			return nil, err
		}
		err = prove(ctx, c, v.pool)
		c.Close()
		if err != nil {
			return nil, fmt.Errorf("machine %s %w: %w", v.target.Machine, errNoDesktop, err)
		}
	}
	return v.connect(ctx, address)
}

func (v *visit) connect(ctx context.Context, address string) (net.Conn, error) {
	back, err := v.front.cfg.Dial(ctx, v.target.Machine, address)
	if gateway.Refused(err) {
		return nil, fmt.Errorf("machine %s %w: it was made before the pool had the endpoint, or xrdp does not run there", v.target.Machine, errNoDesktop)
	}
	if err != nil {
		return nil, fmt.Errorf("machine %s does not answer: %w", v.target.Machine, err)
	}
	gateway.Keepalive(back)
	return back, nil
}

// watch calls gone when the client goes away while it is held. It says nothing before it is answered. Stop ends that,
// and reports whether the client is still there.
func (v *visit) watch(gone func()) (stop func() bool) {
	there := make(chan bool, 1)
	var stopped atomic.Bool
	go func() {
		_, err := v.in.Peek(1)
		ok := err == nil || stopped.Load()
		there <- ok
		if !ok {
			gone()
		}
	}()
	return func() bool {
		stopped.Store(true)
		_ = v.conn.SetReadDeadline(time.Unix(1, 0))
		ok := <-there
		_ = v.conn.SetReadDeadline(time.Time{})
		return ok
	}
}

// pipe moves bytes until either side ends, the session does, or the user takes too long to show her password.
func (v *visit) pipe(ctx context.Context, user shoal.UserName, back net.Conn) {
	f := v.front
	v.active.Store(time.Now().UnixNano())
	proved, leave := f.cfg.Desk.Attend(&desk.Visit{User: user, Pool: v.pool, Machine: v.target.Machine, Source: v.source,
		Active: func() time.Time { return time.Unix(0, v.active.Load()) }, Wrong: v.guest.Guess})
	defer leave()
	ctx, cancel := context.WithCancel(ctx)
	over := make(chan struct{})
	go func() {
		defer close(over)
		defer cancel() // whoever waits for a place still is gone
		gateway.Pipe(v.conn, &watched{v.in, &v.active}, back, linger)
	}()
	defer func() {
		v.conn.Close()
		back.Close()
		<-over
	}()
	late := time.NewTimer(f.cfg.Limits.Login)
	defer late.Stop()
	select {
	case <-over:
		return
	case <-ctx.Done():
		return
	case <-v.target.Done:
		return
	case <-late.C:
		f.log.refused(fmt.Sprintf("user %s did not show her password within %s", user, f.cfg.Limits.Login), "source", v.source, "pool", v.pool, "machine", v.target.Machine)
		return
	case <-proved:
	}
	v.guest.Leave()
	if !v.seated {
		req := route.Request{User: user, Pool: v.pool, Machine: v.target.Machine, Kind: shoal.ProtocolRDP, Source: v.source, Arrived: time.Now()}
		target, err := f.cfg.Router.Login(ctx, req, v.part, nil)
		if err != nil {
			f.log.refused(err.Error(), "source", v.source, "pool", v.pool, "machine", v.target.Machine)
			return
		}
		v.target, v.seated = target, true
	}
	f.cfg.Log.Debug("a desktop was opened", "user", user, "machine", v.target.Machine, "session", v.target.Session, "source", v.source)
	select {
	case <-over:
	case <-ctx.Done():
	case <-v.target.Done:
	}
}

// watched notes when the client speaks.
type watched struct {
	*bufio.Reader
	active *atomic.Int64
}

// WriteTo is what io.Copy uses.
func (w *watched) WriteTo(to io.Writer) (n int64, err error) {
	buf := make([]byte, 16<<10)
	for {
		read, err := w.Reader.Read(buf)
		if read > 0 {
			w.active.Store(time.Now().UnixNano())
			wrote, err := to.Write(buf[:read])
			n += int64(wrote)
			if err != nil {
				return n, err
			}
		}
		if errors.Is(err, io.EOF) {
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
}
