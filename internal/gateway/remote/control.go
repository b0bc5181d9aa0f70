package remote

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
)

const (
	// silence is after which time without a word a control plane that says something every two seconds is away.
	silence = 8 * time.Second
	// answerTime bounds a request that is answered at once.
	answerTime = 10 * time.Second
	// maxAnswer bounds what is read of an answer, and maxLine of one line of a stream.
	maxAnswer = 4 << 20
	maxLine   = 4 << 20
)

// control is the control plane as the gateway reaches it.
type control struct {
	bases []string
	http  *http.Client
	tls   *tls.Config
	net   func(ctx context.Context, network, address string) (net.Conn, error)
	log   *slog.Logger

	mu    sync.Mutex
	token string
	at    int   // which of bases
	lead  int64 // the highest epoch of a server that has answered; 0: they tell none
}

// awayError is that the control plane, or the server of it that was asked, does not answer.
type awayError struct{ error }

func (e awayError) Unwrap() error { return e.error }

func isAway(err error) bool {
	_, is := errors.AsType[awayError](err)
	return is
}

func newControl(cfg Config, ca string) (*control, error) {
	c := &control{net: cfg.Dial, log: cfg.Log}
	for _, s := range cfg.Servers {
		base, err := serverURL(s)
		if err != nil {
			return nil, err
		}
		c.bases = append(c.bases, base)
	}
	if len(c.bases) == 0 {
		return nil, shoal.Errorf(shoal.KindInvalid, "cannot serve as a gateway without a control plane").WithHint("say where it is: --server https://HOST:PORT")
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool()
	}
	if ca != "" && !roots.AppendCertsFromPEM([]byte(ca)) {
		return nil, shoal.Errorf(shoal.KindInvalid, "cannot trust the control plane: what is behind the first line of the token is no PEM certificate")
	}
	c.tls = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	c.http = &http.Client{
		Transport: &http.Transport{DialContext: cfg.Dial, TLSClientConfig: c.tls, TLSHandshakeTimeout: 5 * time.Second, MaxIdleConnsPerHost: 8,
			IdleConnTimeout: 30 * time.Second, DisableCompression: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // it could take the token elsewhere
	}
	return c, nil
}

// serverURL reads where a server is: by TLS, or on this host.
func serverURL(text string) (string, error) {
	u, err := url.Parse(strings.TrimSuffix(text, "/"))
	bad := shoal.Errorf(shoal.KindInvalid, "cannot use %q as a server", text).WithHint("write its URL, as in https://HOST:PORT: where machines come in, see --agent-listen")
	if err != nil || u.Host == "" || u.Path != "" || u.RawQuery != "" || u.User != nil || u.Scheme != "http" && u.Scheme != "https" {
		return "", bad
	}
	if ip := net.ParseIP(u.Hostname()); u.Scheme == "http" && u.Hostname() != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return "", shoal.Errorf(shoal.KindInvalid, "cannot use %q as a server: it is not reached by TLS", text).
			WithHint("write https://HOST:PORT; http:// is only for a server on this host, or behind a tunnel that ends here")
	}
	return u.Scheme + "://" + u.Host, nil
}

func (c *control) close() { c.http.CloseIdleConnections() }

// base is the server that is asked now, and its number.
func (c *control) base() (string, int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.bases[c.at], c.at
}

// next has another server asked after this one, unless that is so already.
func (c *control) next(after int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.at == after {
		c.at = (c.at + 1) % len(c.bases)
	}
}

// request makes one, with all that shows who asks.
func (c *control) request(ctx context.Context, method, path string, in any) (*http.Request, error) {
	var body io.Reader
	if in != nil {
		text, err := json.Marshal(in)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(text)
	}
	base, _ := c.base()
	req, err := http.NewRequestWithContext(ctx, method, base+"/gateway/v1"+path, body)
	if err != nil {
		return nil, err
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	if c.lead > 0 {
		req.Header.Set(api.LeadHeader, strconv.FormatInt(c.lead, 10))
	}
	return req, nil
}

// send sends a request and returns an answer that is not an error. The caller closes its body.
func (c *control) send(ctx context.Context, req *http.Request) (*http.Response, error) {
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, broken(ctx, err)
	}
	if err := c.heed(resp); err != nil {
		return nil, errors.Join(err, resp.Body.Close())
	}
	if resp.StatusCode >= 300 {
		defer resp.Body.Close()
		return nil, problem(resp)
	}
	return resp, nil
}

// broken is the error for a request that got no whole answer.
func broken(ctx context.Context, err error) error {
	if ctx.Err() != nil && context.Cause(ctx) != errSilent { //nolint:errorlint // it is set as it is
		return shoal.Errorf(shoal.KindCancelled, "the request was given up: %w", context.Cause(ctx))
	}
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err
	}
	return awayError{shoal.Errorf(shoal.KindUnavailable, "the control plane does not answer: %w", err)}
}

// heed refuses the answer of a server that led before.
func (c *control) heed(resp *http.Response) error {
	lead, err := strconv.ParseInt(resp.Header.Get(api.LeadHeader), 10, 64)
	if err != nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if lead < c.lead {
		return awayError{shoal.Errorf(shoal.KindUnavailable, "the control plane does not answer: this server led before")}
	}
	c.lead = lead
	return nil
}

// problem is the error that an answer tells of.
func problem(resp *http.Response) error {
	var p api.Problem
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil || json.Unmarshal(body, &p) != nil || p.Kind == "" {
		return awayError{shoal.Errorf(shoal.KindUnavailable, "the control plane does not answer: what is there says %s", resp.Status)}
	}
	return problemError(p)
}

func problemError(p api.Problem) error {
	err := shoal.Errorf(p.Kind, "%s", p.Detail)
	if p.Hint != "" {
		err = err.WithHint("%s", p.Hint)
	}
	if p.Kind == shoal.KindUnavailable {
		return awayError{err}
	}
	return err
}

// call asks something that is answered at once, or within a time.
func (c *control) call(ctx context.Context, path string, in, out any, limit time.Duration) error {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, errSilent)
	defer cancel()
	req, err := c.request(ctx, http.MethodPost, path, in)
	if err != nil {
		return err
	}
	resp, err := c.send(ctx, req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(out); err != nil {
		return broken(ctx, err)
	}
	return nil
}

var errSilent = errors.New("it is silent")

// lines reads a stream of JSON values, one a line, until take is done with them or fails. A stream that says nothing for a while is over.
func lines[T any](ctx context.Context, c *control, req *http.Request, take func(T) (done bool, err error)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	late := time.AfterFunc(silence, func() { cancel(errSilent) })
	defer late.Stop()
	resp, err := c.send(ctx, req.WithContext(ctx))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	in := bufio.NewScanner(resp.Body)
	in.Buffer(make([]byte, 0, 64<<10), maxLine)
	for in.Scan() {
		late.Reset(silence)
		var v T
		if err := json.Unmarshal(in.Bytes(), &v); err != nil {
			return awayError{shoal.Errorf(shoal.KindInternal, "the control plane says what is not understood: %w", err)}
		}
		if done, err := take(v); done || err != nil {
			return err
		}
	}
	err = in.Err()
	if err == nil {
		err = io.ErrUnexpectedEOF
	}
	return broken(ctx, err)
}

// dial connects to the sshd of a machine through the control plane.
func (c *control) dial(ctx context.Context, id shoal.MachineID, port int) (net.Conn, error) {
	if port != 0 {
		return nil, fmt.Errorf("a gateway of its own comes to no port of machine %s but that of ssh", id)
	}
	req, err := c.request(ctx, http.MethodGet, "/dial", nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", api.ReachProtocol)
	req.Header.Set(api.MachineHeader, string(id))
	ctx, cancel := context.WithTimeoutCause(ctx, dialTime, errSilent)
	defer cancel()
	conn, err := c.net(ctx, "tcp", hostPort(req.URL))
	if err != nil {
		return nil, broken(ctx, err)
	}
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })() // ends what is under way
	if req.URL.Scheme == "https" {
		cfg := c.tls.Clone()
		cfg.ServerName = req.URL.Hostname()
		conn = tls.Client(conn, cfg)
	}
	in := bufio.NewReader(conn)
	var resp *http.Response
	if err = req.Write(conn); err == nil {
		resp, err = http.ReadResponse(in, req)
	}
	if err != nil {
		return nil, errors.Join(broken(ctx, err), conn.Close())
	}
	if err = c.heed(resp); err == nil && resp.StatusCode != http.StatusSwitchingProtocols {
		err = fmt.Errorf("cannot come to machine %s through the control plane: %w", id, problem(resp))
	}
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return &relayed{Conn: conn, in: in}, nil
}

// dialTime bounds a connection through the control plane, which may wait for the machine's agent.
const dialTime = 20 * time.Second

func hostPort(u *url.URL) string {
	if u.Port() != "" {
		return u.Host
	}
	return net.JoinHostPort(u.Hostname(), u.Scheme)
}

// relayed is a connection of which something may have been read already.
type relayed struct {
	net.Conn
	in *bufio.Reader
}

// Read reads what comes.
func (r *relayed) Read(p []byte) (int, error) { return r.in.Read(p) }
