// Package routes is the table of where requests go: the longest prefix of whole path segments, as the
// hub of JupyterHub writes it through chp.
//
// A prefix is a decoded path with a slash before it and none behind it: /, /user/alice. A table that routes by
// host has the host as its first segment: /alice.example.org/user/alice.
package routes

import (
	"encoding/json"
	"maps"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shoal-pool/shoal"
)

const (
	maxRoutes = 50_000
	maxPrefix = 2048 // bytes
	maxDepth  = 64   // segments
)

// lastActivity is the key under which a route's value says when it was used.
const lastActivity = "last_activity"

// Table is a table of routes. It may be used by many at once; what was put is seen by the next Find.
type Table struct {
	mu      sync.RWMutex
	routes  map[string]*Route
	depth   int           // no prefix has had more segments
	changed chan struct{} // closed at the next change
}

// New makes an empty table.
func New() *Table { return &Table{routes: map[string]*Route{}, changed: make(chan struct{})} }

// Changed is closed when a route is put or removed after this call.
func (t *Table) Changed() <-chan struct{} {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.changed
}

func (t *Table) tell() {
	close(t.changed)
	t.changed = make(chan struct{})
}

// Route is one entry. It does not change, but for when it was used.
type Route struct {
	Prefix string
	Target *url.URL // nil where what was posted is no URL of a server
	// User is whom the route's server belongs to, where it is a user's.
	User shoal.UserName
	// Server is which of the user's servers it is: usually the one without a name.
	Server string
	// Hub marks the route of JupyterHub itself.
	Hub bool
	// Guarded routes with a user are for that user's own browser only.
	Guarded bool

	posted []byte // the JSON object without its last brace
	empty  bool
	used   atomic.Int64 // Unix milliseconds
}

// Clean returns the form in which a decoded path is a prefix.
func Clean(path string) string { return "/" + strings.Trim(path, "/") }

// Put adds a route, or replaces the one that has the prefix. Posted is the JSON object that says where it goes,
// under the key target, and is kept whole.
func (t *Table) Put(prefix string, posted map[string]json.RawMessage, guarded bool, now time.Time) error {
	r := &Route{Prefix: Clean(prefix), Guarded: guarded}
	depth := strings.Count(r.Prefix, "/")
	if len(r.Prefix) > maxPrefix || depth > maxDepth {
		return shoal.Errorf(shoal.KindInvalid, "cannot add a route: its path is longer than %d bytes or %d segments", maxPrefix, maxDepth)
	}
	var target *string
	if err := json.Unmarshal(posted["target"], &target); err != nil || target == nil {
		return shoal.Errorf(shoal.KindInvalid, "cannot add route %q: it has no target", r.Prefix).
			WithHint(`post {"target": "http://HOST:PORT"}`)
	}
	r.Target = server(*target)
	_ = json.Unmarshal(posted["user"], &r.User) // whoever posts something else there has no user
	_ = json.Unmarshal(posted["server_name"], &r.Server)
	_ = json.Unmarshal(posted["hub"], &r.Hub)
	rest := maps.Clone(posted)
	delete(rest, lastActivity)
	text, err := json.Marshal(rest)
	if err != nil {
		return shoal.Errorf(shoal.KindInvalid, "cannot add route %q: %w", r.Prefix, err)
	}
	r.posted, r.empty = text[:len(text)-1], len(rest) == 0
	r.Used(now)

	t.mu.Lock()
	defer t.mu.Unlock()
	if _, there := t.routes[r.Prefix]; !there && len(t.routes) >= maxRoutes {
		return shoal.Errorf(shoal.KindExhausted, "cannot add route %q: there are %d already", r.Prefix, maxRoutes)
	}
	t.routes[r.Prefix] = r
	t.depth = max(t.depth, depth)
	t.tell()
	return nil
}

// server reads a target. One without a scheme or a host cannot be reached, but is kept: the original does so, too.
func server(target string) *url.URL {
	u, err := url.Parse(target)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil
	}
	return u
}

// Remove takes a route out and reports whether it was there.
func (t *Table) Remove(prefix string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	prefix = Clean(prefix)
	_, there := t.routes[prefix]
	if there {
		delete(t.routes, prefix)
		t.tell()
	}
	return there
}

// Get returns the route that has exactly this prefix, or nil.
func (t *Table) Get(prefix string) *Route {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.routes[Clean(prefix)]
}

// Find returns the route for a decoded path, or nil: the one with the longest prefix of it. It looks up
// no more prefixes than the deepest route has segments, however long the path is.
func (t *Table) Find(path string) *Route {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if len(t.routes) == 0 {
		return nil
	}
	path = "/" + strings.TrimLeft(path, "/")
	for end := cut(path, t.depth); end > 0; end = strings.LastIndexByte(path[:end], '/') {
		if r := t.routes[path[:end]]; r != nil {
			return r
		}
	}
	return t.routes["/"]
}

// cut returns where the first n segments of a path end.
func cut(path string, n int) int {
	end := 0
	for range n {
		next := strings.IndexByte(path[end+1:], '/')
		if next < 0 {
			return len(path)
		}
		end += 1 + next
		if end+1 >= len(path) {
			return end
		}
	}
	return end
}

// All returns the routes, in no order.
func (t *Table) All() []*Route {
	t.mu.RLock()
	defer t.mu.RUnlock()
	all := make([]*Route, 0, len(t.routes))
	for _, r := range t.routes {
		all = append(all, r)
	}
	return all
}

// Used records that something went through the route.
func (r *Route) Used(now time.Time) { r.used.Store(now.UnixMilli()) }

// LastUsed returns when something last went through the route.
func (r *Route) LastUsed() time.Time { return time.UnixMilli(r.used.Load()) }

// AppendJSON appends what was posted, with last_activity.
func (r *Route) AppendJSON(to []byte) []byte {
	to = append(to, r.posted...)
	if !r.empty {
		to = append(to, ',')
	}
	to = append(to, `"`+lastActivity+`":"`...)
	to = r.LastUsed().UTC().AppendFormat(to, "2006-01-02T15:04:05.000Z")
	return append(to, `"}`...)
}
