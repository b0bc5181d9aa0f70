package supervisor

import (
	"slices"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/host/cgroups"
)

// takeGPUs gives the task its GPUs and keeps it from the others. Where the kernel takes rules for the task's control
// group, it does that. A machine that is a container may not make such rules: there the nodes of the task's GPUs become
// its user's, and nobody else can open them, while what is no task's is as open as it was.
func (t *task) takeGPUs() error {
	all := t.s.set.GPUs
	if all == nil {
		return nil
	}
	own := t.req.Order.GPUs
	var others []cgroups.Device
	for n, d := range all.Nodes {
		if !slices.Contains(own, n) {
			others = append(others, cgroups.Device{Major: d.Major, Minor: d.Minor})
		}
	}
	for _, n := range own {
		if n < 0 || n >= len(all.Nodes) {
			return shoal.Errorf(shoal.KindUnavailable, "the machine has no GPU %d: it has %d", n, len(all.Nodes))
		}
	}
	if len(others) > 0 && t.group.Deny(others) == nil {
		return nil
	}
	for _, n := range own {
		path := all.Nodes[n].Path
		if err := all.Give(path, t.req.Person.UID); err != nil {
			return err
		}
		t.gpus = append(t.gpus, path)
	}
	return nil
}

// returnGPUs takes the nodes back.
func (t *task) returnGPUs() {
	for _, path := range t.gpus {
		if err := t.s.set.GPUs.Take(path); err != nil {
			t.note("its GPU stays its user's: " + err.Error())
		}
	}
	t.gpus = nil
}

// containerGPUs are the options by which a container runtime lets the task's GPUs in.
func (t *task) containerGPUs() []string {
	ids := t.env["CUDA_VISIBLE_DEVICES"]
	if len(t.req.Order.GPUs) == 0 || ids == "" {
		return nil
	}
	switch t.runtime.name {
	case "apptainer":
		return []string{"--nv"}
	case "docker":
		return []string{"--gpus", `"device=` + ids + `"`}
	}
	return []string{"--device", "nvidia.com/gpu=" + ids} // of the container device interface
}
