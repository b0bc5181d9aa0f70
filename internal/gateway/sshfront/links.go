package sshfront

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/route"
	"github.com/shoal-pool/shoal/internal/sshwire"
)

var (
	// errSilent: the machine does not answer.
	errSilent = errors.New("does not answer")
	// errVanished: the machine exists no more.
	errVanished = errors.New("is gone")
	// errLost: the connection to the machine has broken, or is not needed any more.
	errLost = errors.New("has ended the connection")
)

const (
	certLife  = 5 * time.Minute // long enough to log in, short enough to be of no use to a thief
	minPause  = 50 * time.Millisecond
	maxPause  = time.Second
	maxDenied = 5 // how often a machine may refuse us before it is taken at its word
)

// links are all connections to machines.
type links struct {
	cfg      Config
	identity *sshwire.Identity

	mu     sync.Mutex
	shared map[share]*link
	all    map[*link]struct{}
}

// stamp says by what sshd's view of a user is bound to the moment she logs in.
func stamp(u shoal.User) string {
	groups := make([]string, len(u.Groups))
	for i, g := range u.Groups {
		groups[i] = string(g)
	}
	slices.Sort(groups)
	keys := slices.Clone(u.Keys)
	slices.Sort(keys)
	return fmt.Sprintf("%d %s %s\n%s", u.UID, u.Shell, strings.Join(groups, ","), strings.Join(keys, "\n"))
}

// join gives a visit a link to its target, one that stands if it may use it. It blocks
// until the link can be used and reports to progress when that takes long.
func (s *links) join(ctx context.Context, v *visit, t route.Target, progress func(string)) (*link, error) {
	key := share{v.name.User, v.credential, t.Pool, t.Machine, t.Address, v.stamp}
	s.mu.Lock()
	l := s.shared[key]
	switch {
	case v.environ.Ready(): // the machine makes it so when a link begins, and undoes it when that ends
		l = s.begin(key, t)
		l.owner = v
	case l == nil || s.crowded(l):
		l = s.begin(key, t)
		s.shared[key] = l
	}
	s.enter(l, v)
	s.mu.Unlock()
	return s.await(ctx, l, v, progress)
}

// crowded reports whether a link carries so much that it should not get more; s.mu is held.
func (s *links) crowded(l *link) bool {
	n := 0
	for v := range l.visits {
		n += v.channels()
	}
	return n >= maxOnLink
}

// own gives a visit a link that nobody else uses: its own, if nobody does, or a new one.
func (s *links) own(ctx context.Context, v *visit, l *link, t route.Target) (*link, error) {
	s.mu.Lock()
	if len(l.visits) == 1 && !l.hasEnded() {
		if s.shared[l.share] == l {
			delete(s.shared, l.share)
		}
		l.owner = v
		s.mu.Unlock()
		return l, nil
	}
	fresh := s.begin(l.share, t)
	fresh.owner = v
	s.enter(fresh, v)
	s.mu.Unlock()
	return s.await(ctx, fresh, v, func(string) {})
}

// enter adds a visit to a link; s.mu is held.
func (s *links) enter(l *link, v *visit) {
	l.visits[v] = struct{}{}
	if l.idle != nil {
		l.idle.Stop()
		l.idle = nil
	}
}

// leave takes a visit from a link. The last one closes it, or leaves it for the next.
func (s *links) leave(l *link, v *visit) {
	s.mu.Lock()
	delete(l.visits, v)
	last := len(l.visits) == 0
	keep := last && s.shared[l.share] == l && !l.hasEnded() && l.established()
	if keep {
		l.idle = time.AfterFunc(idleTime, func() { s.expire(l) })
	}
	s.mu.Unlock()
	if last && !keep {
		l.end(errLost, "")
	}
}

// established reports whether the attempt to connect succeeded.
func (l *link) established() bool {
	select {
	case <-l.ready:
		return l.err == nil
	default:
		return false
	}
}

func (s *links) expire(l *link) {
	s.mu.Lock()
	unused := len(l.visits) == 0
	if unused && s.shared[l.share] == l {
		delete(s.shared, l.share)
	}
	s.mu.Unlock()
	if unused {
		l.end(errLost, "")
	}
}

// await waits for a link to be made, and for a machine that has stalled to answer.
func (s *links) await(ctx context.Context, l *link, v *visit, progress func(string)) (*link, error) {
	slow := time.NewTimer(sshwire.StallAfter)
	defer slow.Stop()
	look := time.NewTicker(250 * time.Millisecond)
	defer look.Stop()
	made := l.ready
	for {
		select {
		case <-made:
			made = nil
			if l.err != nil {
				s.leave(l, v)
				return nil, l.err
			}
			if !l.pulse.Stalled() && !l.hasEnded() {
				return l, nil
			}
			v.warn(l, progress)
		case <-l.gone:
			s.leave(l, v)
			return nil, l.reason()
		case <-look.C:
			if made == nil && !l.pulse.Stalled() {
				return l, nil
			}
		case <-slow.C:
			v.warn(l, progress)
		case <-ctx.Done():
			s.leave(l, v)
			return nil, ctx.Err()
		}
	}
}

func (v *visit) warn(l *link, progress func(string)) {
	fresh := v.name
	fresh.Pool = l.pool
	progress(fmt.Sprintf("machine %s does not answer; log in as %s for another one, or wait", l.machine, fresh.Fresh()))
}

// begin starts to make a link; s.mu is held.
func (s *links) begin(key share, t route.Target) *link {
	ctx, cancel := context.WithCancelCause(context.Background())
	limit := time.AfterFunc(sshwire.DeadAfter, func() { cancel(errSilent) })
	l := &link{
		share: key, set: s, cancel: cancel,
		ready: make(chan struct{}), gone: make(chan struct{}), visits: map[*visit]struct{}{},
	}
	s.all[l] = struct{}{}
	go func() {
		defer limit.Stop()
		l.err = s.connect(ctx, l, t)
		close(l.ready)
		if l.err != nil {
			l.end(errLost, "")
		}
	}()
	return l
}

// connect tries until the machine lets us in, ctx ends, or it is clear that it will not.
func (s *links) connect(ctx context.Context, l *link, t route.Target) error {
	pause := minPause
	for denied := 0; ; {
		err := s.try(ctx, l, t)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if _, host := errors.AsType[*sshwire.HostError](err); host || strings.Contains(err.Error(), "unable to authenticate") {
			if denied++; denied >= maxDenied {
				return shoal.Errorf(shoal.KindInternal, "machine %s and the gateway do not trust each other: %w", l.machine, err).
					WithHint("ask an operator to drain it; log in as %s+%s/new for another one", l.user, l.pool)
			}
		}
		select {
		case <-time.After(pause):
			pause = min(2*pause, maxPause)
		case <-ctx.Done():
		}
	}
}

func (s *links) try(ctx context.Context, l *link, t route.Target) error {
	signer, err := s.identity.Signer(t.Principal, fmt.Sprintf("shoal %s session %s", t.Principal, t.Session), certLife)
	if err != nil {
		return err
	}
	raw, err := s.cfg.Dial(ctx, t.Machine, t.Address)
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { raw.Close() })()
	wire := sshwire.NewConn(raw, nil)
	conn, channels, requests, err := ssh.NewClientConn(wire, t.Address, &ssh.ClientConfig{
		Config:            ssh.Config{Ciphers: ciphers(), KeyExchanges: exchanges()},
		User:              string(t.User),
		Auth:              []ssh.AuthMethod{ssh.PublicKeys(signer)},
		HostKeyCallback:   sshwire.KnownHost(s.cfg.HostCA, string(t.Machine)),
		HostKeyAlgorithms: sshwire.HostAlgorithms(),
		ClientVersion:     sshwire.Version,
	})
	if err != nil {
		return err
	}
	if sshwire.Packed(conn) {
		wire.Pack()
	}
	go l.run(channels, requests)
	return l.adopt(conn, wire)
}

// ciphers puts the fastest first. The others are for machines whose sshd is set up otherwise.
func ciphers() []string {
	all := ssh.SupportedAlgorithms().Ciphers
	first := []string{ssh.CipherAES128GCM, ssh.CipherAES256GCM}
	return append(first, slices.DeleteFunc(all, func(c string) bool { return slices.Contains(first, c) })...)
}

// exchanges puts the cheapest first: the way to a machine is short and its host key certified.
func exchanges() []string {
	all := ssh.SupportedAlgorithms().KeyExchanges
	first := []string{ssh.KeyExchangeCurve25519}
	return append(first, slices.DeleteFunc(all, func(k string) bool { return slices.Contains(first, k) })...)
}

// ownerOf returns the visit that may be reached from the machine through a link.
func (s *links) ownerOf(l *link) *visit {
	s.mu.Lock()
	defer s.mu.Unlock()
	return l.owner
}

func (s *links) visitsOf(l *link) []*visit {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]*visit, 0, len(l.visits))
	for v := range l.visits {
		list = append(list, v)
	}
	return list
}

// drop forgets a link that ends, and returns the visits that used it.
func (s *links) drop(l *link) []*visit {
	s.mu.Lock()
	if s.shared[l.share] == l {
		delete(s.shared, l.share)
	}
	delete(s.all, l)
	if l.idle != nil {
		l.idle.Stop()
	}
	s.mu.Unlock()
	return s.visitsOf(l)
}

// retire keeps links of a user from being joined.
func (s *links) retire(user shoal.UserName) {
	s.mu.Lock()
	var unused []*link
	for key, l := range s.shared {
		if key.user != user {
			continue
		}
		delete(s.shared, key)
		if len(l.visits) == 0 {
			unused = append(unused, l)
		}
	}
	s.mu.Unlock()
	for _, l := range unused {
		l.end(errLost, "")
	}
}

// gone ends the links to a machine.
func (s *links) gone(id shoal.MachineID) {
	for _, l := range s.list() {
		if l.machine == id {
			l.end(errVanished, fmt.Sprintf("shoal: machine %s is gone; connect again to be placed on another one", id))
		}
	}
}

func (s *links) closeAll() {
	for _, l := range s.list() {
		l.end(errLost, "")
	}
}

func (s *links) list() []*link {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]*link, 0, len(s.all))
	for l := range s.all {
		list = append(list, l)
	}
	return list
}
