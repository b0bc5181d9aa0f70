package program

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/provider"
)

// sightings is what is remembered of machines, so that one list alone ends none.
type sightings struct {
	grace time.Duration
	log   *slog.Logger

	mu  sync.Mutex
	all map[shoal.MachineID]sighting
}

// sighting is one machine.
type sighting struct {
	provider.Observed           // as it was last listed, its ProviderID as at first
	accepted          time.Time // by Create; zero: it was listed
	missing           time.Time // since when it is not in complete lists; zero: it is
	doomed            bool      // it is to be deleted
}

// accepted remembers a machine that need not be in a list yet.
func (s *sightings) accepted(spec provider.MachineSpec, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m, ok := s.all[spec.ID]; ok && !m.doomed {
		return
	}
	s.put(sighting{Observed: provider.Observed{ID: spec.ID, Pool: spec.Pool, Phase: provider.PhaseCreating}, accepted: now})
}

// put keeps a sighting. The mutex is held.
func (s *sightings) put(m sighting) {
	if s.all == nil {
		s.all = map[shoal.MachineID]sighting{}
	}
	s.all[m.ID] = m
}

// doom remembers that a machine is to be deleted.
func (s *sightings) doom(id shoal.MachineID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m, ok := s.all[id]; ok {
		m.doomed = true
		s.all[id] = m
	}
}

// merge takes a list that was asked for at began, and returns it with those that it lacks and that may still be there.
func (s *sightings) merge(list []provider.Observed, complete bool, began time.Time) (all []provider.Observed, missing bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	listed := map[shoal.MachineID]bool{}
	for _, o := range list {
		listed[o.ID] = true
		was := s.all[o.ID]
		first := was.ProviderID
		m := sighting{Observed: o, doomed: was.doomed}
		if first != "" && o.ProviderID != first && !was.doomed {
			o.Trouble = fmt.Sprintf("its provider called it %s first, and calls it %s now", quote(first), quote(o.ProviderID))
			m.ProviderID = first
		}
		s.put(m)
		all = append(all, o)
	}
	if !complete {
		return all, false
	}
	for id, m := range s.all {
		if listed[id] {
			continue
		}
		if m.missing.IsZero() {
			m.missing = began
		}
		switch gone := began.Sub(m.missing); {
		case m.doomed || s.grace < 0:
			delete(s.all, id)
		case began.Before(m.accepted): // the list is older than the machine
		case gone >= s.grace:
			s.log.Warn("a machine is not listed any more, and nobody asked for its end: taken for gone", "machine", id, "for", gone.Round(time.Second))
			delete(s.all, id)
		default:
			s.all[id] = m
			missing = true
			o := m.Observed
			o.Trouble = fmt.Sprintf("its provider has left it out of its list since %s, and was not asked to delete it", m.missing.UTC().Format("15:04:05 MST"))
			if m.accepted.After(time.Time{}) {
				o.Trouble, o.Reason = "", "its provider has accepted it and does not list it yet"
			}
			all = append(all, o)
		}
	}
	slices.SortFunc(all, func(a, b provider.Observed) int { return strings.Compare(string(a.ID), string(b.ID)) })
	return all, missing
}
