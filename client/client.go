package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
)

// Options say where the server is and who asks.
type Options struct {
	Server string // https://host:port; empty with Socket
	Token  string
	Socket string         // path of a Unix socket
	As     shoal.UserName // whom an admin acts as; empty: herself
	// Patience is how long streams and waits try to reach a server that is away; default a minute.
	Patience time.Duration
	// Transport replaces the connection to Server or Socket, for tests.
	Transport http.RoundTripper
}

// Client is a client of one server. Its methods may be called from any goroutine.
type Client struct {
	base     string // scheme and host
	where    string // for people
	token    string
	as       shoal.UserName
	patience time.Duration
	socket   bool
	http     http.Client
	reached  atomic.Bool // the server has answered once
}

const (
	dialTimeout  = 10 * time.Second
	defaultLong  = time.Minute
	shortWait    = 2 * time.Second // how long a plain call is repeated
	firstPause   = 100 * time.Millisecond
	longestPause = 2 * time.Second
)

// New makes a client. It does not connect yet.
func New(o Options) (*Client, error) {
	c := &Client{token: strings.TrimSpace(o.Token), as: o.As, patience: o.Patience}
	if c.patience == 0 {
		c.patience = defaultLong
	}
	dialer := &net.Dialer{Timeout: dialTimeout}
	transport := &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         dialer.DialContext,
		TLSHandshakeTimeout: dialTimeout,
		IdleConnTimeout:     time.Minute,
		MaxIdleConnsPerHost: 8,
	}
	switch {
	case o.Socket != "" && o.Server != "":
		return nil, shoal.Errorf(shoal.KindInvalid, "cannot use a server and a socket at once").WithHint("give one of them")
	case o.Socket != "":
		c.base, c.where, c.socket = "http://shoal", o.Socket, true
		transport.Proxy = nil
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", o.Socket)
		}
	default:
		u, err := url.Parse(strings.TrimSuffix(o.Server, "/"))
		if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.RawQuery != "" || u.User != nil || u.Path != "" {
			return nil, shoal.Errorf(shoal.KindInvalid, "cannot use %q as a server", o.Server).WithHint("write its URL, as in http://127.0.0.1:7420")
		}
		c.base, c.where = u.String(), u.String()
	}
	c.http.Transport = transport
	if o.Transport != nil {
		c.http.Transport = o.Transport
	}
	// A redirect could take the token to another host.
	c.http.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return c, nil
}

// Close drops idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// call is one request.
type call struct {
	method string
	path   string // below /api/v1, escaped
	query  url.Values
	header http.Header
	body   any
	key    string // idempotency
}

// pathOf joins the parts of a path, escaped.
func pathOf(parts ...string) string {
	var b strings.Builder
	for _, p := range parts {
		b.WriteString("/" + url.PathEscape(p))
	}
	return b.String()
}

// repeatable reports whether sending a call twice does what sending it once does.
func (k call) repeatable() bool { return k.method == http.MethodGet || k.key != "" }

// do sends a call and decodes the answer into out, unless that is nil.
func (c *Client) do(ctx context.Context, k call, out any) error {
	if !k.repeatable() {
		return c.once(ctx, k, out)
	}
	return c.repeat(ctx, k, out)
}

// repeat sends a call that changes nothing when it is sent twice, and again if the server is away for a moment.
func (c *Client) repeat(ctx context.Context, k call, out any) error {
	p := c.patient(shortWait)
	for {
		err := c.once(ctx, k, out)
		if err == nil || !p.again(ctx, err) {
			return err
		}
	}
}

func (c *Client) once(ctx context.Context, k call, out any) error {
	resp, err := c.send(ctx, k)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if out == nil {
		_, err = io.Copy(io.Discard, resp.Body)
	} else {
		err = json.NewDecoder(resp.Body).Decode(out)
		var syntax *json.SyntaxError
		var mismatch *json.UnmarshalTypeError
		if errors.As(err, &syntax) || errors.As(err, &mismatch) {
			return shoal.Errorf(shoal.KindInternal, "cannot read the server's answer: %w", err).
				WithHint("is %s a Shoal server of this version? `shoal version` shows both", c.where)
		}
		_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 4096)) // so that the connection can be used again
	}
	if err != nil {
		return c.broken(ctx, err)
	}
	return nil
}

// send sends a call once and returns an answer that is not an error. The caller closes its body.
func (c *Client) send(ctx context.Context, k call) (*http.Response, error) {
	var body io.Reader
	if k.body != nil {
		text, err := json.Marshal(k.body)
		if err != nil {
			return nil, shoal.Errorf(shoal.KindInvalid, "cannot send the request: %w", err)
		}
		body = bytes.NewReader(text)
	}
	target := c.base + "/api/v1" + k.path
	if len(k.query) > 0 {
		target += "?" + k.query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, k.method, target, body)
	if err != nil {
		return nil, shoal.Errorf(shoal.KindInvalid, "cannot make the request: %w", err)
	}
	for name, values := range k.header {
		req.Header[name] = values
	}
	if k.body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	if c.as != "" {
		req.Header.Set(api.AsHeader, string(c.as))
	}
	if k.key != "" {
		req.Header.Set(api.IdempotencyHeader, k.key)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.broken(ctx, err)
	}
	if resp.StatusCode >= 300 {
		defer resp.Body.Close()
		return nil, c.problem(resp)
	}
	c.reached.Store(true)
	return resp, nil
}

// query builds a query from pairs, leaving out what is empty.
func query(pairs ...string) url.Values {
	v := url.Values{}
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			v.Set(pairs[i], pairs[i+1])
		}
	}
	return v
}

// number is an integer as a query has it; zero is left out.
func number[T ~int | ~int64](n T) string {
	if n == 0 {
		return ""
	}
	return strconv.FormatInt(int64(n), 10)
}

func flag(b bool) string {
	if !b {
		return ""
	}
	return "true"
}

func instant(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339Nano)
}

// list reads all pages of a list, at most limit objects; 0 means all.
func list[T any](ctx context.Context, c *Client, path string, q url.Values, limit int) ([]T, error) {
	all := []T{}
	for {
		if left := limit - len(all); limit > 0 && left < pageSize {
			q.Set("limit", strconv.Itoa(left))
		}
		var page api.List[T]
		if err := c.do(ctx, call{method: http.MethodGet, path: path, query: q}, &page); err != nil {
			return nil, err
		}
		all = append(all, page.Items...)
		if page.Next == "" || page.Next == q.Get("cursor") || (limit > 0 && len(all) >= limit) {
			return all, nil
		}
		q.Set("cursor", page.Next)
	}
}

// pageSize is at least what a server puts on a page.
const pageSize = 1000

// get reads one object.
func get[T any](ctx context.Context, c *Client, path string, q url.Values) (v T, err error) {
	err = c.do(ctx, call{method: http.MethodGet, path: path, query: q}, &v)
	return v, err
}

// post sends a request that is not repeated and reads the answer.
func post[T any](ctx context.Context, c *Client, path string, body any) (v T, err error) {
	if body == nil {
		body = struct{}{}
	}
	err = c.do(ctx, call{method: http.MethodPost, path: path, body: body}, &v)
	return v, err
}

func (c *Client) remove(ctx context.Context, path string, q url.Values) error {
	return c.do(ctx, call{method: http.MethodDelete, path: path, query: q}, nil)
}
