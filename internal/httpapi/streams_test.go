package httpapi_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/store"
	"github.com/shoal-pool/shoal/internal/store/storetest"
)

// recorder is an answer that can be looked at while it grows.
type recorder struct {
	lockedBuffer
	header http.Header
}

func (r *recorder) Header() http.Header { return r.header }
func (r *recorder) WriteHeader(int)     {}
func (r *recorder) FlushError() error   { return nil }

// open asks for a stream and tells, once it has ended, whether it was torn down.
func open(t *testing.T, h http.Handler, path string, header map[string]string) (*recorder, chan bool) {
	r := httptest.NewRequestWithContext(t.Context(), "GET", path, nil)
	for k, v := range header {
		r.Header.Set(k, v)
	}
	w := &recorder{header: http.Header{}}
	torn := make(chan bool, 1)
	go func() {
		defer func() { torn <- recover() == http.ErrAbortHandler }()
		h.ServeHTTP(w, r)
	}()
	return w, torn
}

// TestRightsEnd: a stream ends soon after its owner has lost the right to it.
func TestRightsEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		job := string(w.job("", false))
		output := "/api/v1/jobs/" + job + "/tasks/0/output?follow=true"
		_, events := open(t, w.api.Control(), "/api/v1/events", bearer(w.tokens["alice"]))
		_, lines := open(t, w.api.Control(), output, bearer(w.tokens["alice"]))
		_, others := open(t, w.api.Control(), "/api/v1/events", bearer(w.tokens["carol"]))
		relayed := map[string]string{"Authorization": "Bearer " + w.mtoken, api.UserHeader: "bob"}
		_, through := open(t, w.api.Agent(), "/agent/v1/user/api/v1/events", relayed)
		time.Sleep(10 * time.Minute)
		for name, ch := range map[string]chan bool{"events": events, "output": lines, "others'": others, "relayed": through} {
			select {
			case <-ch:
				t.Errorf("%s ended by itself", name)
			default:
			}
		}
		storetest.Update(t, w.db, func(tx *store.Tx) error {
			u, err := tx.Users().Get("alice")
			if err != nil {
				return err
			}
			u.Disabled = true
			s, err := tx.Sessions().Get("s-bob")
			if err != nil {
				return err
			}
			s.State = shoal.SessionEnded
			if err := put(tx.Sessions().Put, s); err != nil {
				return err
			}
			return put(tx.Users().Put, u)
		})
		time.Sleep(time.Minute)
		for name, ch := range map[string]chan bool{"events": events, "output": lines, "relayed": through} {
			select {
			case torn := <-ch:
				if !torn {
					t.Errorf("%s ended as if it were complete", name)
				}
			default:
				t.Errorf("%s goes on", name)
			}
		}
		select {
		case <-others:
			t.Error("carol's ended, too")
		default:
		}
	})
}

// TestQuietStream: a stream on which nothing happens says seldom that it is there.
func TestQuietStream(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		r, _ := open(t, w.api.Control(), "/api/v1/events?since="+time.Now().Add(time.Hour).UTC().Format(time.RFC3339), bearer(w.tokens["carol"]))
		time.Sleep(time.Second)
		synctest.Wait()
		if r.header.Get("Content-Type") != "text/event-stream" {
			t.Error("the header was not sent")
		}
		time.Sleep(time.Hour)
		if n := strings.Count(r.String(), ": still here"); n < 100 || n > 130 {
			t.Errorf("%d beats in an hour", n)
		}
	})
}

// TestWaitAnswers: a wait for a job that goes on is answered before proxies lose patience.
func TestWaitAnswers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		job := string(w.job("", false))
		began := time.Now()
		r, torn := open(t, w.api.Control(), "/api/v1/jobs/"+job+"/wait", bearer(w.tokens["alice"]))
		if <-torn || time.Since(began) != 50*time.Second || !strings.Contains(r.String(), `"state":"running"`) {
			t.Errorf("after %v: %s", time.Since(began), r.String())
		}
	})
}

// TestShutdown: when the server ends, streams are torn down and none reads as complete.
func TestShutdown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		job := string(w.job("", false))
		ctx, cancel := context.WithCancel(t.Context())
		for _, path := range []string{"/api/v1/events", "/api/v1/jobs/" + job + "/tasks/0/output?follow=true"} {
			r := httptest.NewRequestWithContext(ctx, "GET", path, nil)
			torn := make(chan bool, 1)
			go func() {
				defer func() { torn <- recover() == http.ErrAbortHandler }()
				w.api.Local().ServeHTTP(&recorder{header: http.Header{}}, r)
			}()
			time.Sleep(time.Second)
			defer func() {
				if !<-torn {
					t.Errorf("%s ended as if it were complete", path)
				}
			}()
		}
		cancel()
	})
}
