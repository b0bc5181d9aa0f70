package providertest

import (
	"context"
	"maps"
	"slices"
	"sync"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/provider"
)

func (b *bench) capabilities() {
	c := b.Provider.Capabilities()
	if c != b.Provider.Capabilities() {
		b.failf("the capabilities changed between two calls")
	}
	if c.Mounts != provider.MountsByAgent && c.Mounts != provider.MountsByProvider {
		b.failf("mounts by %q: neither provider nor agent", c.Mounts)
	}
	if c.Parallel < 0 {
		b.failf("parallel is %d", c.Parallel)
	}
	if all, ok := b.look(); ok && len(all) > 0 {
		b.failf("the subject is not empty: %v", slices.Collect(maps.Keys(all)))
	}
}

// life goes through all phases.
func (b *bench) life() {
	spec := b.Spec(0)
	if !b.ok("create", spec.ID, b.Provider.Create(b.ctx, spec)) {
		return
	}
	if all, ok := b.look(); ok {
		if _, listed := all[spec.ID]; !listed {
			b.failf("a machine that was accepted is not in a complete observation, under its id and this installation's tag")
		}
	}
	seen := b.until(spec.ID, provider.PhaseRunning)
	b.stays(spec.ID, provider.PhaseRunning)
	if b.Provider.Capabilities().Stop {
		if b.ok("stop", spec.ID, b.Provider.Stop(b.ctx, spec.ID)) {
			b.until(spec.ID, provider.PhaseStopped)
			b.stays(spec.ID, provider.PhaseStopped)
		}
		spec.Join.Epoch++
		if b.ok("start", spec.ID, b.Provider.Start(b.ctx, spec)) {
			if again := b.until(spec.ID, provider.PhaseRunning); again.ProviderID != seen.ProviderID {
				b.failf("a stop and a start made %s of %s", again.ProviderID, seen.ProviderID)
			}
		}
	} else {
		b.code("stop where it cannot be done", b.Provider.Stop(b.ctx, spec.ID), provider.Invalid)
	}
	b.unmake(spec.ID)
}

// repetition does everything again, as after a crash between the deed and its record.
func (b *bench) repetition() {
	spec := b.Spec(0)
	for range 3 {
		b.ok("a repeated create", spec.ID, b.Provider.Create(b.ctx, spec))
	}
	seen := b.until(spec.ID, provider.PhaseRunning)
	b.ok("create of a running machine", spec.ID, b.Provider.Create(b.ctx, spec))
	b.ok("start of a running machine", spec.ID, b.Provider.Start(b.ctx, spec))
	b.stays(spec.ID, provider.PhaseRunning)
	b.same(seen, "repetition")
	if b.Provider.Capabilities().Stop {
		for range 2 {
			b.ok("a repeated stop", spec.ID, b.Provider.Stop(b.ctx, spec.ID))
		}
		b.until(spec.ID, provider.PhaseStopped)
		b.ok("stop of a stopped machine", spec.ID, b.Provider.Stop(b.ctx, spec.ID))
		b.ok("create of a stopped machine", spec.ID, b.Provider.Create(b.ctx, spec))
		b.stays(spec.ID, provider.PhaseStopped)
		for range 2 {
			b.ok("a repeated start", spec.ID, b.Provider.Start(b.ctx, spec))
		}
		b.until(spec.ID, provider.PhaseRunning)
	}
	for range 3 {
		b.ok("a repeated delete", spec.ID, b.Provider.Delete(b.ctx, spec.ID))
	}
	b.until(spec.ID, gone)
	b.ok("delete of a machine that is gone", spec.ID, b.Provider.Delete(b.ctx, spec.ID))
}

func (b *bench) absence() {
	spec := b.Spec(0)
	b.ok("delete of an absent machine", spec.ID, b.Provider.Delete(b.ctx, spec.ID))
	b.code("start of an absent machine", b.Provider.Start(b.ctx, spec), provider.NotFound)
	codes := []provider.Code{provider.NotFound}
	if !b.Provider.Capabilities().Stop {
		codes = append(codes, provider.Invalid)
	}
	b.code("stop of an absent machine", b.Provider.Stop(b.ctx, spec.ID), codes...)
	b.stays(spec.ID, gone)
}

// tokens: an id that was taken with another token is not handed over.
func (b *bench) tokens() {
	spec, seen := b.made(0)
	other := spec
	other.Token += "x"
	b.code("create with another token", b.Provider.Create(b.ctx, other), provider.Invalid)
	b.stays(spec.ID, provider.PhaseRunning)
	b.same(seen, "a refused create")
	b.unmake(spec.ID)
}

func (b *bench) invalid() {
	for what, spec := range b.Invalid {
		b.code("create with "+what, b.Provider.Create(b.ctx, spec), provider.Invalid)
		b.stays(spec.ID, gone)
	}
}

// haste changes its mind before anything can have been finished.
func (b *bench) haste() {
	first := b.Spec(0)
	b.ok("create", first.ID, b.Provider.Create(b.ctx, first))
	b.unmake(first.ID)
	if !b.Provider.Capabilities().Stop {
		return
	}
	spec := b.Spec(1)
	b.ok("create", spec.ID, b.Provider.Create(b.ctx, spec))
	b.ok("stop", spec.ID, b.Provider.Stop(b.ctx, spec.ID))
	b.until(spec.ID, provider.PhaseStopped)
	b.ok("start", spec.ID, b.Provider.Start(b.ctx, spec))
	b.ok("stop", spec.ID, b.Provider.Stop(b.ctx, spec.ID))
	b.until(spec.ID, provider.PhaseStopped)
	b.ok("start", spec.ID, b.Provider.Start(b.ctx, spec))
	b.until(spec.ID, provider.PhaseRunning)
	b.ok("stop", spec.ID, b.Provider.Stop(b.ctx, spec.ID))
	b.unmake(spec.ID)
}

// rebirth: an id is free again once its machine is gone. Before, a create must not seem to have succeeded.
func (b *bench) rebirth() {
	spec, _ := b.made(0)
	b.ok("delete", spec.ID, b.Provider.Delete(b.ctx, spec.ID))
	switch err := b.Provider.Create(b.ctx, spec); {
	case err == nil:
		b.until(spec.ID, provider.PhaseRunning)
		b.stays(spec.ID, provider.PhaseRunning)
	case !isTransient(err):
		b.failf("a create while the former machine is being deleted: %w", err)
	}
	b.unmake(spec.ID)
	spec.Token += "x"
	b.ok("create anew", spec.ID, b.Provider.Create(b.ctx, spec))
	b.until(spec.ID, provider.PhaseRunning)
	b.unmake(spec.ID)
}

// crowd is how many machines the concurrent check has.
const crowd = 6

func (b *bench) concurrency() {
	errs := make([]error, crowd)
	each := func(do func(provider.MachineSpec) error) {
		var all sync.WaitGroup
		for n := range crowd {
			all.Go(func() {
				if _, err := b.Provider.Observe(b.ctx); err != nil && !isTransient(err) {
					errs[n] = err
					return
				}
				errs[n] = do(b.Spec(n))
			})
		}
		all.Wait()
		for n, err := range errs {
			b.ok("one of many calls", b.Spec(n).ID, err)
		}
	}
	each(func(s provider.MachineSpec) error { return b.Provider.Create(b.ctx, s) })
	addresses, ids := map[string]shoal.MachineID{}, map[string]shoal.MachineID{}
	for n := range crowd {
		id := b.Spec(n).ID
		seen := b.until(id, provider.PhaseRunning)
		if seen.Phase != provider.PhaseRunning {
			continue
		}
		if other, taken := addresses[seen.Address]; taken {
			b.failf("machines %s and %s have the same address %s", other, id, seen.Address)
		}
		if other, taken := ids[seen.ProviderID]; taken {
			b.failf("machines %s and %s are both %s", other, id, seen.ProviderID)
		}
		addresses[seen.Address], ids[seen.ProviderID] = id, id
	}
	each(func(s provider.MachineSpec) error { return b.Provider.Delete(b.ctx, s.ID) })
	for n := range crowd {
		b.until(b.Spec(n).ID, gone)
	}
}

// cancellation: a call that the caller gave up has been made or not, and is repeated the same way.
func (b *bench) cancellation() {
	ctx, cancel := context.WithCancel(b.ctx)
	cancel()
	spec := b.Spec(0)
	if err := b.Provider.Create(ctx, spec); err != nil && !isTransient(err) {
		b.failf("a create that was given up: %w", err)
	}
	b.ok("create", spec.ID, b.Provider.Create(b.ctx, spec))
	b.until(spec.ID, provider.PhaseRunning)
	if err := b.Provider.Delete(ctx, spec.ID); err != nil && !isTransient(err) {
		b.failf("a delete that was given up: %w", err)
	}
	b.unmake(spec.ID)
}

// death: a machine that has ended by itself stays failed, with a reason, until it is deleted.
func (b *bench) death() {
	spec, _ := b.made(0)
	b.ok("kill", spec.ID, b.Kill(spec.ID))
	seen := b.until(spec.ID, provider.PhaseFailed)
	if seen.Reason == "" {
		b.failf("machine %s has failed without a reason", spec.ID)
	}
	b.ok("a repeated create", spec.ID, b.Provider.Create(b.ctx, spec))
	b.stays(spec.ID, provider.PhaseFailed)
	b.unmake(spec.ID)
}

// halfWay: what breaks off can be tried again under its token, and can be deleted.
func (b *bench) halfWay() {
	spec := b.Spec(0)
	b.Break()
	if err := b.Provider.Create(b.ctx, spec); err != nil && !isTransient(err) {
		b.failf("a create that broke off: %w", err)
	}
	b.ok("delete of a half-made machine", spec.ID, b.Provider.Delete(b.ctx, spec.ID))
	b.until(spec.ID, gone)
	b.nothingLeft()
	spec = b.Spec(1)
	b.Break()
	if err := b.Provider.Create(b.ctx, spec); err != nil {
		b.ok("create after one that broke off", spec.ID, b.Provider.Create(b.ctx, spec))
	}
	b.until(spec.ID, provider.PhaseRunning)
	b.unmake(spec.ID)
}

// adoption: machines outlive the process that made them.
func (b *bench) adoption() {
	running, before := b.made(0)
	stopped, _ := b.made(1)
	if b.Provider.Capabilities().Stop {
		b.ok("stop", stopped.ID, b.Provider.Stop(b.ctx, stopped.ID))
		b.until(stopped.ID, provider.PhaseStopped)
	}
	young, doomed := b.Spec(2), b.Spec(3)
	b.ok("create", doomed.ID, b.Provider.Create(b.ctx, doomed))
	b.ok("create", young.ID, b.Provider.Create(b.ctx, young))
	b.ok("delete", doomed.ID, b.Provider.Delete(b.ctx, doomed.ID))
	again, err := b.Reopen()
	if !b.ok("opening again", "all", err) {
		return
	}
	b.Provider = again
	b.same(before, "the end of the process that made it")
	if b.Provider.Capabilities().Stop {
		b.stays(stopped.ID, provider.PhaseStopped)
		b.ok("start", stopped.ID, b.Provider.Start(b.ctx, stopped))
		b.until(stopped.ID, provider.PhaseRunning)
	}
	b.until(doomed.ID, gone)
	b.until(young.ID, provider.PhaseRunning)
	for _, s := range []provider.MachineSpec{running, young} {
		b.ok("a repeated create", s.ID, b.Provider.Create(b.ctx, s))
		b.stays(s.ID, provider.PhaseRunning)
	}
	for _, s := range []provider.MachineSpec{running, stopped, young} {
		b.unmake(s.ID)
	}
}
