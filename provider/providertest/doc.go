// Package providertest is the conformance suite of the provider seam: what every
// provider promises, as checks that a test runs against one. A check returns all that it
// found wrong as one error, so a command can run it as well as a test.
//
// It asks for nothing beyond the contract. What a provider cannot do (stop, be
// opened again) is left out by its Capabilities and by the fields of Subject that are nil.
// Time is package time, so a fake can be checked in a synctest bubble.
package providertest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/provider"
)

// Subject is a provider to be checked. It must be empty at first; every check leaves it empty when it succeeds.
type Subject struct {
	Provider provider.Provider
	// Spec returns the n-th of a set of small valid machines, each with its own id and token. The same n gives the same one.
	Spec func(n int) provider.MachineSpec
	// Invalid are machines that can never be made, by what is wrong with them.
	Invalid map[string]provider.MachineSpec
	// Patience is how long a machine may take to come where it should; zero: one minute.
	Patience time.Duration
	// Poll is the time between two looks; zero: 5 ms.
	Poll time.Duration

	// Reopen ends the provider as a crash or a restart would and opens it again on what it left.
	Reopen func() (provider.Provider, error)
	// Kill ends by itself what runs in a machine.
	Kill func(id shoal.MachineID) error
	// Break lets the next Create, or what it sets going, break off half-way.
	Break func()
	// Leftovers lists what exists of machines where Observe does not look. It is asked when all are deleted.
	Leftovers func() ([]string, error)
}

// Check is one promise.
type Check struct {
	Name  string
	run   func(*bench)
	needs func(Subject) bool // nil: nothing
}

// Applies reports whether a subject has what the check needs; without, it finds nothing wrong.
func (c Check) Applies(s Subject) bool { return c.needs == nil || c.needs(s) }

// Run checks a subject and returns what is wrong with it, nil if nothing is.
func (c Check) Run(ctx context.Context, s Subject) error {
	if s.Patience == 0 {
		s.Patience = time.Minute
	}
	if s.Poll == 0 {
		s.Poll = 5 * time.Millisecond
	}
	b := &bench{Subject: s, ctx: ctx}
	if c.Applies(s) {
		c.run(b)
	}
	b.cleanUp()
	return errors.Join(b.wrong...)
}

// Checks are all promises, those first on which others rest.
func Checks() []Check {
	return []Check{
		{Name: "capabilities", run: (*bench).capabilities},
		{Name: "life", run: (*bench).life},
		{Name: "repetition", run: (*bench).repetition},
		{Name: "absence", run: (*bench).absence},
		{Name: "tokens", run: (*bench).tokens},
		{Name: "invalid", run: (*bench).invalid},
		{Name: "haste", run: (*bench).haste},
		{Name: "rebirth", run: (*bench).rebirth},
		{Name: "concurrency", run: (*bench).concurrency},
		{Name: "cancellation", run: (*bench).cancellation},
		{Name: "death", run: (*bench).death, needs: func(s Subject) bool { return s.Kill != nil }},
		{Name: "half-way", run: (*bench).halfWay, needs: func(s Subject) bool { return s.Break != nil }},
		{Name: "adoption", run: (*bench).adoption, needs: func(s Subject) bool { return s.Reopen != nil }},
	}
}

// bench is one check at work.
type bench struct {
	Subject
	ctx   context.Context
	wrong []error
}

// failf notes what is wrong, once.
func (b *bench) failf(format string, args ...any) {
	err := fmt.Errorf(format, args...)
	if !slices.ContainsFunc(b.wrong, func(noted error) bool { return noted.Error() == err.Error() }) {
		b.wrong = append(b.wrong, err)
	}
}

// same looks whether a machine that was seen to run is what it was.
func (b *bench) same(was provider.Observed, what string) {
	if all, ok := b.look(); ok && was.Phase == provider.PhaseRunning && all[was.ID] != was {
		b.failf("%s changed the machine: it was %s, and is %s", what, said(was), said(all[was.ID]))
	}
}

// phase is that of a machine, with the provider's reason.
func phase(o provider.Observed) string {
	if o.Reason == "" {
		return string(o.Phase)
	}
	return fmt.Sprintf("%s (%s)", o.Phase, o.Reason)
}

// said is what a provider said of a machine.
func said(o provider.Observed) string {
	if o.ID == "" {
		return "not listed"
	}
	text := fmt.Sprintf("%s of pool %q, %s", o.ID, o.Pool, o.Phase)
	for _, part := range []struct{ name, value string }{{"address", o.Address}, {"providerId", o.ProviderID}, {"reason", o.Reason}, {"outdated", o.Outdated}, {"trouble", o.Trouble}} {
		if part.value != "" {
			text += fmt.Sprintf(", %s %q", part.name, part.value)
		}
	}
	return text
}

// ok notes an error of something that must succeed.
func (b *bench) ok(what string, id shoal.MachineID, err error) bool {
	if err != nil {
		b.failf("%s of %s: %w", what, id, err)
	}
	return err == nil
}

// code notes an error that is missing, or does not say what sort it is.
func (b *bench) code(what string, err error, codes ...provider.Code) {
	if err == nil {
		b.failf("%s succeeded", what)
		return
	}
	e, ok := errors.AsType[*provider.Error](err)
	switch {
	case !ok:
		b.failf("%s: the error is of no kind, and should be of %v: %w", what, codes, err)
	case !slices.Contains(codes, e.Code):
		b.failf("%s: the error is of kind %s, and should be of %v: %w", what, e.Code, codes, err)
	}
}

// look observes; the observation must be complete in time and list nothing twice.
func (b *bench) look() (map[shoal.MachineID]provider.Observed, bool) {
	for deadline := time.Now().Add(b.Patience); ; time.Sleep(b.Poll) {
		o, err := b.Provider.Observe(b.ctx)
		if err == nil && o.Complete {
			if o.At.IsZero() {
				b.failf("an observation does not say when it was made")
			}
			return b.index(o), true
		}
		if err != nil && !isTransient(err) || b.ctx.Err() != nil || time.Now().After(deadline) {
			if err == nil && b.ctx.Err() == nil {
				err = errors.New("none says that it is complete")
			}
			b.failf("no complete observation: %w", errors.Join(err, b.ctx.Err()))
			return nil, false
		}
	}
}

func (b *bench) index(o provider.Observation) map[shoal.MachineID]provider.Observed {
	out := map[shoal.MachineID]provider.Observed{}
	for _, m := range o.Machines {
		if _, twice := out[m.ID]; twice {
			b.failf("machine %s is listed twice", m.ID)
		}
		if !slices.Contains(phases(), m.Phase) {
			b.failf("machine %s is in phase %q, which does not exist", m.ID, m.Phase)
		}
		out[m.ID] = m
	}
	return out
}

func phases() []provider.Phase {
	return []provider.Phase{provider.PhaseCreating, provider.PhaseRunning, provider.PhaseStopping,
		provider.PhaseStopped, provider.PhaseFailed, provider.PhaseUnknown}
}

func isTransient(err error) bool {
	e, ok := errors.AsType[*provider.Error](err)
	return !ok || e.Code == provider.Transient
}

// gone stands for a machine that is not listed.
const gone provider.Phase = "gone"

// until waits until a machine is in a phase.
func (b *bench) until(id shoal.MachineID, want provider.Phase) provider.Observed {
	var last provider.Observed
	for deadline := time.Now().Add(b.Patience); ; time.Sleep(b.Poll) {
		all, ok := b.look()
		if !ok {
			return last
		}
		seen, listed := all[id]
		if !listed {
			seen.Phase = gone
		}
		if seen.Phase == want {
			return seen
		}
		last = seen
		if seen.Phase == provider.PhaseFailed && want != gone || b.ctx.Err() != nil || time.Now().After(deadline) {
			b.failf("machine %s is %s, and should be %s", id, phase(seen), want)
			return last
		}
	}
}

// stays looks a few times whether a machine stays in a phase.
func (b *bench) stays(id shoal.MachineID, want provider.Phase) {
	for range 5 {
		all, ok := b.look()
		if !ok {
			return
		}
		seen, listed := all[id]
		if !listed {
			seen.Phase = gone
		}
		if seen.Phase != want {
			b.failf("machine %s did not stay %s: it is %s", id, want, phase(seen))
			return
		}
		time.Sleep(b.Poll)
	}
}

// made creates a machine and waits until it runs.
func (b *bench) made(n int) (provider.MachineSpec, provider.Observed) {
	spec := b.Spec(n)
	if !b.ok("create", spec.ID, b.Provider.Create(b.ctx, spec)) {
		return spec, provider.Observed{}
	}
	seen := b.until(spec.ID, provider.PhaseRunning)
	if seen.Phase == provider.PhaseRunning && (seen.Address == "" || seen.ProviderID == "" || seen.Pool != spec.Pool) {
		b.failf("a running machine has an address, a providerId and its pool, and this one is %s", said(seen))
	}
	return spec, seen
}

// unmake deletes a machine and waits until it is gone.
func (b *bench) unmake(id shoal.MachineID) {
	if b.ok("delete", id, b.Provider.Delete(b.ctx, id)) {
		b.until(id, gone)
	}
}

// cleanUp deletes whatever a check has left, and looks for what is left even then.
func (b *bench) cleanUp() {
	all, ok := b.look()
	if !ok {
		return
	}
	for id := range all {
		b.unmake(id)
	}
	b.nothingLeft()
}

func (b *bench) nothingLeft() {
	if b.Leftovers == nil {
		return
	}
	left, err := b.Leftovers()
	if err != nil {
		b.failf("what is left cannot be seen: %w", err)
	}
	if len(left) > 0 {
		b.failf("of deleted machines there is left: %v", left)
	}
}
