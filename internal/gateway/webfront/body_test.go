package webfront_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/shoal-pool/shoal/internal/gateway/webfront"
)

// TestBodyEndsWithAnswer: an answer that overtakes the news that the request is sent costs nobody the connection.
func TestBodyEndsWithAnswer(t *testing.T) {
	w := start(t, webfront.Config{})
	w.route("/", backend(t, echo("x")))
	for i := range 300 {
		sent := fmt.Sprint("body ", i)
		if _, got := w.send("POST", "/", io.MultiReader(strings.NewReader(sent))); got != "x POST / "+sent+" <nil>" {
			t.Fatalf("%d. got %q", i, got)
		}
	}
}

// TestEarlyAnswer: a server that refuses before it has read a large body is heard, and the next request is answered.
func TestEarlyAnswer(t *testing.T) {
	w := start(t, webfront.Config{})
	w.route("/", backend(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == "PUT" {
			w.Header().Set("Connection", "close")
			http.Error(w, "too large", http.StatusRequestEntityTooLarge)
		}
	}))
	for range 5 {
		r, _ := http.NewRequest("PUT", w.url+"/", io.LimitReader(zeros{}, 20<<20))
		res, err := w.client.Do(r)
		if err == nil { // it may be cut off while it still sends
			res.Body.Close()
			if res.StatusCode != http.StatusRequestEntityTooLarge && res.StatusCode != http.StatusServiceUnavailable {
				t.Errorf("%d", res.StatusCode)
			}
		}
		if res, _ := w.get("GET", "/"); res.StatusCode != 200 {
			t.Errorf("afterwards: %d", res.StatusCode)
		}
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { return len(b), nil }

// TestLarge passes much through in both directions, byte for byte.
func TestLarge(t *testing.T) {
	const size = 64 << 20
	w := start(t, webfront.Config{})
	w.route("/", backend(t, func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		w.Header().Set("X-Got", fmt.Sprint(n, err))
		_, _ = io.Copy(w, io.LimitReader(zeros{}, size))
	}))
	r, _ := http.NewRequest("POST", w.url+"/", io.LimitReader(zeros{}, size))
	r.ContentLength = size
	res, err := w.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	n, err := io.Copy(io.Discard, res.Body)
	if n != size || err != nil || res.Header.Get("X-Got") != fmt.Sprint(size, " <nil>") {
		t.Errorf("%d bytes, %v; the server got %s", n, err, res.Header.Get("X-Got"))
	}
}
