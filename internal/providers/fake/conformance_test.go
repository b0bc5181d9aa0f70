package fake_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/providers/fake"
	"github.com/shoal-pool/shoal/provider"
	"github.com/shoal-pool/shoal/provider/providertest"
)

func TestConformance(t *testing.T) {
	for _, c := range providertest.Checks() {
		t.Run(c.Name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := fake.New(fake.Config{StopTime: time.Second})
				defer p.Close()
				err := c.Run(t.Context(), providertest.Subject{
					Provider: p,
					Spec:     func(n int) provider.MachineSpec { return spec(shoal.MachineID(fmt.Sprintf("m-%d", n))) },
					Invalid:  map[string]provider.MachineSpec{"no token": {ID: "m-1"}, "no id": {Token: "x"}},
					Poll:     100 * time.Millisecond,
					Kill:     func(id shoal.MachineID) error { p.Kill(id, "the power failed"); return nil },
					Break:    func() { p.FailHalfway(1) },
				})
				if err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// A provider may not know for a while how a machine is.
func TestConformanceWaitsForTheUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := fake.New(fake.Config{})
		defer p.Close()
		for _, c := range providertest.Checks() {
			if c.Name != "life" {
				continue
			}
			if err := c.Run(t.Context(), providertest.Subject{Provider: &unsure{Provider: p}, Poll: 100 * time.Millisecond,
				Spec: func(n int) provider.MachineSpec { return spec(shoal.MachineID(fmt.Sprintf("m-%d", n))) }}); err != nil {
				t.Error(err)
			}
		}
	})
}

// unsure says of the first machine that it sees running that it does not know.
type unsure struct {
	*fake.Provider
	said bool
}

func (u *unsure) Observe(ctx context.Context) (provider.Observation, error) {
	o, err := u.Provider.Observe(ctx)
	for i, m := range o.Machines {
		if m.Phase == provider.PhaseRunning && !u.said {
			u.said = true
			o.Machines[i].Phase = provider.PhaseUnknown
		}
	}
	return o, err
}

// The suite is worth something only if it finds what is wrong.
func TestConformanceFindsFaults(t *testing.T) {
	for name, spoil := range map[string]func(*fake.Provider) provider.Provider{
		"forgets tokens":    func(p *fake.Provider) provider.Provider { return forgetful{p} },
		"lists what is not": func(p *fake.Provider) provider.Provider { return imaginative{p} },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				found := false
				for _, c := range providertest.Checks() {
					p := fake.New(fake.Config{})
					err := c.Run(t.Context(), providertest.Subject{Provider: spoil(p), Poll: 100 * time.Millisecond,
						Spec: func(n int) provider.MachineSpec { return spec(shoal.MachineID(fmt.Sprintf("m-%d", n))) }})
					found = found || err != nil
					p.Close()
				}
				if !found {
					t.Error("every check passed")
				}
			})
		})
	}
}

// forgetful takes any token for a repetition.
type forgetful struct{ *fake.Provider }

func (f forgetful) Create(ctx context.Context, s provider.MachineSpec) error {
	s.Token = "the same"
	return f.Provider.Create(ctx, s)
}

// imaginative lists every machine twice.
type imaginative struct{ *fake.Provider }

func (i imaginative) Observe(ctx context.Context) (provider.Observation, error) {
	o, err := i.Provider.Observe(ctx)
	o.Machines = append(o.Machines, o.Machines...)
	return o, err
}
