package webfront

import (
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/gateway/webfront/routes"
)

// appRoot is the path below which a user finds her apps, as POOL/ENDPOINT/.
const appRoot = "/shoal/app/"

// serveRoute answers by a route of the table. Guard: the host is one that Shoal's own cookies are sent to.
func (f *Front) serveRoute(w http.ResponseWriter, r *http.Request, route *routes.Route, guard bool) {
	if route == nil {
		f.noRoute(w, r, guard)
		return
	}
	d := dest{target: route.Target, prefix: route.Prefix, user: string(route.User), used: route.Used, foreign: !guard, own: route.Guarded, hub: route.Hub, name: route.Server}
	if f.cfg.Apps != nil && route.User != "" && route.Target != nil && !isPoll(r) {
		d.busy = func(at time.Time) { f.used.noteAt(f.cfg.Apps, route.User, route.Target.Host, at) }
	}
	if guard && route.Guarded && route.User != "" {
		var ok bool
		if d.still, ok = f.admit(w, r, route.User); !ok {
			return
		}
	}
	if guard && route.Guarded && route.User == "" && r.Header.Get("Authorization") == "" {
		switch _, err := f.signedIn(r); {
		case isNobody(err):
			dropCookies(r.Header, hubCookies)
		case err != nil:
			f.unknown(w, r, err)
			return
		}
	}
	if d.own && d.hub && isVisit(r) && f.cfg.HubIll != nil {
		if why := f.cfg.HubIll(); why != "" {
			f.comeAgain(w, r, why, "If that stays so it is started again, and this page goes on by itself. Notebook servers that run are not affected.")
			return
		}
	}
	f.forward(w, r, d)
}

func (f *Front) signedIn(r *http.Request) (shoal.UserName, error) {
	if f.cfg.Guard == nil {
		return "", shoal.Errorf(shoal.KindUnauthenticated, "nobody is signed in")
	}
	return f.cfg.Guard.Who(r)
}

func isNobody(err error) bool { return shoal.KindOf(err) == shoal.KindUnauthenticated }

// hubCookies are those by which JupyterHub knows a browser. They outlive a signing out here, after which the hub is not to take
// whoever sits before the browser for whom it knew there.
const hubCookies = "jupyterhub-hub-login jupyterhub-session-id"

// dropCookies takes the cookies of some names out of a request and leaves the others as they are.
func dropCookies(h http.Header, names string) {
	var lines []string
	for _, line := range h["Cookie"] {
		var kept []string
		for c := range strings.SplitSeq(line, ";") {
			c = strings.TrimSpace(c)
			name, _, _ := strings.Cut(c, "=")
			if c != "" && !slices.Contains(strings.Fields(names), strings.TrimSpace(name)) {
				kept = append(kept, c)
			}
		}
		if len(kept) > 0 {
			lines = append(lines, strings.Join(kept, "; "))
		}
	}
	if lines == nil {
		h.Del("Cookie")
		return
	}
	h["Cookie"] = lines
}

// noRoute answers for an address that no route leads on from.
func (f *Front) noRoute(w http.ResponseWriter, r *http.Request, guard bool) {
	own := f.cfg.OwnHub != nil && hubPath(r.URL.Path) && f.cfg.OwnHub()
	switch {
	case own && !guard && f.find(f.cfg.AppsDomain, "/hub/") != nil:
		// The user's server does not run. The hub, which has a host name of its own, says so and starts it.
		host := f.cfg.AppsDomain
		if _, port, err := net.SplitHostPort(r.Host); err == nil {
			host = net.JoinHostPort(host, port)
		}
		if isVisit(r) {
			http.Redirect(w, r, "https://"+host+"/hub"+r.URL.RequestURI(), http.StatusFound)
			return
		}
		f.failHint(w, r, http.StatusServiceUnavailable, "This server does not run.", "Start it at https://"+host+"/hub/home.")
	case own:
		f.hubStarts(w, r)
	case r.URL.Path == "/" && guard && f.cfg.Pages != nil:
		http.Redirect(w, r, "/shoal/", http.StatusFound)
	default:
		hint := ""
		if hubPath(r.URL.Path) {
			hint = "JupyterHub has not told this gateway of it: it may not run, or not have this gateway for its proxy."
		}
		f.errorPage(w, r, http.StatusNotFound, "No server is known for this address.", hint)
	}
}

// hubStarts answers while Shoal's own hub is about to come, for the first time or again.
func (f *Front) hubStarts(w http.ResponseWriter, r *http.Request) {
	f.comeAgain(w, r, "JupyterHub is starting.", "Try again in a moment.")
}

// comeAgain tells of the hub, and has browsers ask again by themselves.
func (f *Front) comeAgain(w http.ResponseWriter, r *http.Request, text, hint string) {
	w.Header().Set("Retry-After", "3")
	if isVisit(r) {
		w.Header().Set("Refresh", "3")
	}
	f.failHint(w, r, http.StatusServiceUnavailable, text, hint)
}

// hubPath reports whether a path is the hub's or a server's of its users.
func hubPath(path string) bool {
	return path == "/hub" || strings.HasPrefix(path, "/hub/") || strings.HasPrefix(path, "/user/")
}

// admit lets the user's own browser pass, and who comes without cookies and says who she is to the server behind. So a page of
// one user never runs with the cookies of another. What it returns is asked again while a request goes on.
func (f *Front) admit(w http.ResponseWriter, r *http.Request, owner shoal.UserName) (still func() bool, ok bool) {
	if r.Header.Get("Cookie") == "" && r.Header.Get("Authorization") != "" {
		return nil, true
	}
	who, err := f.signedIn(r)
	switch {
	case err != nil:
		f.unknown(w, r, err)
	case who != owner:
		f.fail(w, r, http.StatusForbidden, "This is a server of another user; only her own browser gets there. You are signed in as "+string(who)+".")
	case crossOrigin(r):
		f.fail(w, r, http.StatusForbidden, "A page of another site has asked for this; only pages of this site may.")
	default:
		return stillHer(r, owner, f.cfg.Guard.Who), true
	}
	return nil, false
}

// stillHer asks later whether a request is still a user's. While that cannot be told it is: what is open goes on.
func stillHer(r *http.Request, user shoal.UserName, ask func(*http.Request) (shoal.UserName, error)) func() bool {
	asked := essence(r)
	return func() bool {
		who, err := ask(asked)
		return err == nil && who == user || err != nil && !isNobody(err)
	}
}

// essence is of a request what says who has sent it. It outlives the request.
func essence(r *http.Request) *http.Request {
	e := &http.Request{Method: r.Method, URL: r.URL, Host: r.Host, RemoteAddr: r.RemoteAddr, TLS: r.TLS, Header: http.Header{}}
	for _, name := range []string{"Cookie", "Authorization", "Origin", "Sec-Fetch-Site", "Sec-Fetch-Mode", "Sec-Fetch-Dest", "Upgrade"} {
		if values := r.Header[name]; len(values) > 0 {
			e.Header[name] = slices.Clone(values)
		}
	}
	return e
}

// unknown answers whoever is not known: nobody, or it cannot be told.
func (f *Front) unknown(w http.ResponseWriter, r *http.Request, err error) {
	if isNobody(err) {
		f.askLogin(w, r)
		return
	}
	w.Header().Set("Retry-After", "3")
	f.failAs(w, r, err)
}

// askLogin sends people to the login page, and tells programs that they are not known.
func (f *Front) askLogin(w http.ResponseWriter, r *http.Request) {
	if isVisit(r) && f.cfg.Pages != nil {
		w.Header().Set("Cache-Control", "no-store")
		http.Redirect(w, r, "/shoal/login?next="+url.QueryEscape(r.URL.RequestURI()), http.StatusFound)
		return
	}
	f.fail(w, r, http.StatusUnauthorized, "Nobody is signed in here. Sign in at /shoal/login.")
}

// isVisit reports whether a person waits for a page, not a program or a script for data.
func isVisit(r *http.Request) bool {
	if r.Method != http.MethodGet && r.Method != http.MethodHead || isWebsocket(r) {
		return false
	}
	if mode := r.Header.Get("Sec-Fetch-Mode"); mode != "" {
		return mode == "navigate"
	}
	return strings.Contains(r.Header.Get("Accept"), "text/html")
}

// crossOrigin reports whether a page of another origin has sent a request that may change something or opens a websocket.
func crossOrigin(r *http.Request) bool {
	if (r.Method == http.MethodGet || r.Method == http.MethodHead || r.Method == http.MethodOptions) && !isWebsocket(r) {
		return false
	}
	origin := r.Header.Get("Origin")
	if origin == "" {
		return r.Header.Get("Sec-Fetch-Site") == "cross-site"
	}
	u, err := url.Parse(origin)
	return err != nil || !strings.EqualFold(u.Host, r.Host)
}

// serveApp answers for an app of whoever is signed in.
func (f *Front) serveApp(w http.ResponseWriter, r *http.Request) {
	pool, rest, _ := strings.Cut(r.URL.Path[len(appRoot):], "/")
	endpoint, _, inside := strings.Cut(rest, "/")
	raw := strings.SplitN(r.URL.EscapedPath(), "/", 6) // "", shoal, app, POOL, ENDPOINT, the rest
	if f.cfg.Apps == nil || pool == "" || endpoint == "" || len(raw) < 5 || inside != (len(raw) == 6) || raw[3] != pool || raw[4] != endpoint {
		f.fail(w, r, http.StatusNotFound, "There is no such app. The address of one is "+appRoot+"POOL/ENDPOINT/.")
		return
	}
	user, still, ok := f.appUser(w, r)
	if !ok {
		return
	}
	base := appRoot + pool + "/" + endpoint
	if !inside {
		to := base + "/"
		if r.URL.RawQuery != "" {
			to += "?" + r.URL.RawQuery
		}
		http.Redirect(w, r, to, http.StatusFound)
		return
	}
	app, known := f.cfg.Apps.Find(r.Context(), user, shoal.PoolName(pool), endpoint, "")
	if !known || app.State != shoal.AppRunning || app.Address == "" {
		f.notRunning(w, r, user, pool, endpoint, known && app.Live())
		return
	}
	d := dest{target: &url.URL{Scheme: "http", Host: app.Address}, user: string(user), prefix: base, app: &app, used: func(at time.Time) { f.used.note(f.cfg.Apps, app.ID, at) }}
	d.strip, d.still = app.StripPrefix, still
	f.forward(w, r, d)
}

// appUser says whose app a request is for: by her cookie, from a page of this site, or by her token of the API, which
// the app does not get to see.
func (f *Front) appUser(w http.ResponseWriter, r *http.Request) (_ shoal.UserName, still func() bool, ok bool) {
	if r.Header.Get("Cookie") == "" && f.cfg.Tokens != nil && r.Header.Get("Authorization") != "" {
		user, err := f.cfg.Tokens(r)
		if err == nil {
			ask := stillHer(r, user, f.cfg.Tokens)
			r.Header.Del("Authorization")
			return user, ask, true
		}
		f.unknown(w, r, err)
		return "", nil, false
	}
	user, err := f.signedIn(r)
	switch {
	case err != nil:
		f.unknown(w, r, err)
	case crossOrigin(r):
		f.fail(w, r, http.StatusForbidden, "A page of another site has asked for this; only pages of this site may.")
	default:
		return user, stillHer(r, user, f.cfg.Guard.Who), true
	}
	return "", nil, false
}

// notRunning starts the app for whoever has come to see it, and for programs, and sends them to where they wait. What asks with
// a cookie and is no visit is the script of a page that was left open: it starts nothing. Nor does a link on another site.
func (f *Front) notRunning(w http.ResponseWriter, r *http.Request, user shoal.UserName, pool, endpoint string, live bool) {
	w.Header().Set("Cache-Control", "no-store")
	visit := isVisit(r) && f.cfg.Pages != nil
	if !visit && r.Header.Get("Cookie") != "" || isWebsocket(r) {
		f.failHint(w, r, http.StatusServiceUnavailable, "This app does not run.", "Start it at /shoal/.")
		return
	}
	site := r.Header.Get("Sec-Fetch-Site")
	if !live && (!visit || site == "" || site == "none" || site == "same-origin") {
		if _, err := f.cfg.Apps.Open(r.Context(), user, shoal.PoolName(pool), endpoint, ""); err != nil {
			f.failAs(w, r, err)
			return
		}
	}
	wait := "/shoal/start/" + pool + "/" + endpoint
	if visit {
		http.Redirect(w, r, wait+"?next="+url.QueryEscape(r.URL.RequestURI()), http.StatusFound)
		return
	}
	w.Header().Set("Location", wait)
	w.Header().Set("Retry-After", "2")
	writeJSON(w, http.StatusAccepted, problem{Title: "Accepted", Status: http.StatusAccepted, Detail: "The app is starting. Ask again, or wait at " + wait + "."})
}
