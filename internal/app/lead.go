package app

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/providers/local"
	"github.com/shoal-pool/shoal/internal/providers/program"
	"github.com/shoal-pool/shoal/internal/store"
	"github.com/shoal-pool/shoal/internal/store/file"
	"github.com/shoal-pool/shoal/internal/store/postgres"
	"github.com/shoal-pool/shoal/provider"
)

// openStore opens the store. With a database that other servers use too it waits until none of them leads.
func (a *App) openStore(ctx context.Context) (*store.DB, error) {
	if a.opts.Database == "" {
		db, err := file.Open(ctx, a.opts.path("shoal.db"))
		if err == nil {
			a.onClose(func(context.Context) error { return db.Close() })
		}
		return db, err
	}
	db, err := postgres.Open(ctx, a.opts.Database, postgres.Options{Standby: func() {
		a.log.Info("another server leads; this one stands by until it may take over", "data", a.opts.Data)
	}})
	if err != nil {
		return nil, err
	}
	context.AfterFunc(ctx, db.GiveUp)
	a.onClose(func(context.Context) error { return db.Close() }) // the last that is done: another server begins then
	return db, a.alone()
}

// alone makes this server the only one on its data directory. One that led before and is still there has
// lost the right to do anything, and holds ports, and the network of local machines. It is asked to end; one that is frozen, or does not
// let go in time, is ended.
func (a *App) alone() error {
	f, err := os.OpenFile(a.opts.path("serve.lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	asked := false
	for begun := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil || !errors.Is(err, syscall.EWOULDBLOCK) || time.Since(begun) > 10*time.Second {
			break
		}
		holder, _ := os.ReadFile(f.Name()) // written by who holds the lock, just after taking it
		pid, err := strconv.Atoi(strings.TrimSpace(string(holder)))
		switch {
		case err != nil || pid < 2 || !holds(pid, f):
		case frozen(pid) || time.Since(begun) > yield:
			a.log.Warn("ending the server that led before", "pid", pid)
			_ = syscall.Kill(pid, syscall.SIGKILL)
		case !asked:
			asked = true
			_ = syscall.Kill(pid, syscall.SIGTERM)
		}
	}
	if err == nil {
		err = f.Truncate(0)
	}
	if err == nil {
		_, err = fmt.Fprintln(f, os.Getpid())
	}
	if err != nil {
		return errors.Join(shoal.Errorf(shoal.KindConflict, "cannot use %s: another server holds %s: %w", a.opts.Data, f.Name(), err), f.Close())
	}
	a.onClose(func(context.Context) error { return f.Close() })
	return nil
}

// yield is how long a server that led before may take to put away what it has.
const yield = 3 * time.Second

// holds reports whether a process has a file open. Who took a lock writes his number a moment later, and the one that was there may be anybody's by now.
func holds(pid int, f *os.File) bool {
	mine, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
	if err != nil {
		return false
	}
	open, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid)) // the pattern is well formed
	return slices.ContainsFunc(open, func(link string) bool {
		its, err := os.Readlink(link) // unlike a look at the file itself it never waits
		return err == nil && its == mine
	})
}

// frozen reports whether a process is stopped by a signal.
func frozen(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, state, _ := strings.Cut(string(stat), ") ") // after the name, which may hold anything but this
	return err == nil && strings.HasPrefix(state, "T")
}

// sameKeys refuses to use a database with other keys than those of the servers before: users' and machines' keys and secrets
// would be good for nothing. Who puts other keys beside a file knows what she does.
func (a *App) sameKeys(ctx context.Context) error {
	const setting = "keys"
	sum := sha256.New()
	for _, key := range [][]byte{a.keys.gatewayHost.PublicKey().Marshal(), a.keys.userCA.PublicKey().Marshal(), a.keys.hostCA.PublicKey().Marshal(),
		a.keys.agents, []byte(a.keys.secrets)} {
		part := sha256.Sum256(key)
		sum.Write(part[:])
	}
	mine := hex.EncodeToString(sum.Sum(nil))
	return a.store.Update(ctx, func(tx *store.Tx) error {
		known, err := tx.Setting(setting)
		if err != nil || known == mine {
			return err
		}
		if known != "" && a.store.Epoch() != 0 {
			return shoal.Errorf(shoal.KindConflict, "cannot serve: the keys in %s are not those that the database was used with", a.opts.path("keys")).
				WithHint("copy the directories keys and tls of the server that used it before")
		}
		return tx.SetSetting(setting, mine)
	})
}

// lead returns once another server leads.
func (a *App) lead(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-a.store.Lost():
		return shoal.Errorf(shoal.KindConflict, "another server has taken over").
			WithHint("start this one again: it will stand by; a service manager does that by itself")
	}
}

// beat is how often agents hear of this server, where another may take over.
func (a *App) beat() time.Duration {
	if a.store.Epoch() == 0 {
		return 0
	}
	return 2 * time.Second
}

// ledAgents has agents know who leads: they refuse whoever led before, and tell him so. Those on other hosts have no answer from a server that
// may have been replaced without knowing: they look for another, and let no task run on at its word. Those on this host stay,
// for whoever leads from here in its place ends this process first.
func (a *App) ledAgents(h http.Handler) http.Handler {
	if a.store.Epoch() == 0 {
		return h
	}
	return ledBy(a.store.Epoch(), a.store.Leads, h)
}

func ledBy(epoch int64, leads func() error, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(api.LeadHeader, strconv.FormatInt(epoch, 10))
		var why error
		if known, err := strconv.ParseInt(r.Header.Get(api.LeadHeader), 10, 64); err == nil && known > epoch {
			why = errors.New("another server leads")
		} else if r.TLS != nil {
			why = leads()
		}
		switch {
		case why != nil:
			w.Header().Set("Connection", "close") // the next may be one to another server
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(http.StatusServiceUnavailable)
			_ = json.NewEncoder(w).Encode(api.Problem{Type: "about:blank", Title: "Service Unavailable", Status: http.StatusServiceUnavailable,
				Kind: shoal.KindUnavailable, Detail: why.Error()})
		case r.TLS != nil:
			h.ServeHTTP(ledWriter{w, leads}, r)
		default:
			h.ServeHTTP(w, r)
		}
	})
}

// ledWriter gives no answer, and ends one that goes on, such as a stream with its beats, once another server may lead.
type ledWriter struct {
	http.ResponseWriter
	leads func() error
}

// Write is of http.ResponseWriter.
func (w ledWriter) Write(b []byte) (int, error) {
	if err := w.leads(); err != nil {
		return 0, err
	}
	return w.ResponseWriter.Write(b)
}

// Unwrap lets an http.ResponseController through.
func (w ledWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// led has providers do nothing when another server may lead. What they see they may tell at any time.
func (a *App) led(all map[string]provider.Provider) map[string]provider.Provider {
	if a.store.Epoch() == 0 {
		return all
	}
	led := map[string]provider.Provider{}
	for name, p := range all {
		e := effects{p, a.store.Leads}
		switch p := p.(type) {
		case *local.Provider:
			led[name] = ledLocal{localProvider{p}, e}
		case *program.Provider:
			led[name] = ledProgram{programProvider{p}, e}
		default:
			led[name] = ledOther{otherProvider{p}, e}
		}
	}
	return led
}

// A provider with its own methods, but those of effects in place of what changes something.
type (
	localProvider   struct{ *local.Provider }
	programProvider struct{ *program.Provider }
	otherProvider   struct{ provider.Provider }
	ledLocal        struct {
		localProvider
		effects
	}
	ledProgram struct {
		programProvider
		effects
	}
	ledOther struct {
		otherProvider
		effects
	}
)

// effects are the methods of a provider that change something.
type effects struct {
	of    provider.Provider
	leads func() error
}

// Create is of provider.Provider, as those that follow.
func (e effects) Create(ctx context.Context, spec provider.MachineSpec) error {
	if err := e.leads(); err != nil {
		return err
	}
	return e.of.Create(ctx, spec)
}

// Start starts a machine.
func (e effects) Start(ctx context.Context, spec provider.MachineSpec) error {
	if err := e.leads(); err != nil {
		return err
	}
	return e.of.Start(ctx, spec)
}

// Stop stops a machine.
func (e effects) Stop(ctx context.Context, id shoal.MachineID) error {
	if err := e.leads(); err != nil {
		return err
	}
	return e.of.Stop(ctx, id)
}

// Delete removes a machine.
func (e effects) Delete(ctx context.Context, id shoal.MachineID) error {
	if err := e.leads(); err != nil {
		return err
	}
	return e.of.Delete(ctx, id)
}
