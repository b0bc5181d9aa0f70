package rest

import (
	"bytes"
	"errors"
	"io"
	"mime"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/shoal-pool/shoal"
)

// The limits of a request's body.
const (
	maxBody   = 4 << 20
	bodyTime  = 30 * time.Second // to send it
	MaxLarge  = 40 << 20         // where many jobs, or a job's many items, come in one request
	largeTime = 2 * time.Minute
	// largeBodies is how many bodies above maxBody are in memory at once; more wait.
	largeBodies = 2
)

// ReadBody reads a body of JSON, whole: whoever sends it slowly holds nothing but a connection. done is to
// be called when the body is needed no more.
func (d *Desk) ReadBody(w http.ResponseWriter, r *http.Request, limit int64) (body []byte, done func(), err error) {
	if err := isJSON(r); err != nil {
		return nil, nil, err
	}
	rc := http.NewResponseController(w)
	// Not every connection can (those of tests); it is a bound on patience and no more.
	_ = rc.SetReadDeadline(time.Now().Add(bodyTime))
	defer func() { _ = rc.SetReadDeadline(time.Time{}) }()
	in := http.MaxBytesReader(w, r.Body, limit)
	var all bytes.Buffer
	done = func() {}
	_, err = io.CopyN(&all, in, maxBody+1)
	if err == nil && limit > maxBody { // there is more of it than most have
		select {
		case d.large <- struct{}{}:
		case <-r.Context().Done():
			return nil, nil, shoal.Errorf(shoal.KindCancelled, "the request was given up: %w", r.Context().Err())
		}
		done = func() { <-d.large }
		_ = rc.SetReadDeadline(time.Now().Add(largeTime))
		_, err = io.Copy(&all, in)
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	if err == nil {
		err = CheckText(all.Bytes())
	}
	if err != nil {
		done()
		return nil, nil, bodyError(err, limit)
	}
	return all.Bytes(), done, nil
}

func isJSON(r *http.Request) error {
	if media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || media != "application/json" {
		return shoal.Errorf(shoal.KindInvalid, "cannot read a body of type %q", r.Header.Get("Content-Type")).
			WithHint("send JSON, with the header Content-Type: application/json")
	}
	return nil
}

// CheckText refuses what is no UTF-8: read as JSON, its bytes would silently become others.
func CheckText(body []byte) error {
	if utf8.Valid(body) {
		return nil
	}
	at := 0
	for at < len(body) {
		c, size := utf8.DecodeRune(body[at:])
		if c == utf8.RuneError && size == 1 {
			break
		}
		at += size
	}
	return shoal.Errorf(shoal.KindInvalid, "the request is not UTF-8: line %d has a byte %#02x that cannot be", 1+bytes.Count(body[:at], []byte{'\n'}), body[at]).
		WithHint("save it as UTF-8")
}

func bodyError(err error, limit int64) error {
	var large *http.MaxBytesError
	var own *shoal.Error
	switch {
	case errors.As(err, &own):
		return own
	case errors.As(err, &large):
		return shoal.Errorf(shoal.KindInvalid, "the request is larger than %s", shoal.Bytes(limit)).WithHint("divide it")
	case strings.Contains(err.Error(), "timeout"):
		return shoal.Errorf(shoal.KindInvalid, "cannot read the request: it came too slowly").WithHint("divide it")
	}
	return shoal.Errorf(shoal.KindInvalid, "cannot read the request: %w", err)
}
