package mounts

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/spec/shares"
	"github.com/shoal-pool/shoal/provider"
)

// Run looks after the mounts until ctx ends, and returns when it has stopped.
func (s *Set) Run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.kick:
		case <-timer.C:
		}
		timer.Reset(s.round(ctx))
	}
}

// Kick lets Run look at once.
func (s *Set) Kick() {
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

// Renew mounts anew, beside the old mounts, whatever uses a secret that was changed at a time.
func (s *Set) Renew(secret string, at time.Time) {
	s.mu.Lock()
	for _, u := range s.units {
		if c := u.share.Credentials; c != nil && c.Secret == secret && u.rec.Gen > 0 && u.rec.Read.Before(at) {
			u.renew, u.next = true, time.Time{}
		}
	}
	s.mu.Unlock()
	s.Kick()
}

// soon is when a mount that failed for the first time is looked at again, before anything is concluded.
const soon = 2 * time.Second

// round looks at all that is in use and gives machines what they should have. It returns when to do so again.
func (s *Set) round(ctx context.Context) time.Duration {
	machines := s.cfg.Machines()
	var all []*unit
	homes := map[*unit]provider.HomeMount{}
	for _, m := range machines {
		for _, b := range m.Mounts {
			all = append(all, s.known(b.Share, "", 0, 0)...)
		}
		for _, h := range m.Homes {
			for _, u := range s.known(h.Share, h.Sub, h.UID, h.GID) {
				all = append(all, u)
				homes[u] = h
			}
		}
	}
	var wg sync.WaitGroup
	slots := make(chan struct{}, 8)
	seen := map[*unit]bool{}
	for _, u := range all {
		if seen[u] {
			continue
		}
		seen[u] = true
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			if h, ok := homes[u]; ok && s.unmounted(u) {
				if _, err := s.reachHome(ctx, h); err != nil && ctx.Err() == nil {
					s.putOff(u)
					s.ill(u, err)
				}
				return
			}
			s.check(ctx, u)
		})
	}
	wg.Wait()
	host := hostTable()
	for _, m := range s.cfg.Machines() { // as they are now
		if err := s.supply(ctx, m, host); err != nil && ctx.Err() == nil {
			s.cfg.Log.Warn("a machine's mounts cannot be renewed", "machine", m.ID, "error", err)
		}
	}
	s.forget(machines)
	wait := s.cfg.Interval
	s.mu.Lock()
	defer s.mu.Unlock()
	for u := range seen {
		if u.failures > 0 {
			wait = min(wait, soon)
		}
	}
	return wait
}

// unmounted reports whether a unit was never mounted.
func (s *Set) unmounted(u *unit) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return u.rec.Gen == 0 && !time.Now().Before(u.next)
}

func (s *Set) known(share shoal.Share, sub string, uid, gid int) []*unit {
	u, err := s.unit(share, sub, uid, gid)
	if err != nil {
		return nil // said when the machine was made
	}
	return []*unit{u}
}

// forget drops what is remembered of machines that are not there.
func (s *Set) forget(machines []Machine) {
	s.mu.Lock()
	defer s.mu.Unlock()
	gone := func(p spot) bool {
		return !slices.ContainsFunc(machines, func(m Machine) bool { return m.ID == p.machine && m.PID == p.pid })
	}
	maps.DeleteFunc(s.has, func(p spot, _ int) bool { return gone(p) })
	maps.DeleteFunc(s.given, func(p spot, _ given) bool { return gone(p) })
}

// check looks at one unit and mends what it can.
func (s *Set) check(ctx context.Context, u *unit) {
	if !u.busy.TryLock() {
		return // somebody is at it
	}
	defer u.busy.Unlock()
	var err error
	if u.src.Kind == shares.Directory {
		err = s.isDirectory(ctx, u.share, u.src.Path)
	} else {
		_, err = s.look(ctx, u)
	}
	if ctx.Err() != nil {
		return
	}
	s.mu.Lock()
	renew, due := u.renew, !time.Now().Before(u.next)
	s.mu.Unlock()
	if err == nil {
		s.well(u)
		if renew && due {
			s.renewed(ctx, u)
		}
		return
	}
	if u.src.Kind == shares.Directory {
		s.ill(u, err)
		return
	}
	if due {
		if _, mendErr := s.mountAnew(ctx, u); mendErr == nil {
			s.well(u)
			return
		} else if ctx.Err() != nil {
			return
		} else if shoal.KindOf(mendErr) == shoal.KindUnavailable {
			err = mendErr
		}
		s.putOff(u)
	}
	s.ill(u, err)
}

// renewed mounts a unit anew whose secret was changed. If the new one is refused, the old mount stays.
func (s *Set) renewed(ctx context.Context, u *unit) {
	_, err := s.mountAnew(ctx, u)
	if err == nil || ctx.Err() != nil {
		return
	}
	s.cfg.Log.Warn("a share's new secret does not mount it; the old mount stays", "share", u.share.Name, "error", err)
	s.putOff(u)
}

// lastWait is how long a mount that fails is left alone at most.
const lastWait = time.Minute

// putOff puts off the next try to mount after one that failed. Looking alone puts nothing off.
func (s *Set) putOff(u *unit) {
	s.mu.Lock()
	defer s.mu.Unlock()
	u.wait = min(max(2*u.wait, time.Second), lastWait)
	u.next = time.Now().Add(u.wait)
}

// ill records that a unit does not answer. What is heard once may be chance: it becomes trouble when it is heard again.
func (s *Set) ill(u *unit, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	u.failures++
	if u.failures == 1 {
		u.since = time.Now()
		return
	}
	text := err.Error()
	if !strings.HasPrefix(text, "cannot reach share ") {
		text = fmt.Sprintf("cannot reach share %s (%s): %s", u.share.Name, u.share.Source, text)
	}
	if h := shoal.HintOf(err); h != "" {
		text += ": " + h
	}
	if u.trouble == "" {
		s.cfg.Log.Warn("a share is in trouble", "share", u.share.Name, "error", text)
	}
	if u.trouble != text {
		u.trouble = text
		s.cfg.Changed()
	}
}

// well records that a unit answers.
func (s *Set) well(u *unit) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if u.trouble != "" {
		s.cfg.Log.Info("a share answers again", "share", u.share.Name, "after", shoal.Duration(time.Since(u.since).Round(time.Second)))
		u.trouble = ""
		s.cfg.Changed()
	}
	u.failures = 0
	if !u.renew {
		u.wait, u.next = 0, time.Time{}
	}
}

// Trouble is what is wrong with the shares of a machine, in a sentence; empty: nothing. It waits for nobody.
func (s *Set) Trouble(mounts []provider.Mount, homes []provider.HomeMount) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range mounts {
		if u := s.units[Key(m.Share)]; u != nil && u.trouble != "" {
			return u.trouble
		}
	}
	for _, h := range homes {
		if u := s.units[key(h.Share, h.Sub, h.UID, h.GID)]; u != nil && u.trouble != "" {
			return u.trouble
		}
	}
	return ""
}

// want is a place of a machine with what it should show.
type want struct {
	tree
	unit *unit
	gen  int
	dev  string
}

// given is what a machine was found to have.
type given struct {
	wants []want
	at    time.Time
}

// givenFor is for how many rounds a machine is believed to have what it was given: nobody in it can unmount anything,
// and to read the tables of many machines is most of what they cost while they are idle.
const givenFor = 20

// hostTable reads the host's table when it is first asked for: it is long where there are many machines.
func hostTable() func() (map[string]mounted, error) {
	return sync.OnceValues(func() (map[string]mounted, error) { return mountTable(0) })
}

// supply gives a machine the newest generations of its mounts.
func (s *Set) supply(ctx context.Context, m Machine, host func() (map[string]mounted, error)) error {
	if m.PID <= 0 || len(m.Mounts)+len(m.Homes) == 0 {
		return nil
	}
	s.giving.Lock()
	defer s.giving.Unlock()
	wants, err := s.wants(m, host)
	if err != nil {
		return err
	}
	in := spot{machine: m.ID, pid: m.PID}
	s.mu.Lock()
	last := s.given[in]
	s.mu.Unlock()
	if slices.Equal(last.wants, wants) && time.Since(last.at) < givenFor*s.cfg.Interval {
		return nil
	}
	if err := s.give(ctx, m, wants); err != nil {
		return err
	}
	s.mu.Lock()
	s.given[in] = given{wants, time.Now()}
	s.mu.Unlock()
	return nil
}

// give looks at what a machine has and adds what it lacks. s.giving is held.
func (s *Set) give(ctx context.Context, m Machine, wants []want) error {
	table, err := mountTable(m.PID)
	if err != nil {
		return nil //nolint:nilerr // the machine has just ended
	}
	var errs []error
	for i := 0; i < len(wants); i++ {
		w := wants[i]
		if s.isCurrent(m, w, table) {
			continue
		}
		// Whatever lies below goes with it.
		trees := []tree{w.tree}
		below := []want{w}
		for _, o := range wants {
			if strings.HasPrefix(o.At, w.At+"/") {
				trees, below = append(trees, o.tree), append(below, o)
			}
		}
		stage := filepath.Join(s.cfg.Run, "stage")
		if err := os.MkdirAll(stage, 0o700); err != nil {
			return err
		}
		if err := s.child(ctx, task{Do: "attach", PID: m.PID, Path: w.At, Trees: trees, Stage: stage}); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", w.At, err))
			continue
		}
		s.mu.Lock()
		for _, o := range below {
			s.has[spot{m.ID, m.PID, o.At}] = o.gen
		}
		s.mu.Unlock()
		s.cfg.Log.Info("a machine got a mount anew", "machine", m.ID, "at", w.At, "generation", w.gen)
		if table, err = mountTable(m.PID); err != nil {
			return nil //nolint:nilerr // as above
		}
	}
	return errors.Join(errs...)
}

// isCurrent reports whether a machine has what it should at a place.
func (s *Set) isCurrent(m Machine, w want, table map[string]mounted) bool {
	have, ok := table[w.At]
	if w.unit == nil { // a mask or a directory of the host
		return ok
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p := spot{m.ID, m.PID, w.At}
	if gen, known := s.has[p]; known {
		return ok && gen == w.gen
	}
	if ok && have.dev == w.dev {
		s.has[p] = w.gen
		return true
	}
	return false
}

// wants lists what a machine should have, what lies above first. What is not mounted now is left as it is in the machine.
func (s *Set) wants(m Machine, host func() (map[string]mounted, error)) ([]want, error) {
	var all []want
	var failed error
	add := func(share shoal.Share, sub string, uid, gid int, at string, readOnly bool) {
		for _, u := range s.known(share, sub, uid, gid) {
			if u.src.Kind == shares.Directory {
				all = append(all, want{tree: tree{u.src.Path, at, readOnly}})
				continue
			}
			s.mu.Lock()
			gen := u.rec.Gen
			s.mu.Unlock()
			table, err := host()
			failed = cmp.Or(failed, err)
			if on, ok := table[s.dir(u, gen)]; ok && gen > 0 {
				all = append(all, want{tree{s.dir(u, gen), at, readOnly}, u, gen, on.dev})
			}
		}
	}
	for _, b := range m.Mounts {
		add(b.Share, "", 0, 0, path.Clean(b.Path), b.ReadOnly)
	}
	for _, h := range m.Homes {
		cover, err := mask(m.Mask, h)
		if err != nil {
			return nil, err
		}
		if !slices.ContainsFunc(all, func(w want) bool { return w.At == cover.To }) {
			all = append(all, want{tree: tree{cover.From, cover.To, true}})
		}
		add(h.Share, h.Sub, h.UID, h.GID, path.Clean(h.Path), h.ReadOnly)
	}
	slices.SortStableFunc(all, func(a, b want) int { return strings.Count(a.At, "/") - strings.Count(b.At, "/") })
	return all, failed
}

// Homes mounts the homes of a machine that runs, and takes away those that are not listed. before is what was listed up to now.
func (s *Set) Homes(ctx context.Context, m Machine, before []provider.HomeMount) error {
	var errs []error
	var ready []provider.HomeMount
	for _, h := range m.Homes {
		if _, err := s.reachHome(ctx, h); err != nil {
			errs = append(errs, err)
			continue
		}
		ready = append(ready, h)
	}
	m.Homes = ready
	errs = append(errs, s.supply(ctx, m, hostTable()))
	table, err := mountTable(m.PID)
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	for _, h := range before {
		at := path.Clean(h.Path)
		if _, there := table[at]; !there || slices.ContainsFunc(m.Homes, func(o provider.HomeMount) bool { return path.Clean(o.Path) == at }) {
			continue
		}
		errs = append(errs, s.child(ctx, task{Do: "detach", PID: m.PID, Path: at}))
	}
	return errors.Join(errs...)
}
