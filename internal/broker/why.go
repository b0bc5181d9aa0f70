package broker

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/route"
	"github.com/shoal-pool/shoal/internal/store"
)

// whyEvents is how many events an answer carries.
const whyEvents = 10

// WhySession says why a session is as it is.
func (b *Broker) WhySession(ctx context.Context, id shoal.SessionID) (api.Why, error) {
	why := api.Why{Subject: "session " + string(id)}
	err := b.cfg.Store.View(ctx, func(tx *store.Tx) error {
		s, err := tx.Sessions().Get(id)
		if err != nil {
			return err
		}
		why.Since = s.Since
		why.Sentence, why.Reasons = explainSession(s, time.Now())
		m, err := tx.Machines().Get(s.Machine)
		if err != nil && shoal.KindOf(err) != shoal.KindNotFound {
			return err
		}
		for _, i := range m.Ill {
			if s.Live() {
				why.Reasons = append(why.Reasons, shoal.Reason{Code: "endpoint", Sentence: fmt.Sprintf("%s on machine %s does not answer: %s; newcomers are led elsewhere", i.Endpoint, m.ID, i.Reason)})
			}
		}
		if trouble, ok := m.Load.Homes[s.User]; ok && s.Live() {
			why.Reasons = append(why.Reasons, shoal.Reason{Code: "home", Sentence: fmt.Sprintf("something of hers is missing on machine %s: %s", m.ID, trouble)})
		}
		why.Events, err = tx.EventsAbout(shoal.ObjectSession, string(id), whyEvents)
		return err
	})
	return why, err
}

func explainSession(s shoal.Session, now time.Time) (string, []shoal.Reason) {
	var reasons []shoal.Reason
	for _, p := range s.Parts {
		reasons = append(reasons, shoal.Reason{Code: "part", Sentence: fmt.Sprintf("a connection (%s) from %s", p.Kind, p.Source)})
	}
	if len(s.Pins) > 0 {
		reasons = append(reasons, shoal.Reason{Code: "pins", Sentence: "on the machine live: " + describe(s.Pins)})
	}
	if now.Before(s.KeepUntil) && s.Live() {
		reasons = append(reasons, shoal.Reason{Code: "keepAwake", Sentence: "kept awake until " + s.KeepUntil.UTC().Format("2006-01-02 15:04 MST")})
	}
	switch {
	case s.Ends.IsZero() || !s.Live():
	case s.Ending == endsMachine:
		reasons = append(reasons, shoal.Reason{Code: "ends", Sentence: fmt.Sprintf("machine %s ends at %s with whoever is there", s.Machine, s.Ends.UTC().Format("2006-01-02 15:04 MST"))})
	default:
		reasons = append(reasons, shoal.Reason{Code: "ends", Sentence: fmt.Sprintf("her %s ends at %s unless it is used before", s.Ending, s.Ends.UTC().Format("2006-01-02 15:04 MST"))})
	}
	sentence := ""
	switch s.State {
	case shoal.SessionWaiting:
		sentence = fmt.Sprintf("%s waits for a seat in pool %s: %s", s.User, s.Pool, s.Reason)
	case shoal.SessionActive:
		sentence = fmt.Sprintf("%s is connected to machine %s of pool %s", s.User, s.Machine, s.Pool)
	case shoal.SessionDisconnected:
		sentence = fmt.Sprintf("%s is not connected; her place on machine %s of pool %s is held", s.User, s.Machine, s.Pool)
		if len(reasons) == 0 {
			sentence += " until the machine's agent has shown that nothing of hers lives there"
		}
	default:
		sentence = "it ended: " + s.Reason
	}
	return sentence, reasons
}

// WhyLogin says what would become of a login of a user to a pool (empty: her default one) now.
func (b *Broker) WhyLogin(ctx context.Context, user shoal.UserName, pool shoal.PoolName) (api.Why, error) {
	why := api.Why{Subject: fmt.Sprintf("login of %s", user)}
	b.mu.Lock()
	var line []route.Request
	for _, w := range b.line {
		if !w.gone {
			line = append(line, w.req)
		}
	}
	b.mu.Unlock()
	suspects := b.suspected()
	err := b.cfg.Store.View(ctx, func(tx *store.Tx) error {
		u, err := tx.Users().Get(user)
		if err != nil {
			return err
		}
		if why.Events, err = tx.EventsAbout(shoal.ObjectUser, string(user), whyEvents); err != nil {
			return err
		}
		if u.Disabled {
			say(&why, "disabled", "a login of %[1]s would be refused: user %[1]s is disabled", user)
			return nil
		}
		if len(u.Keys) == 0 && !u.HasPassword {
			why.Reasons = append(why.Reasons, shoal.Reason{Code: "noCredentials", Sentence: fmt.Sprintf("user %s has neither a key nor a password and cannot sign in", user)})
		}
		pools, err := tx.Pools().List()
		if err != nil {
			return err
		}
		name, refused := choosePool(route.Request{User: user, Pool: pool}, pools)
		if refused != nil {
			say(&why, refused.Reason.Code, "a login of %s would be refused: %s", user, refused.Reason.Sentence)
			return nil
		}
		p := pools[slices.IndexFunc(pools, func(p shoal.Pool) bool { return p.Name == name })]
		why.Subject += " to pool " + string(name)
		return b.foresee(tx, &why, p, user, line, pools, suspects)
	})
	if err != nil {
		return api.Why{}, err
	}
	return why, nil
}

// foresee asks route what becomes of her who waits in the line, or would of one more.
func (b *Broker) foresee(tx *store.Tx, why *api.Why, p shoal.Pool, user shoal.UserName, line []route.Request, pools []shoal.Pool, suspects map[shoal.MachineID]bool) error {
	state, err := b.state(tx, p, []shoal.UserName{user}, suspects)
	if err != nil {
		return err
	}
	line = slices.DeleteFunc(line, func(r route.Request) bool {
		name, refused := choosePool(r, pools)
		return refused != nil || name != p.Name
	})
	hers := slices.IndexFunc(line, func(r route.Request) bool { return r.User == user && r.Machine == "" })
	waits := hers >= 0
	if !waits {
		hers, line = len(line), append(line, route.Request{User: user, Pool: p.Name, Arrived: time.Now()})
	}
	despair, err := hopeless(tx, state)
	if err != nil {
		return err
	}
	outcomes := route.Seat(state, line)
	o := outcomes[hers]
	if o.Refused == nil && o.Machine == "" {
		o.Refused = despair(line[hers])
	}
	switch {
	case o.Refused != nil:
		say(why, o.Refused.Reason.Code, "a login of %s would be refused: %s", user, o.Refused.Reason.Sentence)
	case o.Machine != "":
		say(why, o.Reason.Code, "a login of %s would go to machine %s: %s", user, o.Machine, o.Reason.Sentence)
	case waits:
		say(why, o.Reason.Code, "a login of %s waits: %s", user, o.Reason.Sentence)
	default:
		say(why, o.Reason.Code, "a login of %s would wait: %s", user, o.Reason.Sentence)
	}
	return nil
}

func say(why *api.Why, code, format string, args ...any) {
	why.Sentence = fmt.Sprintf(format, args...)
	why.Reasons = append([]shoal.Reason{{Code: code, Sentence: why.Sentence}}, why.Reasons...)
}
