package client

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"net/url"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
)

// broken is the error for a request that got no whole answer.
func (c *Client) broken(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return shoal.Errorf(shoal.KindCancelled, "the request to the server was given up: %w", context.Cause(ctx))
	}
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err // without the URL, which says no more
	}
	switch {
	case c.socket && errors.Is(err, fs.ErrPermission):
		return shoal.Errorf(shoal.KindDenied, "cannot use the socket %s: %w", c.where, err).
			WithHint("only root may; others sign in with `shoal login`")
	case c.socket && !c.reached.Load():
		return shoal.Errorf(shoal.KindUnavailable, "cannot reach the server at %s: %w", c.where, err).
			WithHint("is `shoal serve` running with this data directory? SHOAL_DATA names another, --server a server elsewhere")
	case !c.reached.Load():
		return shoal.Errorf(shoal.KindUnavailable, "cannot reach the server at %s: %w", c.where, err).
			WithHint("is it running, and is the address right? --server or SHOAL_SERVER names another")
	}
	return shoal.Errorf(shoal.KindUnavailable, "the connection to the server at %s broke: %w", c.where, err).
		WithHint("try again; what was asked for may have happened")
}

// maxProblem bounds how much of an error's document is read.
const maxProblem = 1 << 20

// problem is the error that an answer tells of.
func (c *Client) problem(resp *http.Response) error {
	var p api.Problem
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxProblem))
	if err == nil && json.Unmarshal(body, &p) == nil && p.Kind != "" {
		c.reached.Store(true)
		e := shoal.Errorf(p.Kind, "%s", p.Detail)
		e.Hint, e.Mistakes = p.Hint, p.Mistakes
		return e
	}
	// Not Shoal's own words: a proxy's, or another program's.
	e := shoal.Errorf(kindOf(resp.StatusCode), "the server at %s answered %s", c.where, resp.Status)
	if resp.StatusCode >= 300 && resp.StatusCode < 500 {
		return e.WithHint("is it a Shoal server?")
	}
	return e
}

// kindOf is the kind whose status an answer has.
func kindOf(status int) shoal.Kind {
	switch status {
	case http.StatusBadGateway, http.StatusGatewayTimeout:
		return shoal.KindUnavailable
	}
	for _, m := range shoal.Meanings() {
		if m.Status == status {
			return m.Kind
		}
	}
	if status >= 300 && status < 500 {
		return shoal.KindInvalid
	}
	return shoal.KindInternal
}

// patience says whether and when to try again.
type patience struct {
	c     *Client
	limit time.Duration
	since time.Time // of the first failure in a row
	pause time.Duration
}

func (c *Client) patient(limit time.Duration) *patience { return &patience{c: c, limit: limit} }

// reset is told that it works.
func (p *patience) reset() { p.since = time.Time{} }

// again waits a little after an error and reports whether to try again.
func (p *patience) again(ctx context.Context, err error) bool {
	if shoal.KindOf(err) != shoal.KindUnavailable || !p.c.reached.Load() {
		return false
	}
	if p.since.IsZero() {
		p.since, p.pause = time.Now(), firstPause
	}
	if time.Since(p.since) >= p.limit {
		return false
	}
	t := time.NewTimer(p.pause/2 + rand.N(p.pause))
	defer t.Stop()
	p.pause = min(2*p.pause, longestPause)
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
