package webfront

import (
	"net/http"
	"strings"
)

// Redirect sends those who came by plain HTTP to the same address by HTTPS, on the port that port returns.
func Redirect(port func() string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := hostname(r.Host)
		if host == "" {
			http.Error(w, "This server speaks HTTPS only, and the request does not say which host it is for.", http.StatusBadRequest)
			return
		}
		if strings.Contains(host, ":") {
			host = "[" + host + "]"
		}
		if p := port(); p != "443" {
			host += ":" + p
		}
		w.Header().Set("Cache-Control", "no-store")
		http.Redirect(w, r, "https://"+host+r.URL.RequestURI(), http.StatusPermanentRedirect)
	})
}
