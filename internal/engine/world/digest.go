package world

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/provider"
)

// desktop is where machines of the pool give remote desktops; 0: nowhere.
func desktop(p shoal.Pool) int {
	for _, e := range p.Endpoints {
		if e.Protocol == shoal.ProtocolRDP {
			return e.Port
		}
	}
	return 0
}

// Digest is of all that makes a machine of the pool what it is: one with another digest is outdated.
func (w *World) Digest(p shoal.Pool) string {
	mounts := w.Mounts(p)
	for i := range mounts {
		mounts[i].Share.Meta = shoal.Meta{}
	}
	shape := struct {
		Image   string
		Machine shoal.Resources
		Config  map[string]any
		Mounts  []provider.Mount
		Home    shoal.Home
		Setup   *shoal.Setup
		Desktop int    `json:",omitempty"` // port
		OS      string `json:",omitempty"`
	}{p.Image, p.Machine, p.ProviderConfig, mounts, p.Home, p.Setup, desktop(p), p.OS}
	text, err := json.Marshal(shape)
	if err != nil { // a pool comes from JSON: it can be written as such
		return ""
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:8])
}
