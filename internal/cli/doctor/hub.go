package doctor

import (
	"context"
	"os"
)

// hub looks for JupyterHub, which only pools with an endpoint named jupyter need. That one has wanted it here is
// seen by the directory that the server made for it.
func (h Host) hub(context.Context) []Finding {
	const install = "apt-get install -y --no-install-recommends jupyterhub python3-notebook"
	_, hubErr := h.LookPath("jupyterhub")
	_, serverErr := h.LookPath("jupyterhub-singleuser")
	if hubErr == nil && serverErr == nil {
		return ok("jupyterhub", "installed, for pools with an endpoint named jupyter")
	}
	if _, err := os.Stat(h.path(h.Data, "hub", "config")); err == nil {
		f := warning("jupyterhub", install, "not installed, and a pool of this server has had it; its pages and logins do not work without it")
		f[0].Package = "jupyterhub python3-notebook"
		return f
	}
	return ok("jupyterhub", "not installed; only pools with an endpoint named jupyter need it: %s", install)
}
