package engine

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/store"
)

// Endpoints puts on record which endpoints of a machine answer, as its agent has found. It returns in sentences which do not
// any more. KindConflict if the start is not the current one or the machine is not wanted any more.
func (e *Engine) Endpoints(ctx context.Context, id shoal.MachineID, epoch int, reports []api.EndpointReport) (ill []string, err error) {
	_, err = e.amend(ctx, id, func(tx *store.Tx, m *shoal.Machine) (string, error) {
		ill = nil
		if err := starting(m, epoch); err != nil {
			return "", err
		}
		p, err := tx.Pools().Get(m.Pool)
		if err != nil {
			return "", err
		}
		for _, r := range reports {
			was, known := m.IllAt(r.Name)
			_, there := p.Endpoint(r.Name)
			switch {
			case r.Ill == "" || !there:
				m.Ill = without(m.Ill, r.Name)
				if known && there {
					machineEvent(tx, *m, "endpointWell", "%s on machine %s of pool %s answers again", r.Name, m.ID, m.Pool)
				}
			case known && was.Reason == r.Ill:
			default:
				since := r.Since
				if now := clock(); since.IsZero() || since.After(now) || now.Sub(since) > time.Hour { // clocks differ
					since = now
				}
				m.Ill = append(without(m.Ill, r.Name), shoal.Ill{Endpoint: r.Name, Reason: r.Ill, Since: since})
				if !known {
					sentence := fmt.Sprintf("%s on machine %s of pool %s does not answer: %s", r.Name, m.ID, m.Pool, r.Ill)
					machineEvent(tx, *m, "endpointIll", "%s", sentence)
					ill = append(ill, sentence)
				}
			}
		}
		return "", nil
	})
	if err != nil {
		return nil, fmt.Errorf("cannot take what machine %s says of its endpoints: %w", id, err)
	}
	e.Wake()
	return ill, nil
}

// without leaves out an endpoint.
func without(all []shoal.Ill, endpoint string) []shoal.Ill {
	return slices.DeleteFunc(slices.Clone(all), func(i shoal.Ill) bool { return i.Endpoint == endpoint })
}

func machineEvent(tx *store.Tx, m shoal.Machine, code, format string, args ...any) {
	tx.Event(shoal.Event{Kind: shoal.ObjectMachine, Name: string(m.ID), Pool: m.Pool, Code: code, Sentence: fmt.Sprintf(format, args...)})
}

// asked forgets what was wrong with endpoints that the pool does not have, or does not ask, any more.
func (j *judging) asked(r *row) {
	if len(r.Ill) == 0 {
		return
	}
	p, ok := j.Pool(r.Pool)
	m := r.Machine
	m.Ill = slices.DeleteFunc(slices.Clone(m.Ill), func(i shoal.Ill) bool {
		e, there := p.Endpoint(i.Endpoint)
		return ok && (!there || e.Ready == nil)
	})
	if len(m.Ill) == 0 {
		m.Ill = nil
	}
	j.set(r, m, "")
}
