// Package rest is one request and its answer: reading a body within bounds and strictly, the parameters of a path
// and a query, answers as JSON or as a stream, and errors as problem documents. What there is to ask, and who may,
// is package httpapi's.
package rest

import (
	"encoding/json"
	"log/slog"
	"net/http"

	"github.com/shoal-pool/shoal"
)

// Desk takes requests in. It is shared by all endpoints.
type Desk struct {
	log   *slog.Logger
	large chan struct{} // a place for each large body in memory
}

// New makes a desk.
func New(log *slog.Logger) *Desk { return &Desk{log: log, large: make(chan struct{}, largeBodies)} }

// Do reads what an action needs of a request, and does it.
func (d *Desk) Do(c *Call, do Action) error {
	if c.Req.Method == http.MethodHead && do.Media != "" {
		return shoal.Errorf(shoal.KindInvalid, "cannot answer HEAD for a stream").WithHint("use GET")
	}
	if do.In != nil && !(do.Spare && c.Req.ContentLength == 0) {
		body, done, err := d.ReadBody(c.W, c.Req, max(do.Limit, maxBody))
		if err != nil {
			return err
		}
		defer done()
		c.Body = body
	}
	return do.Serve(c)
}

// ReadLenient reads what a program sends that may be of another version and know more, in a body of ordinary size.
func ReadLenient[T any](d *Desk, w http.ResponseWriter, r *http.Request) (v T, err error) {
	body, done, err := d.ReadBody(w, r, maxBody)
	if err != nil {
		return v, err
	}
	defer done()
	if err := json.Unmarshal(body, &v); err != nil {
		return v, shoal.Errorf(shoal.KindInvalid, "cannot read the request: %w", err)
	}
	return v, nil
}
