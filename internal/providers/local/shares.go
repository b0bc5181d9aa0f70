package local

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/providers/local/cgroup"
	"github.com/shoal-pool/shoal/internal/providers/local/mounts"
	"github.com/shoal-pool/shoal/provider"
)

// clientsGroup is the control group of the programs that mount shares. It is apart from the machines', which are
// ended with them, and from the server's, which they outlive.
const clientsGroup = "clients"

// openShares finds what is mounted already.
func (p *Provider) openShares() (err error) {
	if p.clients, err = cgroup.Open("shoal-" + p.tag + "-mounts"); err != nil {
		return err
	}
	c := p.cfg.mounts
	c.Dir, c.Run = p.path("shares"), "/run/shoal-shares-"+p.tag
	c.Self, c.Secret, c.Log = p.cfg.MountHelper, p.cfg.Secret, p.cfg.Log
	c.Groups = func() ([]string, error) { return p.clients.Joinable(clientsGroup) }
	c.Machines, c.InUse, c.Changed = p.supplied, p.sharesInUse, p.tell
	p.shares, err = mounts.Open(c)
	return err
}

// closeClients removes the group of the clients, when the last has ended.
func (p *Provider) closeClients(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, killTimeout)
	defer cancel()
	return errors.Join(p.shares.Close(), p.clients.Kill(ctx, clientsGroup), p.clients.Remove(ctx, clientsGroup), p.clients.Close())
}

// mask is where the machine has what covers the places of homes.
func (m *machine) mask() string { return filepath.Join(m.dir, "masks") }

// supplied lists the machines that run, with their mounts.
func (p *Provider) supplied() []mounts.Machine {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []mounts.Machine
	for _, m := range p.machines {
		if phase, _ := m.phase(); phase == provider.PhaseRunning {
			all = append(all, m.supply())
		}
	}
	return all
}

// supply is a running machine as package mounts wants to see it. The mutex is held.
func (m *machine) supply() mounts.Machine {
	return mounts.Machine{ID: m.rec.Spec.ID, PID: m.run.PID, Mounts: m.rec.Spec.Mounts, Homes: m.rec.Homes, Mask: m.mask()}
}

// sharesInUse are the keys of the network shares that machines have.
func (p *Provider) sharesInUse() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var inUse []string
	for _, m := range p.machines {
		inUse = append(inUse, mounts.Keys(m.rec.Spec.Mounts, m.rec.Homes)...)
	}
	return inUse
}

// MountHomes implements provider.HomeMounter.
func (p *Provider) MountHomes(ctx context.Context, id shoal.MachineID, homes []provider.HomeMount) error {
	p.mu.Lock()
	m := p.machines[id]
	if m == nil {
		p.mu.Unlock()
		return provider.Errorf(provider.NotFound, "cannot mount homes in machine %s: there is no such machine", id)
	}
	if phase, _ := m.phase(); phase != provider.PhaseRunning {
		p.mu.Unlock()
		return provider.Errorf(provider.Transient, "cannot mount homes in machine %s: it does not run", id)
	}
	for _, h := range homes {
		if err := checkPlace(h.Path); err != nil {
			p.mu.Unlock()
			return provider.Errorf(provider.Invalid, "cannot mount homes in machine %s: %w", id, err)
		}
	}
	before := m.rec.Homes
	m.rec.Homes = slices.Clone(homes)
	if err := m.save(); err != nil {
		m.rec.Homes = before
		p.mu.Unlock()
		return provider.Errorf(provider.Transient, "cannot mount homes in machine %s: %w", id, err)
	}
	now := m.supply()
	p.mu.Unlock()
	err := p.shares.Homes(ctx, now, before)
	if err == nil && len(before) > 0 {
		err = p.shares.DropUnused(ctx)
	}
	if err != nil {
		return provider.Errorf(provider.Transient, "cannot mount homes in machine %s: %w", id, err)
	}
	return nil
}

// Changed implements provider.Notifier.
func (p *Provider) Changed() <-chan struct{} { return p.changed }

func (p *Provider) tell() {
	select {
	case p.changed <- struct{}{}:
	default:
	}
}

// RenewSecret mounts anew what uses a secret that was changed at a time. Open files stay with the old mount.
func (p *Provider) RenewSecret(name string, at time.Time) { p.shares.Renew(name, at) }
