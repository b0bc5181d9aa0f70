package app_test

import (
	"bufio"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/app"
)

// A server that may not lead any more ends the streams of agents on other hosts, gives them no answer, and closes their connections. Those
// on its own host stay until they know of another.
func TestAgentsLeave(t *testing.T) {
	t.Parallel()
	var unsure atomic.Bool
	beats := map[bool]chan bool{true: make(chan bool, 2), false: make(chan bool, 2)} // by whether TLS is spoken
	h := app.LedBy(7, func() error {
		if unsure.Load() {
			return errors.New("another server may lead")
		}
		return nil
	}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for range beats[r.TLS != nil] {
			if _, err := w.Write([]byte("\n")); err != nil {
				return
			}
			if err := http.NewResponseController(w).Flush(); err != nil {
				t.Error(err)
			}
		}
	}))
	far, near := httptest.NewTLSServer(h), httptest.NewServer(h)
	defer far.Close()
	defer near.Close()
	get := func(s *httptest.Server, known string) *http.Response {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set(api.LeadHeader, known)
		res, err := s.Client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		return res
	}
	streams := map[*httptest.Server]*bufio.Reader{}
	for _, s := range []*httptest.Server{far, near} {
		beats[s == far] <- true
		res := get(s, "7")
		defer res.Body.Close()
		streams[s] = bufio.NewReader(res.Body)
		if b, err := streams[s].ReadByte(); b != '\n' || err != nil || res.Header.Get(api.LeadHeader) != "7" {
			t.Fatal(b, err, res.Header)
		}
	}
	unsure.Store(true)
	beats[true] <- true
	beats[false] <- true
	if b, err := streams[near].ReadByte(); b != '\n' || err != nil {
		t.Errorf("on its own host: %v %v", b, err)
	}
	if _, err := streams[far].ReadByte(); !errors.Is(err, io.EOF) {
		t.Errorf("on another: %v", err)
	}
	for s, known := range map[*httptest.Server]string{far: "7", near: "8"} {
		res := get(s, known)
		res.Body.Close()
		if res.StatusCode != http.StatusServiceUnavailable || !res.Close {
			t.Errorf("it answers %s, and may be asked again: %v", res.Status, !res.Close)
		}
	}
	close(beats[false])
}

// The number in a lock file is believed only of who has the file: it may have become another process's.
func TestHolds(t *testing.T) {
	lock, err := os.Create(filepath.Join(t.TempDir(), "serve.lock"))
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	for _, has := range []bool{true, false} {
		other := exec.Command("sleep", "1000")
		if has {
			other.ExtraFiles = []*os.File{lock}
		}
		if err := other.Start(); err != nil {
			t.Fatal(err)
		}
		if app.Holds(other.Process.Pid, lock) != has {
			t.Errorf("who has it (%t) is not told from who has not", has)
		}
		if err := other.Process.Kill(); err != nil {
			t.Error(err)
		}
		_ = other.Wait() // killed
	}
}
