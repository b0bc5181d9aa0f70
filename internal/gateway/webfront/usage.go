package webfront

import (
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/shoal-pool/shoal"
)

// usage passes on that apps are used, each now and then.
type usage struct {
	mu   sync.Mutex
	last map[string]time.Time // by the app's id, or its user and address
}

const usageEvery = 10 * time.Second

// due reports whether it is time to pass on that something is used.
func (u *usage) due(what string, at time.Time) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if at.Sub(u.last[what]) < usageEvery {
		return false
	}
	if u.last == nil || len(u.last) > 10_000 { // those that have ended are not told of
		u.last = map[string]time.Time{}
	}
	u.last[what] = at
	return true
}

func (u *usage) note(apps Apps, id shoal.AppID, at time.Time) {
	if u.due(string(id), at) {
		apps.Used(id, at)
	}
}

// noteAt notes the use of a user's server that a route leads to, if it is an app.
func (u *usage) noteAt(apps Apps, user shoal.UserName, address string, at time.Time) {
	if !u.due(string(user)+"@"+address, at) {
		return
	}
	if id, ok := apps.At(user, address); ok {
		apps.Used(id, at)
	}
}

// isBusy tells that somebody does something with the app behind a route.
func (d dest) isBusy(at time.Time) {
	if d.busy != nil {
		d.busy(at)
	}
}

// polls are what the pages of Jupyter ask for again and again while they are open, whether or not anybody sits before them.
// Kernels and terminals themselves keep their server anyhow.
var polls = []string{"/api", "/api/status", "/api/me", "/api/kernels", "/api/kernelspecs", "/api/sessions", "/api/terminals",
	"/api/metrics/v1", "/api/events/subscribe"}

// isPoll reports whether a request comes from a page that was left open, or asks not to be taken for use.
func isPoll(r *http.Request) bool {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return false
	}
	if strings.Contains(r.URL.RawQuery, "no_track_activity=") { // as Jupyter's servers have it
		return true
	}
	path := strings.TrimSuffix(r.URL.Path, "/")
	for _, p := range polls {
		if strings.HasSuffix(path, p) {
			return true
		}
	}
	return false
}
