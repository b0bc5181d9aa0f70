package rest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/access"
)

// The limits of a request; those of its body are in body.go.
const (
	// WriteTime is how long somebody may take for one piece of a stream.
	WriteTime = time.Minute
	maxPage   = 1000
)

// Call is one request to an endpoint.
type Call struct {
	Ctx  context.Context
	By   access.Subject
	W    http.ResponseWriter
	Req  *http.Request
	Body []byte
	Ask  Who // says again who asks: streams outlive tokens
}

// Who finds out who asks.
type Who func(*http.Request) (access.Subject, error)

// Unreadable begins every error of Decode.
const Unreadable = "cannot read the request: "

// Decode reads a body strictly: what is not known is a mistake and not a wish that came to nothing.
func Decode[T any](body []byte) (v T, err error) {
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	err = d.Decode(&v)
	if err == nil && d.More() {
		err = errors.New("there is more than one value")
	}
	if err != nil {
		text := strings.TrimPrefix(err.Error(), "json: ")
		e := shoal.Errorf(shoal.KindInvalid, "%s%s", Unreadable, text)
		e.Hint = shoal.HintOf(err)
		return v, e
	}
	return v, nil
}

// Name is a part of the path.
func (c *Call) Name(part string) string { return c.Req.PathValue(part) }

// Query is a parameter, empty if it is not there.
func (c *Call) Query(name string) string { return c.Req.URL.Query().Get(name) }

// Flag is a parameter that is true or false.
func (c *Call) Flag(name string, otherwise bool) (bool, error) {
	text := c.Query(name)
	if text == "" {
		return otherwise, nil
	}
	b, err := strconv.ParseBool(text)
	if err != nil {
		return false, shoal.Errorf(shoal.KindInvalid, "cannot read %s=%q", name, text).WithHint("it is true or false")
	}
	return b, nil
}

// Number is a parameter that is a whole number, not below lowest.
func (c *Call) Number(name string, lowest int64) (int64, error) {
	text := c.Query(name)
	if text == "" {
		return max(lowest, 0), nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < lowest {
		return 0, shoal.Errorf(shoal.KindInvalid, "cannot read %s=%q", name, text).WithHint("it is a whole number from %d on", lowest)
	}
	return n, nil
}

// Instant is a parameter that is a time; zero if it is not there.
func (c *Call) Instant(name string) (time.Time, error) {
	text := c.Query(name)
	if text == "" {
		return time.Time{}, nil
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return t, shoal.Errorf(shoal.KindInvalid, "cannot read %s=%q as a time", name, text).WithHint("write it as in 2026-11-24T15:04:05Z")
	}
	return t, nil
}

// Page is the cursor and the length of the page that is wanted.
func (c *Call) Page() (cursor string, limit int, err error) {
	n, err := c.Number("limit", 1)
	if c.Query("limit") == "" || n > maxPage {
		n = maxPage
	}
	return c.Query("cursor"), int(n), err
}

// IfMatch is the revision that a change assumes; 0: none.
func (c *Call) IfMatch() (shoal.Rev, error) { return ParseMatch(c.Req.Header.Get("If-Match")) }

// ParseMatch reads an If-Match: one entity tag, which is a revision, or "*".
func ParseMatch(text string) (shoal.Rev, error) {
	text = strings.TrimSpace(text)
	if text == "" || text == "*" {
		return 0, nil
	}
	rev, err := strconv.ParseInt(strings.Trim(text, `"`), 10, 64)
	if err != nil || rev <= 0 {
		return 0, shoal.Errorf(shoal.KindInvalid, "cannot read If-Match: %s", text).WithHint("it is the ETag of the object, which is its rev")
	}
	return shoal.Rev(rev), nil
}

// Tag tells the revision of the one object in the answer.
func (c *Call) Tag(rev shoal.Rev) {
	c.W.Header().Set("ETag", `"`+strconv.FormatInt(int64(rev), 10)+`"`)
}

// Answer sends a value as JSON.
func (c *Call) Answer(status int, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	c.W.Header().Set("Content-Type", "application/json")
	c.W.Header().Set("Cache-Control", "no-store")
	c.W.WriteHeader(status)
	_, err = c.W.Write(append(body, '\n'))
	return Ended(err)
}
