package agent

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
)

// control is the control plane as the agent reaches it.
type control struct {
	cfg  Config
	http *http.Client
	base string

	newLead func() // another server leads than before

	mu    sync.Mutex
	token string
	lead  int64 // the highest epoch of a server that has answered; 0: they tell none
}

// answerTime bounds a request that is answered at once.
const answerTime = 30 * time.Second

// maxAnswer bounds what is read of an answer. The longest are secrets: 32 of 64 KiB.
const maxAnswer = 4 << 20

func newControl(cfg Config) (*control, error) {
	u, err := url.Parse(cfg.Join.Control)
	if err != nil {
		return nil, shoal.Errorf(shoal.KindInvalid, "cannot reach the control plane at %q: %w", cfg.Join.Control, err)
	}
	dialer := &net.Dialer{Timeout: 10 * time.Second, Control: soonSilent,
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: time.Minute, Interval: 10 * time.Second, Count: 3}}
	t := &http.Transport{MaxIdleConns: 4, MaxIdleConnsPerHost: 4, IdleConnTimeout: 3 * time.Minute, DisableCompression: true,
		TLSHandshakeTimeout: 10 * time.Second, DialContext: dialer.DialContext}
	if cfg.Join.CA != "" {
		roots := x509.NewCertPool()
		if !roots.AppendCertsFromPEM([]byte(cfg.Join.CA)) {
			return nil, shoal.Errorf(shoal.KindInvalid, "cannot trust the control plane at %q: its authority's certificate is not PEM", cfg.Join.Control)
		}
		t.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13}
	}
	c := &control{cfg: cfg, http: &http.Client{Transport: t}}
	switch {
	case u.Scheme == "unix":
		path := u.Path
		t.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) { return dialer.DialContext(ctx, "unix", path) }
		c.base = "http://control"
	case (u.Scheme == "http" || u.Scheme == "https") && u.Host != "":
		c.base = u.Scheme + "://" + u.Host + strings.TrimSuffix(u.Path, "/")
	default:
		return nil, shoal.Errorf(shoal.KindInvalid, "cannot reach the control plane at %q: it must be unix:///… or https://…", cfg.Join.Control)
	}
	if cfg.Dial != nil {
		t.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) { return cfg.Dial(ctx) }
	}
	c.load()
	return c, nil
}

// kept is the durable token on disk, with what it is for.
type kept struct {
	Machine shoal.MachineID `json:"machine"`
	Epoch   int             `json:"epoch"`
	Token   string          `json:"token"`
}

// load takes the token of a former process. Without one the agent joins, which can be repeated.
func (c *control) load() {
	var k kept
	b, err := os.ReadFile(c.cfg.TokenFile)
	if err != nil || json.Unmarshal(b, &k) != nil || k.Machine != c.cfg.Join.Machine || k.Epoch != c.cfg.Join.Epoch {
		return
	}
	c.token = k.Token
}

func (c *control) bearer() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.token
}

// forget drops a token that was refused.
func (c *control) forget(token string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.token == token {
		c.token = ""
	}
}

// join gets the durable token and the certificate of the host key.
func (c *control) join(ctx context.Context, hostKey string) (api.AgentJoined, error) {
	j := c.cfg.Join
	var joined api.AgentJoined
	err := c.post(ctx, "/agent/v1/join", api.AgentJoin{Machine: j.Machine, Token: j.Token, Epoch: j.Epoch, HostKey: hostKey,
		Version: c.cfg.Version}, &joined)
	if err != nil {
		return joined, fmt.Errorf("cannot join: %w", err)
	}
	if joined.Token == "" {
		return joined, errors.New("cannot join: the answer holds no token")
	}
	c.mu.Lock()
	c.token = joined.Token
	c.mu.Unlock()
	if c.cfg.TokenFile != "" {
		b, err := json.Marshal(kept{Machine: j.Machine, Epoch: j.Epoch, Token: joined.Token})
		if err == nil {
			err = os.WriteFile(c.cfg.TokenFile, b, 0o600)
		}
		if err != nil {
			c.cfg.Log.Warn("cannot keep the machine's token; a restarted agent will join again", "error", err)
		}
	}
	return joined, nil
}

// report sends a report.
func (c *control) report(ctx context.Context, r api.Report) (api.ReportAnswer, error) {
	var answer api.ReportAnswer
	err := c.post(ctx, "/agent/v1/report", r, &answer)
	return answer, err
}

// post sends JSON and reads JSON.
func (c *control) post(ctx context.Context, path string, body, answer any) error {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	b, err := json.Marshal(body)
	if err != nil {
		return err
	}
	resp, err := c.do(ctx, http.MethodPost, path, bytes.NewReader(b))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	err = json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(answer)
	if errors.Is(err, io.EOF) {
		return nil // nothing to say
	}
	return err
}

// stream opens the stream of desired state.
func (c *control) stream(ctx context.Context) (io.ReadCloser, error) {
	ctx, cancel := context.WithCancel(ctx)
	late := time.AfterFunc(answerTime, cancel) // a server that is frozen takes connections too
	resp, err := c.do(ctx, http.MethodGet, "/agent/v1/stream", nil)
	if err != nil || !late.Stop() {
		cancel()
		return nil, errors.Join(err, ctx.Err())
	}
	return stream{resp.Body, cancel}, nil
}

type stream struct {
	io.ReadCloser
	cancel context.CancelFunc
}

// Close ends the stream.
func (s stream) Close() error { s.cancel(); return s.ReadCloser.Close() }

// do sends a request with the token. An answer that is not a success is an error of its kind.
func (c *control) do(ctx context.Context, method, path string, body io.Reader) (*http.Response, error) {
	return c.send(ctx, method, path, body, http.Header{})
}

// send is do with headers.
func (c *control) send(ctx context.Context, method, path string, body io.Reader, header http.Header) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return nil, err
	}
	req.Header = header
	req.Header.Set("User-Agent", "shoal-agent/"+c.cfg.Version)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	token := c.bearer()
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	if lead := c.led(0); lead != 0 {
		req.Header.Set(api.LeadHeader, strconv.FormatInt(lead, 10))
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, shoal.Errorf(shoal.KindUnavailable, "the control plane does not answer: %w", err)
	}
	if lead, err := strconv.ParseInt(resp.Header.Get(api.LeadHeader), 10, 64); err == nil && c.led(lead) > lead {
		resp.Body.Close()
		c.http.CloseIdleConnections()
		return nil, shoal.Errorf(shoal.KindUnavailable, "a server answers that leads no more")
	}
	if resp.StatusCode/100 == 2 || resp.StatusCode == http.StatusSwitchingProtocols {
		return resp, nil
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusUnauthorized {
		c.forget(token)
	}
	return nil, problem(resp)
}

// led notes who leads, and returns the highest epoch there has been.
func (c *control) led(lead int64) int64 {
	c.mu.Lock()
	before := c.lead
	c.lead = max(before, lead)
	highest := c.lead
	c.mu.Unlock()
	if highest > before && before != 0 && c.newLead != nil {
		c.newLead()
	}
	return highest
}

// problem reads why a request was refused.
func problem(resp *http.Response) error {
	var p api.Problem
	b, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil {
		b = nil
	}
	if json.Unmarshal(b, &p) != nil || p.Kind == "" {
		for _, m := range shoal.Meanings() {
			if m.Status == resp.StatusCode {
				p.Kind = m.Kind
			}
		}
	}
	if p.Detail == "" {
		p.Detail = resp.Status
	}
	return shoal.Errorf(p.Kind, "the control plane refuses: %s", p.Detail)
}
