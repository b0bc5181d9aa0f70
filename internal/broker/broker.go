package broker

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/retry"
	"github.com/shoal-pool/shoal/internal/route"
	"github.com/shoal-pool/shoal/internal/store"
)

// AccountsWaiter knows what agents have done: AccountsReady returns once the agent of a machine
// has put the accounts of a revision or a later one into effect, or when ctx ends.
type AccountsWaiter interface {
	AccountsReady(ctx context.Context, machine shoal.MachineID, rev shoal.Rev) error
}

// Config is what a Broker needs.
type Config struct {
	Store    *store.DB
	Accounts AccountsWaiter
	Wake     func() // wakes the engine: there is new demand; may be nil
	// Suspect is told of a machine that does not answer front ends, and until when its seats are not to be counted on; may be nil.
	Suspect func(shoal.MachineID, time.Time)
	// Send tells a machine's agent; false: it will not be told. Nil: none is.
	Send func(shoal.MachineID, api.Record) bool
	// Keep returns once what is on record fits the clock, which may have been set; without that nothing is ended. May be nil.
	Keep func(context.Context) error
	Log  *slog.Logger
}

// Broker keeps the sessions. Its methods may be called from any goroutine; Login, Closed and
// End need a running Run.
type Broker struct {
	cfg  Config
	seed uint64
	poke chan struct{} // wakes Run

	// Of Run alone:
	tries *retry.Tries

	// Of the goroutine that tends what nobody uses alone:
	told   map[shoal.SessionID]told
	marked bool // perhaps a session is marked as one of which something ends

	mu       sync.Mutex // guards what follows; never held while waiting or in the store
	line     []*waiter  // in order of arrival
	closing  []part     // parts that are gone, not yet recorded
	suspects map[shoal.MachineID]time.Time
	seen     map[shoal.MachineID]sighting
	used     map[shoal.SessionID]time.Time     // when something went through its connections
	empty    map[shoal.SessionID]time.Time     // when sessions where nothing lives may end
	done     map[shoal.SessionID]chan struct{} // closed when the session ends
	carried  map[place]bool                    // whose connections through a former server may go on
}

// place is where one session can be.
type place struct {
	machine shoal.MachineID
	user    shoal.UserName
}

// sighting is the latest Activity of a machine.
type sighting struct {
	at    time.Time
	users map[shoal.UserName]api.UserActivity
}

// part names one part of a session.
type part struct {
	session   shoal.SessionID
	id        string
	withdrawn bool // it never carried anything: the session it began ends with it
}

// The patience of the broker.
const (
	accountSlow    = 5 * time.Second  // then the user is told that the machine does not answer
	accountSilent  = 30 * time.Second // then she is placed elsewhere
	accountKnown   = 2 * time.Second  // for a session that was there before: its account exists
	suspectFor     = time.Minute
	emptyFor       = 10 * time.Second // nothing lived there for so long
	emptyConfirmed = 2 * time.Second  // or two reports so far apart say so
	touchEvery     = time.Minute      // how often news of no weight are stored
	tick           = time.Second      // while somebody waits
)

// New makes a Broker. Run makes it work.
func New(cfg Config) *Broker {
	if cfg.Wake == nil {
		cfg.Wake = func() {}
	}
	if cfg.Suspect == nil {
		cfg.Suspect = func(shoal.MachineID, time.Time) {}
	}
	if cfg.Send == nil {
		cfg.Send = func(shoal.MachineID, api.Record) bool { return false }
	}
	if cfg.Keep == nil {
		cfg.Keep = func(context.Context) error { return nil }
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Broker{
		cfg:      cfg,
		seed:     rand.Uint64(),
		poke:     make(chan struct{}, 1),
		tries:    retry.New(cfg.Log, "broker"),
		suspects: map[shoal.MachineID]time.Time{},
		seen:     map[shoal.MachineID]sighting{},
		used:     map[shoal.SessionID]time.Time{},
		empty:    map[shoal.SessionID]time.Time{},
		done:     map[shoal.SessionID]chan struct{}{},
		carried:  map[place]bool{},
		told:     map[shoal.SessionID]told{},
		marked:   true,
	}
}

func (b *Broker) wake() {
	select {
	case b.poke <- struct{}{}:
	default:
	}
}

// waiter is one login in the line.
type waiter struct {
	req     route.Request
	partID  string
	session shoal.SessionID // the row it has or will have
	news    chan string     // the newest sentence about the wait; capacity 1
	result  chan outcome    // capacity 1

	// Of Run alone:
	recorded bool // the row exists
	told     string

	gone bool // guarded by Broker.mu: the client went away
}

// outcome ends a wait.
type outcome struct {
	seat seat
	err  error
}

// seat is a place taken for a login.
type seat struct {
	target  route.Target
	rev     shoal.Rev // accounts must be as new as this
	resumed bool      // the session was there before
}

// Login finds a place for a user who has been authenticated, and returns once she can be connected
// there: a seat is taken, the part recorded under partID, and her account is in effect. While that
// takes, progress is told in sentences, on the caller's goroutine; it may be nil. The front end
// calls Closed when the part is gone.
//
// The end of ctx withdraws the login. A login that cannot be served is a *route.Refusal.
func (b *Broker) Login(ctx context.Context, req route.Request, partID string, progress func(string)) (route.Target, error) {
	if req.Arrived.IsZero() {
		req.Arrived = time.Now()
	}
	if req.Kind == "" {
		req.Kind = "ssh"
	}
	if progress == nil {
		progress = func(string) {}
	}
	for {
		s, err := b.wait(ctx, req, partID, progress)
		if err != nil {
			return route.Target{}, err
		}
		err = b.account(ctx, s, progress)
		if err == nil {
			return s.target, nil
		}
		b.leave(part{s.target.Session, partID, true})
		if ctx.Err() != nil {
			return route.Target{}, withdrawn(ctx)
		}
		b.Suspect(s.target.Machine)
		req.Avoid = s.target.Machine
		if req.Machine == req.Avoid {
			return route.Target{}, &route.Refusal{Reason: shoal.Reason{Code: "silent", Sentence: "machine " + string(req.Machine) + " does not answer"}}
		}
		progress("machine " + string(req.Avoid) + " does not answer; looking for another")
		if !errors.Is(err, errSilent) { // it failed at once: do not turn in circles
			b.cfg.Log.Warn("broker: no account for a login", "user", req.User, "machine", s.target.Machine, "err", err)
			if retry.Sleep(ctx, tick) != nil {
				return route.Target{}, withdrawn(ctx)
			}
		}
	}
}

var errSilent = errors.New("the machine does not answer")

func withdrawn(ctx context.Context) error {
	return shoal.Errorf(shoal.KindCancelled, "cannot log in: the client went away: %w", context.Cause(ctx))
}

// wait puts a login into the line and waits for its seat.
func (b *Broker) wait(ctx context.Context, req route.Request, partID string, progress func(string)) (seat, error) {
	w := &waiter{req: req, partID: partID, session: shoal.NewSessionID(), news: make(chan string, 1), result: make(chan outcome, 1)}
	b.mu.Lock()
	at := len(b.line)
	for at > 0 && b.line[at-1].req.Arrived.After(req.Arrived) {
		at--
	}
	b.line = append(b.line, nil)
	copy(b.line[at+1:], b.line[at:])
	b.line[at] = w
	b.mu.Unlock()
	b.wake()
	waited := false
	for {
		select {
		case sentence := <-w.news:
			waited = true
			progress(sentence)
		case o := <-w.result:
			if waited && o.err == nil {
				progress("machine " + string(o.seat.target.Machine) + " is ready")
			}
			return o.seat, o.err
		case <-ctx.Done():
			b.mu.Lock()
			w.gone = true
			b.mu.Unlock()
			b.wake()
			select {
			case o := <-w.result: // it was given a seat before that was known
				if o.err == nil {
					b.leave(part{o.seat.target.Session, partID, true})
				}
			default:
			}
			return seat{}, withdrawn(ctx)
		}
	}
}

// account waits until the machine has the user's account as it should be.
func (b *Broker) account(ctx context.Context, s seat, progress func(string)) error {
	limit := accountSilent
	if s.resumed {
		limit = accountKnown
	}
	short, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	ready := make(chan error, 1)
	go func() { ready <- b.cfg.Accounts.AccountsReady(short, s.target.Machine, s.rev) }()
	soon := time.NewTimer(700 * time.Millisecond)
	slow := time.NewTimer(accountSlow)
	defer soon.Stop()
	defer slow.Stop()
	for {
		select {
		case <-soon.C:
			if !s.resumed {
				progress("preparing your account on machine " + string(s.target.Machine))
			}
		case <-slow.C:
			progress("machine " + string(s.target.Machine) + " does not answer yet; " +
				string(s.target.User) + "+" + string(s.target.Pool) + "/new asks for another")
		case err := <-ready:
			if err == nil || ctx.Err() != nil || short.Err() == nil {
				return err
			}
			if s.resumed { // the machine may be cut off from here and still serve who has an account
				return nil
			}
			return errSilent
		}
	}
}

// Closed tells that a part of a session is gone. It returns at once; Run records it, and tries
// again while the store cannot be written to.
func (b *Broker) Closed(session shoal.SessionID, partID string) {
	b.leave(part{session, partID, false})
}

func (b *Broker) leave(p part) {
	b.mu.Lock()
	b.closing = append(b.closing, p)
	b.mu.Unlock()
	b.wake()
}

// Suspect tells that a front end cannot reach a machine. For a minute it is chosen for new sessions only where no other
// machine can come.
func (b *Broker) Suspect(machine shoal.MachineID) {
	until := time.Now().Add(suspectFor)
	b.mu.Lock()
	b.suspects[machine] = until
	b.mu.Unlock()
	b.cfg.Suspect(machine, until)
}

// suspected returns the machines under suspicion now.
func (b *Broker) suspected() map[shoal.MachineID]bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := map[shoal.MachineID]bool{}
	for id, until := range b.suspects {
		if time.Now().Before(until) {
			all[id] = true
		} else {
			delete(b.suspects, id)
		}
	}
	return all
}

// released drops what is remembered of ended sessions and tells their front ends.
func (b *Broker) released(sessions []shoal.SessionID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, id := range sessions {
		delete(b.empty, id)
		delete(b.used, id)
		if ch := b.done[id]; ch != nil {
			close(ch)
			delete(b.done, id)
		}
	}
}

// doneOf returns the channel that is closed when a session ends.
func (b *Broker) doneOf(id shoal.SessionID) <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	ch := b.done[id]
	if ch == nil {
		ch = make(chan struct{})
		b.done[id] = ch
	}
	return ch
}
