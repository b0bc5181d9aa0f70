package local

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/need"
	"github.com/shoal-pool/shoal/provider"
	"github.com/shoal-pool/shoal/provider/providertest"
)

func TestConformance(t *testing.T) {
	needHost(t)
	for _, c := range providertest.Checks() {
		t.Run(c.Name, func(t *testing.T) {
			cfg := place(t)
			p, err := New(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { finish(t, p) })
			s := providertest.Subject{
				Provider: p,
				Spec:     func(n int) provider.MachineSpec { return spec(fmt.Sprintf("m-%d", n), "lab") },
				Invalid:  invalidSpecs(),
				Patience: patience,
				Reopen: func() (provider.Provider, error) {
					if err := p.Close(context.Background()); err != nil {
						return nil, err
					}
					var err error
					p, err = New(context.Background(), cfg)
					return p, err
				},
				Kill:      func(id shoal.MachineID) error { return unix.Kill(p.find(id).run.PID, unix.SIGKILL) },
				Break:     func() { breakOnce(t, p) },
				Leftovers: func() ([]string, error) { return leftovers(p) },
			}
			if err := c.Run(t.Context(), s); err != nil {
				t.Error(err)
			}
		})
	}
}

// invalidSpecs are machines that must be refused at once.
func invalidSpecs() map[string]provider.MachineSpec {
	change := func(fn func(*provider.MachineSpec)) provider.MachineSpec {
		s := spec("m-bad", "lab")
		fn(&s)
		return s
	}
	return map[string]provider.MachineSpec{
		"a name with a slash":      change(func(s *provider.MachineSpec) { s.ID = "../m" }),
		"no name":                  change(func(s *provider.MachineSpec) { s.ID = "" }),
		"an absent image":          change(func(s *provider.MachineSpec) { s.Image = "/no/such/image" }),
		"a registry's image":       change(func(s *provider.MachineSpec) { s.Image = "docker.io/library/debian:12" }),
		"this host as a directory": change(func(s *provider.MachineSpec) { s.Image = "/" }),
		"a file that is no image":  change(func(s *provider.MachineSpec) { s.Image = "/dev/null" }),
		"more memory than any":     change(func(s *provider.MachineSpec) { s.Resources.Memory = 1 << 50 }),
		"too little memory":        change(func(s *provider.MachineSpec) { s.Resources.Memory = 1 << 20 }),
		"too many processors":      change(func(s *provider.MachineSpec) { s.Resources.CPUs = 1 << 30 }),
		"GPUs":                     change(func(s *provider.MachineSpec) { s.Resources.GPUs = 1 }),
		"an unknown setting":       change(func(s *provider.MachineSpec) { s.Config = map[string]any{"optt": true} }),
		"a setting of wrong type":  change(func(s *provider.MachineSpec) { s.Config = map[string]any{"opt": "yes"} }),
		"a mount over /usr/bin": change(func(s *provider.MachineSpec) {
			s.Mounts = []provider.Mount{{Path: "/usr/bin", Share: shoal.Share{Name: "a", Source: "/srv"}}}
		}),
		"a share from nowhere": change(func(s *provider.MachineSpec) {
			s.Mounts = []provider.Mount{{Path: "/a", Share: shoal.Share{Name: "a", Source: "gopher://x/y"}}}
		}),
	}
}

// breakOnce lets the next runc die where a crash of the host's memory killer might let it: after
// the container was made and before it was started.
func breakOnce(t testing.TB, p *Provider) {
	t.Helper()
	real, err := lookTool("runc")
	if err != nil {
		t.Fatal(err)
	}
	script := fmt.Sprintf("#!/bin/sh\nif [ -e \"$0.broken\" ]; then exec %s \"$@\"; fi\ntouch \"$0.broken\"\n"+
		"n=$#; while [ $n -gt 0 ]; do a=$1; shift; n=$((n-1)); [ $a = run ] && a=create; [ $a = --detach ] || set -- \"$@\" \"$a\"; done\n"+
		"%s \"$@\"\nkill -KILL $$\n", real, real)
	path := filepath.Join(t.TempDir(), "runc")
	need.Script(t, path, script)
	p.runc = path
}

// leftovers lists what a provider has outside its own records.
func leftovers(p *Provider) ([]string, error) {
	var left []string
	for _, pattern := range []string{p.path("machines/*"), p.path("runc/*"), p.path("shares/*"), "/sys/fs/cgroup/*/shoal-" + p.tag + "/*/", "/sys/fs/cgroup/shoal-" + p.tag + "/*/",
		"/sys/class/net/" + "v" + p.tag + "-*"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			return nil, err
		}
		left = append(left, found...)
	}
	return left, nil
}
