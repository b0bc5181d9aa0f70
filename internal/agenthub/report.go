package agenthub

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/access"
	"github.com/shoal-pool/shoal/internal/store"
)

// Bounds on a report. An agent's are far below; whoever sends more is none of ours.
const (
	maxTasks     = 20_000
	maxPieces    = 10_000
	maxApps      = 10_000
	maxUsers     = 20_000
	maxEndpoints = 100
	maxPins      = 64
	maxWord      = 64
	maxHomes     = 50
	maxSentence  = 2_000
	maxLog       = 64 << 10
)

// Report takes what an agent saw. When it returns without an error everything in the report is stored.
// One part that is refused does not keep the others from being stored.
func (h *Hub) Report(ctx context.Context, c Caller, r api.Report) (api.ReportAnswer, error) {
	answer := api.ReportAnswer{}
	if err := bounded(&r); err != nil {
		return answer, err
	}
	h.cfg.Engine.Seen(c.Machine, r.Load)
	if r.Accounts > 0 {
		h.inEffect(c, r.Accounts)
	}
	var errs []error
	if r.Boot != nil {
		errs = append(errs, h.cfg.Engine.Boot(ctx, c.Machine, c.Epoch, *r.Boot))
	}
	if len(r.Tasks)+len(r.Output) > 0 {
		resend, err := h.cfg.Batch.Report(ctx, c.Machine, r.Tasks, r.Output)
		answer.Resend = resend
		errs = append(errs, err)
	}
	if len(r.Apps) > 0 && h.cfg.Apps != nil {
		errs = append(errs, h.cfg.Apps.Report(ctx, c.Machine, r.Apps))
	}
	if len(r.Endpoints) > 0 {
		errs = append(errs, h.endpoints(ctx, c, r.Endpoints))
	}
	if r.Activity != nil {
		errs = append(errs, h.cfg.Sessions.Activity(ctx, c.Machine, *r.Activity))
	}
	err := first(errs)
	if err == nil && r.Looked != "" {
		h.cfg.Engine.Looked(c.Machine, r.Looked)
	}
	if err == nil {
		h.answers(c.Machine)
	}
	return answer, err
}

// endpoints takes which endpoints of a machine answer, and tells those who are there what does not any more.
func (h *Hub) endpoints(ctx context.Context, c Caller, reports []api.EndpointReport) error {
	ill, err := h.cfg.Engine.Endpoints(ctx, c.Machine, c.Epoch, reports)
	for _, sentence := range ill {
		h.Send(c.Machine, api.Record{Message: &api.Message{Text: "Shoal: " + sentence + ". Newcomers are led elsewhere; what you have open stays."}})
	}
	return err
}

// answers notes that a report is answered now. It is before the answer is sent, and after the report was: an agent
// counts its lease from then.
func (h *Hub) answers(id shoal.MachineID) {
	now := time.Now()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.answered[id] = now
	if len(h.answered) <= 2*(maxEffects+len(h.links)) {
		return
	}
	for id, at := range h.answered { // of machines that are long gone
		if h.links[id] == nil && now.Sub(at) > forgetAnswers {
			delete(h.answered, id)
		}
	}
}

// forgetAnswers is after how long nobody decides anything by the last answer to a machine.
const forgetAnswers = 24 * time.Hour

// Answered returns when a report of a machine was answered last; zero: not since the server was started.
func (h *Hub) Answered(id shoal.MachineID) time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.answered[id]
}

// first is the first error with all others behind it, so that its kind is the report's.
func first(errs []error) error {
	errs = slices.DeleteFunc(errs, func(err error) bool { return err == nil })
	if len(errs) <= 1 {
		return errors.Join(errs...)
	}
	return fmt.Errorf("%w (and more: %w)", errs[0], errors.Join(errs[1:]...))
}

// bounded refuses a report that no agent makes, and cuts what is for people to a length they read.
func bounded(r *api.Report) error {
	if len(r.Tasks) > maxTasks || len(r.Output) > maxPieces {
		return shoal.Errorf(shoal.KindInvalid, "cannot take a report of %d tasks and %d pieces of output", len(r.Tasks), len(r.Output)).
			WithHint("divide it")
	}
	if r.Boot != nil {
		b := *r.Boot
		b.Progress, b.Error = clip(b.Progress, maxSentence), clip(b.Error, maxSentence)
		b.Log = strings.ToValidUTF8(b.Log[max(0, len(b.Log)-maxLog):], "?")
		r.Boot = &b
	}
	if r.Load != nil {
		l := *r.Load
		l.Held = clip(l.Held, maxSentence)
		l.Homes = map[shoal.UserName]string{}
		for _, user := range slices.Sorted(maps.Keys(r.Load.Homes)) {
			if len(l.Homes) < maxHomes && len(user) <= maxWord {
				l.Homes[user] = clip(r.Load.Homes[user], maxSentence)
			}
		}
		if len(l.Homes) == 0 {
			l.Homes = nil
		}
		r.Load = &l
	}
	if len(r.Endpoints) > maxEndpoints {
		return shoal.Errorf(shoal.KindInvalid, "cannot take a report of %d endpoints", len(r.Endpoints))
	}
	r.Endpoints = slices.Clone(r.Endpoints)
	for i := range r.Endpoints {
		e := &r.Endpoints[i]
		e.Name, e.Ill = clip(e.Name, maxWord), clip(e.Ill, maxSentence)
	}
	if err := boundedApps(r); err != nil || r.Activity == nil {
		return err
	}
	if len(r.Activity.Users) > maxUsers {
		return shoal.Errorf(shoal.KindInvalid, "cannot take a report of %d users", len(r.Activity.Users))
	}
	for i := range r.Activity.Users {
		u := &r.Activity.Users[i]
		u.InUse = clip(u.InUse, maxSentence)
		tooLong := slices.ContainsFunc(u.Pins, func(p shoal.Pin) bool { return len(p.Kind) > maxWord })
		if tooLong || len(u.Pins) > maxPins {
			return shoal.Errorf(shoal.KindInvalid, "cannot take a report of what user %q has on the machine: it is too much", clip(string(u.User), maxWord))
		}
	}
	return nil
}

// boundedApps does so for what is told of apps.
func boundedApps(r *api.Report) error {
	if len(r.Apps) > maxApps {
		return shoal.Errorf(shoal.KindInvalid, "cannot take a report of %d apps", len(r.Apps)).WithHint("divide it")
	}
	r.Apps = slices.Clone(r.Apps)
	for i := range r.Apps {
		p := &r.Apps[i]
		if p.Port < 0 || p.Port > 65535 || len(p.ID) > maxWord || len(p.State) > maxWord {
			return shoal.Errorf(shoal.KindInvalid, "cannot take a report of app %q: no agent makes such", clip(string(p.ID), maxWord))
		}
		p.Reason, p.Progress, p.Ill = clip(p.Reason, maxSentence), clip(p.Progress, maxSentence), clip(p.Ill, maxSentence)
		p.Log = strings.ToValidUTF8(p.Log[max(0, len(p.Log)-maxLog):], "?")
	}
	return nil
}

func clip(s string, limit int) string {
	if len(s) > limit {
		s = s[:limit] + "…"
	}
	return strings.ToValidUTF8(s, "?")
}

// inEffect notes which accounts an agent has put into effect.
func (h *Hub) inEffect(c Caller, rev shoal.Rev) {
	h.mu.Lock()
	defer h.mu.Unlock()
	e, ok := h.effects[c.Machine]
	if !ok || e.epoch != c.Epoch || e.rev == rev {
		return // of a start that is over, or before its stream
	}
	e.rev = rev
	h.effects[c.Machine] = e
	h.announce()
}

// AccountsReady returns once the agent of a machine has put into effect what users, groups and its pool
// were at a revision of the store or later, or when ctx ends.
func (h *Hub) AccountsReady(ctx context.Context, id shoal.MachineID, rev shoal.Rev) error {
	for {
		h.mu.Lock()
		e, known := h.effects[id]
		p := h.pools[e.pool]
		current := h.upTo >= rev
		ready := known && current && p != nil && e.rev >= p.Rev
		news := h.news
		h.mu.Unlock()
		if ready {
			return nil
		}
		if !current {
			wake(h.poke)
		}
		select {
		case <-news:
		case <-ctx.Done():
			return shoal.Errorf(shoal.KindCancelled, "the accounts of machine %s are not known to be in effect: %w", id, context.Cause(ctx))
		}
	}
}

// Relay says who a user is whose request a machine has relayed. The machine is believed for those who have
// a session or a task there, unless it is the machine alone that says so: KindDenied for all others. She has a member's rights there, whatever her role.
func (h *Hub) Relay(ctx context.Context, id shoal.MachineID, name shoal.UserName) (access.Subject, error) {
	var none access.Subject
	var u shoal.User
	present := false
	err := h.cfg.Store.View(ctx, func(tx *store.Tx) error {
		sessions, err := tx.LiveSessionsOn(id)
		if err != nil {
			return err
		}
		present = slices.ContainsFunc(sessions, func(s shoal.Session) bool { return s.User == name && !s.Found })
		if !present {
			machines, err := tx.MachinesWithTasksOf(name)
			if err != nil {
				return err
			}
			present = slices.Contains(machines, id)
		}
		return nil
	})
	if err == nil && present {
		u, err = store.Credentials{DB: h.cfg.Store}.Member(ctx, name)
	}
	switch {
	case err != nil && shoal.KindOf(err) != shoal.KindNotFound:
		return none, err
	case err != nil || !present || u.Disabled:
		return none, shoal.Errorf(shoal.KindDenied, "machine %s may not speak for user %q: nothing of that user runs there", id, clip(string(name), maxWord)).
			WithHint("log in to the machine, or use `shoal login` where you are")
	}
	return access.Subject{User: u.Name, Role: u.Role, Groups: u.Groups, Machine: id}, nil
}
