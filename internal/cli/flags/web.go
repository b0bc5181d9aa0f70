package flags

import "github.com/spf13/pflag"

// Web is what `shoal serve` is told of its front end for browsers. Empty fields mean the defaults.
type Web struct {
	HTTPSListen string
	HTTPListen  string
	URL         string

	TLSCert, TLSKey string
	ACMEDomain      string
	ACMEEmail       string
	ACMECA          string
	ACMERoot        string

	AppsDomain string
	Trusted    string

	CHPListen        string
	CHPTokenFile     string
	CHPDefaultTarget string
	CHPErrorTarget   string
	CHPHostRouting   bool

	JupyterHub string
	AccessLog  string
}

// Register adds the flags.
func (w *Web) Register(f *pflag.FlagSet) {
	f.StringVar(&w.HTTPSListen, "https-listen", "", "where browsers come in, `HOST:PORT`, or off (default 127.0.0.1:7443)")
	f.StringVar(&w.HTTPListen, "http-listen", "", "where those who come by plain HTTP are sent to HTTPS, `HOST:PORT` (nowhere)")
	f.StringVar(&w.URL, "https-url", "", "how people write the address for browsers, a `URL` (from the certificate's name and --https-listen)")
	f.StringVar(&w.TLSCert, "tls-cert", "", "the certificate with its chain, a PEM `FILE` that is read again when it changes (an authority of its own in DIR/tls)")
	f.StringVar(&w.TLSKey, "tls-key", "", "the key of --tls-cert, a PEM `FILE`")
	f.StringVar(&w.ACMEDomain, "acme-domain", "", "get certificates by ACME for these `NAMES`, with commas between; port 443 or 80 of each must lead here")
	f.StringVar(&w.ACMEEmail, "acme-email", "", "whom the authority writes to about certificates, an `ADDRESS`")
	f.StringVar(&w.ACMECA, "acme-ca", "", "the authority's directory, a `URL` (Let's Encrypt)")
	f.StringVar(&w.ACMERoot, "acme-root", "", "whom to trust about --acme-ca itself, a PEM `FILE` (as this host does)")
	f.StringVar(&w.AppsDomain, "apps-domain", "", "give each user's servers a host name of their own, NAME.`DOMAIN`")
	f.StringVar(&w.Trusted, "trusted-proxies", "", "believe what these `NETWORKS` say of clients in X-Forwarded headers (nobody)")
	f.StringVar(&w.CHPListen, "chp-listen", "", "where a hub of JupyterHub writes routes as to configurable-http-proxy, `HOST:PORT` (nowhere)")
	f.StringVar(&w.CHPTokenFile, "chp-token-file", "", "the token of --chp-listen, a `FILE` (DIR/chp.token, which is made)")
	f.StringVar(&w.CHPDefaultTarget, "chp-default-target", "", "where requests without a route go, a `URL`")
	f.StringVar(&w.CHPErrorTarget, "chp-error-target", "", "who is asked for error pages, a `URL` (the hub that has the route /)")
	f.BoolVar(&w.CHPHostRouting, "chp-host-routing", false, "routes have the host as their first segment")
	f.StringVar(&w.AccessLog, "access-log", "", "where a line for each request of browsers goes, a `FILE` that the server appends to (nowhere)")
	f.StringVar(&w.JupyterHub, "jupyterhub", "", "whose hub pools with an endpoint jupyter have: `own`, which the server runs, or the URL of another on this host, or external (own, unless there is --chp-listen)")
}
