package local

import (
	"os"
	"path/filepath"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/host/gpu"
	"github.com/shoal-pool/shoal/provider"
)

// A machine has whole GPUs, and no other machine has them: their device nodes are made in it, and its device control
// group allows these and no others. Machines with GPUs also get the driver's own files from the host, since they must be
// of the kernel module's version. What is in the host's image already is left as it is.

// takeGPUs chooses the GPUs of a machine that is to run. self is the machine, if there is one already. The mutex is held.
func (p *Provider) takeGPUs(spec provider.MachineSpec, self *machine) ([]string, error) {
	if spec.Resources.GPUs == 0 {
		return nil, nil
	}
	taken := map[string]bool{}
	for _, m := range p.machines {
		if m != self && (m.rec.Want == wantRun || m.launching || m.alive()) {
			for _, path := range m.rec.GPUs {
				taken[path] = true
			}
		}
	}
	var free []string
	for _, g := range p.gpus.GPUs {
		if !taken[g.Device.Path] {
			free = append(free, g.Device.Path)
		}
	}
	if len(free) < spec.Resources.GPUs {
		return nil, provider.Errorf(provider.NoCapacity, "cannot start machine %s: it needs %d GPUs, and %d of the host's %d are free",
			spec.ID, spec.Resources.GPUs, len(free), len(p.gpus.GPUs))
	}
	return free[:spec.Resources.GPUs], nil
}

// devices are the nodes of the machine's GPUs. An error says that one is gone.
func (a *assembly) devices() ([]gpu.Device, error) {
	if len(a.rec.GPUs) == 0 {
		return nil, nil
	}
	found, err := gpu.Find(a.p.gpuRoot())
	if err != nil {
		return nil, err
	}
	var out []gpu.Device
	for _, path := range a.rec.GPUs {
		i := slices.IndexFunc(found.GPUs, func(g gpu.GPU) bool { return g.Device.Path == path })
		if i < 0 {
			return nil, shoal.Errorf(shoal.KindUnavailable, "its GPU %s is not there any more", path).WithHint("`shoal doctor` says which GPUs there are")
		}
		out = append(out, found.GPUs[i].Device)
	}
	return append(out, found.Shared...), nil
}

// addGPUs gives the container the devices, and the driver where its image lacks it.
func (a *assembly) addGPUs(s *specs.Spec) error {
	devices, err := a.devices()
	if err != nil || len(devices) == 0 {
		return err
	}
	for i, d := range devices {
		mode := os.FileMode(0o666) // as the driver makes them; in the machine its agent gives them to tasks
		if a.rec.Spec.Private && i < len(a.rec.GPUs) {
			mode = 0o600
		}
		major, minor := int64(d.Major), int64(d.Minor)
		s.Linux.Devices = append(s.Linux.Devices, specs.LinuxDevice{Path: d.Path, Type: "c", Major: major, Minor: minor, FileMode: &mode})
		s.Linux.Resources.Devices = append(s.Linux.Resources.Devices,
			specs.LinuxDeviceCgroup{Allow: true, Type: "c", Major: &major, Minor: &minor, Access: "rw"})
	}
	root := a.p.gpuRoot()
	if len(a.image.Trees) > 0 && root == "/" {
		return nil // the image host has the host's /usr
	}
	for _, f := range gpu.Driver(root, filepath.Join(a.dir, "root")) {
		s.Mounts = append(s.Mounts, specs.Mount{Destination: f.To, Type: "bind", Source: f.From, Options: []string{"bind", "ro", "nosuid", "nodev"}})
	}
	return nil
}

// gpuRoot is where the host's GPUs are.
func (p *Provider) gpuRoot() string {
	if p.cfg.GPURoot == "" {
		return "/"
	}
	return filepath.Clean(p.cfg.GPURoot)
}

// checkGPUs refuses a machine with more GPUs than the host has.
func (p *Provider) checkGPUs(n int) error {
	have := len(p.gpus.GPUs)
	if n <= have && n >= 0 {
		return nil
	}
	e := shoal.Errorf(shoal.KindInvalid, "a local machine cannot have %d GPUs: the host has %d", n, have)
	if have == 0 {
		return e.WithHint("leave machine.gpus out, or install the driver and start the server again; `shoal doctor` says what it finds")
	}
	return e.WithHint("lower machine.gpus")
}
