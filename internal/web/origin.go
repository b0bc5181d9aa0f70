package web

import (
	"net/http"
	"net/url"
	"path"
	"strings"
)

// safe reports whether a method changes nothing.
func safe(method string) bool { return method == http.MethodGet || method == http.MethodHead }

// followed reports whether a request was made by a page of this origin, or by the person herself: by a link, a
// bookmark, or by typing. Whoever sends neither Sec-Fetch-Site nor Origin is no browser of today, whose cookie
// another site could use.
func (w *Web) followed(r *http.Request) bool {
	switch r.Header.Get("Sec-Fetch-Site") {
	case "same-origin", "none":
		return true
	case "":
		origin := r.Header.Get("Origin")
		return origin == "" || w.ours(origin, r)
	}
	return safe(r.Method) && r.Header.Get("Sec-Fetch-Mode") == "navigate" && r.Header.Get("Sec-Fetch-Dest") == "document" && r.Header.Get("Upgrade") == ""
}

// fromHere reports whether a page of this origin made a request, as far as headers tell: what no other site's
// page could have made, whatever cookies the browser adds.
func (w *Web) fromHere(r *http.Request) bool {
	for _, origin := range r.Header["Origin"] { // more than one is from no browser
		if origin != "null" && !w.ours(origin, r) {
			return false
		}
	}
	switch r.Header.Get("Sec-Fetch-Site") {
	case "same-origin", "none":
		return true
	case "":
		return r.Header.Get("Origin") != "null"
	}
	return false
}

// ours reports whether an Origin is this one: that which was asked, or the address that people know us by, for where
// a proxy before us asks by another name.
func (w *Web) ours(origin string, r *http.Request) bool {
	return sameOrigin(origin, r) || strings.HasPrefix(origin, "https://") && strings.EqualFold(origin, w.cfg.URL())
}

// sameOrigin compares an Origin with the host that was asked. A proxy that ends TLS before us leaves Host as it is.
func sameOrigin(origin string, r *http.Request) bool {
	scheme, host, ok := strings.Cut(origin, "://")
	if !ok || host == "" || scheme != "https" && (scheme != "http" || r.TLS != nil) {
		return false
	}
	port := map[string]string{"https": ":443", "http": ":80"}[scheme]
	trim := func(s string) string { return strings.ToLower(strings.TrimSuffix(s, port)) }
	return trim(host) == trim(r.Host)
}

const (
	maxNext = 2048
	home    = "/shoal/"
)

// localPath reports whether text is a path of this origin, in every browser's reading: it begins with one slash,
// and has no character that browsers drop or turn round.
func localPath(text string) bool {
	if len(text) > maxNext || !strings.HasPrefix(text, "/") || strings.HasPrefix(text, "//") {
		return false
	}
	for i := range len(text) {
		if c := text[i]; c <= ' ' || c >= 0x7f || c == '\\' {
			return false
		}
	}
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "" || u.Host != "" || u.User != nil || u.Opaque != "" {
		return false
	}
	return !strings.Contains(u.Path, "//") && !strings.Contains(u.Path, "\\")
}

// next is where to go after something: text if it is a path of this origin, else home.
func next(text string) string {
	if !localPath(text) {
		return home
	}
	for _, loop := range []string{"/shoal/login", "/shoal/link", "/shoal/logout"} {
		if p, _, _ := strings.Cut(text, "?"); path.Clean(p) == loop {
			return home
		}
	}
	return text
}

// redirect sends a browser to a path of this origin.
func redirect(w http.ResponseWriter, status int, to string) {
	w.Header().Set("Location", to)
	w.WriteHeader(status)
}

// loginPath is where to sign in before going on to a path.
func loginPath(to string) string {
	if to == home {
		return "/shoal/login"
	}
	return "/shoal/login?next=" + url.QueryEscape(to)
}
