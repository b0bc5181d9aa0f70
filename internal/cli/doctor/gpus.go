package doctor

import (
	"context"
	"fmt"
	"strings"

	"github.com/shoal-pool/shoal/internal/host/gpu"
)

// gpus says which GPUs machines of this host can have. Most hosts have none, which is nothing to be mended.
func (h Host) gpus(ctx context.Context) []Finding {
	const driver = "install the vendor's driver, and load it: nvidia-smi -L must list the GPUs"
	root := h.path(h.GPURoot)
	found, err := gpu.Find(root)
	if err != nil {
		return warning("gpus", "", "%v", err)
	}
	tool, installed := gpu.FindTool(root)
	switch {
	case len(found.GPUs) == 0 && installed:
		return warning("gpus", driver, "nvidia-smi is installed, and there is no /dev/nvidia0: machines can have no GPUs")
	case len(found.GPUs) == 0:
		return ok("gpus", "none, as far as device nodes tell; machines can have none")
	case !installed:
		return warning("gpus", driver, "%d device nodes, and no nvidia-smi: machines can have them, but their use is not seen", len(found.GPUs))
	}
	said, err := tool.Ask(ctx)
	if err != nil {
		return warning("gpus", driver, "%d device nodes: machines can have them, but their use is not seen: %v", len(found.GPUs), err)
	}
	var lines []string
	unknown := 0
	for _, g := range found.Describe(said).GPUs {
		if g.Name == "" {
			unknown++
			continue
		}
		lines = append(lines, fmt.Sprintf("%s %s (%s)", g.Device.Path, g.Name, g.Memory))
	}
	if unknown > 0 {
		return warning("gpus", driver, "%d device nodes, of which nvidia-smi does not know %d", len(found.GPUs), unknown)
	}
	if len(found.Shared) == 0 {
		return warning("gpus", "nvidia-modprobe -c 0 -u", "%s, and no /dev/nvidiactl, without which they cannot be used", strings.Join(lines, ", "))
	}
	return ok("gpus", "%s. In local machines they are kept for their tasks by the nodes' permissions, so two tasks of one user see each other's", strings.Join(lines, ", "))
}
