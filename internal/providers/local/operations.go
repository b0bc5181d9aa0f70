package local

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/providers/local/network"
	"github.com/shoal-pool/shoal/provider"
)

// Capabilities implements provider.Provider.
func (p *Provider) Capabilities() provider.Capabilities {
	return provider.Capabilities{Mounts: provider.MountsByProvider, UserSlices: true, Stop: true,
		Machine: shoal.Resources{CPUs: p.host.cpus, Memory: p.host.memory, GPUs: len(p.gpus.GPUs)}, Parallel: cap(p.starts)}
}

// validName reports whether an id can become a directory, a control group and a host name.
func validName(id shoal.MachineID) bool {
	return len(id) > 0 && len(id) <= 51 && id[0] != '-' && strings.Trim(string(id), "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}

// Create implements provider.Provider: it checks and records the machine; its worker makes it.
func (p *Provider) Create(_ context.Context, spec provider.MachineSpec) error {
	if !validName(spec.ID) {
		return provider.Errorf(provider.Invalid, "cannot create machine %q: that is no name for a machine", spec.ID)
	}
	conf, err := p.checkSpec(spec)
	if err != nil {
		return provider.Errorf(provider.Invalid, "cannot create machine %s: %w", spec.ID, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if m := p.machines[spec.ID]; m != nil {
		if m.rec.Want == wantRemove {
			return provider.Errorf(provider.Transient, "cannot create machine %s: the one of that name is being deleted", spec.ID)
		}
		if m.rec.Spec.Token == spec.Token {
			return nil
		}
		return provider.Errorf(provider.Invalid, "cannot create machine %s: there is one already, made with another token", spec.ID)
	}
	if err := p.room(spec, conf); err != nil {
		return err
	}
	gpus, err := p.takeGPUs(spec, nil)
	if err != nil {
		return err
	}
	host, err := p.net.Assign(string(spec.ID), string(spec.Pool))
	if err != nil {
		return provider.Errorf(provider.NoCapacity, "cannot create machine %s: %w (%s)", spec.ID, err, p.net.Subnet())
	}
	m := &machine{dir: p.path("machines", string(spec.ID)), pidfd: -1,
		rec: record{Spec: spec, Want: wantRun, Starts: 1, Host: host, GPUs: gpus}}
	if err := m.begin(); err != nil {
		p.net.Release(host)
		return provider.Errorf(provider.Transient, "cannot create machine %s: %w", spec.ID, err)
	}
	p.machines[spec.ID] = m
	p.wake(m)
	return nil
}

// begin makes the machine's directory with its record.
func (m *machine) begin() error {
	if err := os.Mkdir(m.dir, 0o700); err != nil {
		return err
	}
	if err := m.save(); err != nil {
		_ = os.RemoveAll(m.dir) // without a record the next start removes it
		return err
	}
	return nil
}

func (m *machine) save() error { return writeJSON(filepath.Join(m.dir, "spec.json"), m.rec) }

// room refuses a machine for which the host has no memory left, counting what was promised.
func (p *Provider) room(spec provider.MachineSpec, conf settings) error {
	sum := spec.Resources.Memory
	for _, m := range p.machines {
		if m.rec.Want == wantRun {
			sum += m.rec.Spec.Resources.Memory
		}
	}
	if limit := conf.memoryOf(p.host); sum > limit {
		return provider.Errorf(provider.NoCapacity,
			"cannot start machine %s: machines would have %s of memory together, and the host gives %s (its %s × memoryOvercommit %g)",
			spec.ID, sum, limit, p.host.memory, conf.overcommit())
	}
	return nil
}

// Start implements provider.Provider.
func (p *Provider) Start(_ context.Context, spec provider.MachineSpec) error {
	conf, err := p.checkSpec(spec)
	if err != nil {
		return provider.Errorf(provider.Invalid, "cannot start machine %s: %w", spec.ID, err)
	}
	return p.change(spec.ID, "start", func(m *machine) error {
		if m.rec.Want == wantRemove {
			return provider.Errorf(provider.Invalid, "cannot start machine %s: it is being deleted", spec.ID)
		}
		if m.rec.Want == wantRun && (m.rec.Failed == "" && m.starting() || m.alive()) {
			return nil
		}
		if m.rec.Want != wantRun {
			if err := p.room(spec, conf); err != nil {
				return err
			}
		}
		gpus, err := p.takeGPUs(spec, m)
		if err != nil {
			return err
		}
		spec.Token = m.rec.Spec.Token // of the Create
		m.rec.Spec, m.rec.GPUs, m.rec.Want, m.rec.Failed = spec, gpus, wantRun, ""
		m.rec.Starts++
		return nil
	})
}

// Stop implements provider.Provider.
func (p *Provider) Stop(_ context.Context, id shoal.MachineID) error {
	return p.change(id, "stop", func(m *machine) error {
		if m.rec.Want == wantRun {
			m.rec.Want = wantStop
		}
		return nil
	})
}

// Delete implements provider.Provider.
func (p *Provider) Delete(_ context.Context, id shoal.MachineID) error {
	if p.find(id) == nil {
		return nil
	}
	return p.change(id, "delete", func(m *machine) error {
		m.rec.Want = wantRemove
		return nil
	})
}

// change writes a new intent and wakes the worker. An intent that cannot be written is not had.
func (p *Provider) change(id shoal.MachineID, verb string, fn func(*machine) error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	m := p.machines[id]
	if m == nil {
		return provider.Errorf(provider.NotFound, "cannot %s machine %s: there is no such machine", verb, id)
	}
	before := m.rec
	if err := fn(m); err != nil {
		return err
	}
	if err := m.save(); err != nil {
		m.rec = before
		return provider.Errorf(provider.Transient, "cannot %s machine %s: %w", verb, id, err)
	}
	if m.rec.Want != wantRun && m.abort != nil {
		m.abort()
	}
	p.wake(m)
	return nil
}

// Observe implements provider.Provider. It forks nothing and waits for nobody.
func (p *Provider) Observe(context.Context) (provider.Observation, error) {
	state := p.images.State()
	p.mu.Lock()
	defer p.mu.Unlock()
	o := provider.Observation{Complete: true, At: time.Now()}
	for id, m := range p.machines {
		seen := provider.Observed{ID: id, Pool: m.rec.Spec.Pool, ProviderID: p.tag + "/" + string(id),
			Address: address(m.rec.Host)}
		seen.Phase, seen.Reason = m.phase()
		if seen.Phase == provider.PhaseRunning {
			seen.Trouble = p.shares.Trouble(m.rec.Spec.Mounts, m.rec.Homes)
		}
		if m.rec.State != "" && m.rec.State != state {
			seen.Outdated = "the host's packages have changed since this machine was started"
		}
		o.Machines = append(o.Machines, seen)
	}
	return o, nil
}

func address(h network.Host) string { return fmt.Sprintf("%s:22", h.Addr) }

// phase says where a machine stands, and why.
func (m *machine) phase() (provider.Phase, string) {
	switch {
	case m.rec.Want == wantRemove:
		return provider.PhaseStopping, cmp.Or(m.trouble, m.note)
	case m.rec.Want == wantStop && (m.launching || m.alive()):
		return provider.PhaseStopping, cmp.Or(m.trouble, m.note)
	case m.rec.Want == wantStop:
		return provider.PhaseStopped, ""
	case m.rec.Failed != "":
		return provider.PhaseFailed, m.rec.Failed
	case m.starting():
		return provider.PhaseCreating, cmp.Or(m.trouble, m.note)
	case m.alive():
		return provider.PhaseRunning, ""
	default:
		return provider.PhaseFailed, m.obituary()
	}
}
