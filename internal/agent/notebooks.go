package agent

import (
	"log/slog"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
)

// openHub lets the machine's notebook servers ask JupyterHub by the agent's own connection, once there is one. The port is one that only
// root may bind: they send it their tokens.
func (a *Agent) openHub(endpoint string) {
	if endpoint != shoal.EndpointJupyter || a.cfg.HubListen == nil {
		return
	}
	a.hub.Lock()
	defer a.hub.Unlock()
	if a.hub.open {
		return
	}
	l, err := a.cfg.HubListen()
	if err != nil { // the next server tries again
		a.cfg.Log.Error("notebook servers do not come to JupyterHub", "error", err)
		return
	}
	a.hub.open = true
	srv := &http.Server{Handler: a.hubProxy(), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 64 << 10,
		ErrorLog: slog.NewLogLogger(a.cfg.Log.Handler(), slog.LevelDebug)}
	a.working.Go(func() {
		<-a.streams.life.Done()
		_ = srv.Close()
	})
	a.working.Go(func() { _ = srv.Serve(newCounter(l)) })
}

// hubProxy hands requests on to the server, which lets through what is the hub's API. A server's own token goes in another header.
func (a *Agent) hubProxy() http.Handler {
	base, _ := url.Parse(a.control.base) // it was made from one
	return &httputil.ReverseProxy{
		Transport:     a.control.http.Transport,
		FlushInterval: -1,
		Rewrite: func(r *httputil.ProxyRequest) {
			to := *base
			to.Path += api.HubPrefix + r.In.URL.Path
			to.RawPath = base.EscapedPath() + api.HubPrefix + r.In.URL.EscapedPath()
			to.RawQuery = r.In.URL.RawQuery
			r.Out.URL, r.Out.Host = &to, ""
			for name := range r.Out.Header {
				if strings.HasPrefix(name, "Shoal-") {
					delete(r.Out.Header, name)
				}
			}
			if own := r.In.Header.Get("Authorization"); own != "" {
				r.Out.Header.Set(api.HubAuthorizationHeader, own)
			}
			r.Out.Header.Set("Authorization", "Bearer "+a.control.bearer())
		},
		ErrorLog: slog.NewLogLogger(a.cfg.Log.Handler(), slog.LevelDebug),
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			refuse(w, shoal.Errorf(shoal.KindUnavailable, "the control plane does not answer: %w", err).WithHint("try again in a moment"))
		},
	}
}
