package broker

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/route"
	"github.com/shoal-pool/shoal/internal/store"
)

// Hold takes all parts of a gateway that is a process of its own. Those on record that are not among them, nor among the logins under way, are gone; those
// that are not on record are put there. It returns how the sessions of held parts go on; those that are not among
// them are over.
func (b *Broker) Hold(ctx context.Context, gateway string, held []route.Held, underWay []string) (map[shoal.SessionID]route.Watch, error) {
	var watches map[shoal.SessionID]route.Watch
	var gone []part
	look := func(tx *store.Tx) (news []shoal.Session, err error) {
		watches, gone = map[shoal.SessionID]route.Watch{}, nil
		stays := map[string]bool{}
		for _, h := range held {
			stays[h.Part] = true
		}
		for _, id := range underWay {
			stays[id] = true
		}
		all, err := tx.LiveSessions()
		if err != nil {
			return nil, err
		}
		at := map[shoal.SessionID]int{}
		for i, s := range all {
			at[s.ID] = i
			for _, p := range s.Parts {
				if route.GatewayOf(p.ID) == gateway && !stays[p.ID] {
					gone = append(gone, part{s.ID, p.ID, false})
				}
			}
		}
		changed := map[int]bool{}
		for _, h := range held {
			i, live := at[h.Session]
			if !live || all[i].Machine == "" || all[i].Machine != h.Machine {
				continue
			}
			watches[h.Session] = route.Watch{}
			if !slices.ContainsFunc(all[i].Parts, func(p shoal.Part) bool { return p.ID == h.Part }) {
				all[i].Parts = append(slices.Clone(all[i].Parts), shoal.Part{ID: h.Part, Kind: "ssh", Source: h.Source, Since: h.Since.UTC().Round(0)})
				changed[i] = true
			}
		}
		for i := range all {
			if changed[i] {
				news = append(news, all[i])
			}
		}
		return news, nil
	}
	var news []shoal.Session
	err := b.cfg.Store.View(ctx, func(tx *store.Tx) (err error) { news, err = look(tx); return err })
	if err == nil && len(news)+len(watches) > 0 {
		err = b.cfg.Store.Update(ctx, func(tx *store.Tx) error {
			news, err := look(tx)
			if err != nil {
				return err
			}
			for _, s := range news {
				if err := resume(tx, s); err != nil {
					return err
				}
			}
			for id := range watches { // before anybody can end them
				watches[id] = route.Watch{Done: b.doneOf(id), Used: b.usedOf(id)}
			}
			return nil
		})
	}
	if err != nil {
		return nil, fmt.Errorf("cannot take the connections of gateway %s: %w", gateway, err)
	}
	for _, p := range gone {
		b.leave(p)
	}
	return watches, nil
}

// resume puts on record that a session has parts again, or more of them.
func resume(tx *store.Tx, s shoal.Session) error {
	if s.State != shoal.SessionActive {
		s.State, s.Since, s.Reason = shoal.SessionActive, time.Now().UTC().Round(0), ""
		event(tx, s, "sessionResumed", fmt.Sprintf("%s is on machine %s still", s.User, s.Machine))
	}
	s.Found = false
	_, err := tx.Sessions().Put(s)
	return err
}

// Gateways counts the parts on record by their gateways.
func (b *Broker) Gateways(ctx context.Context) (map[string]int, error) {
	all := map[string]int{}
	err := b.cfg.Store.View(ctx, func(tx *store.Tx) error {
		sessions, err := tx.LiveSessions()
		for _, s := range sessions {
			for _, p := range s.Parts {
				if gateway := route.GatewayOf(p.ID); gateway != "" {
					all[gateway]++
				}
			}
		}
		return err
	})
	return all, err
}

// Lost closes all parts of a gateway that has not been heard of for too long. Its connections may go on for all that: the
// agents see them.
func (b *Broker) Lost(ctx context.Context, gateway string) error {
	return b.cfg.Store.View(ctx, func(tx *store.Tx) error {
		sessions, err := tx.LiveSessions()
		for _, s := range sessions {
			for _, p := range s.Parts {
				if route.GatewayOf(p.ID) == gateway {
					b.carry(s)
					b.mu.Lock()
					if last, ok := b.seen[s.Machine]; ok {
						b.pinCarried(s.Machine, last.users)
					}
					b.mu.Unlock()
					b.leave(part{s.ID, p.ID, false})
				}
			}
		}
		return err
	})
}

// ClosedPart tells that a part of a gateway is gone of which it does not know the session: its login was given up.
func (b *Broker) ClosedPart(ctx context.Context, id string) error {
	return b.cfg.Store.View(ctx, func(tx *store.Tx) error {
		sessions, err := tx.LiveSessions()
		for _, s := range sessions {
			if slices.ContainsFunc(s.Parts, func(p shoal.Part) bool { return p.ID == id }) {
				b.leave(part{s.ID, id, true})
			}
		}
		return err
	})
}
