package client_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/client"
	"github.com/shoal-pool/shoal/internal/need"
)

func wantKind(t testing.TB, err error, kind shoal.Kind) {
	t.Helper()
	if err == nil || shoal.KindOf(err) != kind {
		t.Errorf("error %v, want one of kind %s", err, kind)
	}
}

func TestOptions(t *testing.T) {
	t.Parallel()
	for _, o := range []client.Options{{}, {Server: "localhost:7420"}, {Server: "ftp://x"}, {Server: "http://"}, {Server: "http://x/path"}, {Server: "http://u:p@x"},
		{Server: "http://x?y"}, {Server: "http://x", Socket: "/x"}, {Server: "http://\x00"}} {
		if _, err := client.New(o); shoal.KindOf(err) != shoal.KindInvalid || shoal.HintOf(err) == "" {
			t.Errorf("%+v: %v", o, err)
		}
	}
	for _, o := range []client.Options{{Server: "https://x"}, {Server: "http://x:1/"}, {Socket: "/x"}} {
		if _, err := client.New(o); err != nil {
			t.Errorf("%+v: %v", o, err)
		}
	}
}

// TestUnreachable: who cannot reach a server is told so at once, with what to do.
func TestUnreachable(t *testing.T) {
	t.Parallel()
	for _, o := range []client.Options{{Socket: filepath.Join(t.TempDir(), "none")}, {Server: "http://127.0.0.1:" + need.Port(t)}} {
		c, err := client.New(o)
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.Pools(t.Context())
		wantKind(t, err, shoal.KindUnavailable)
		if shoal.HintOf(err) == "" || !strings.Contains(err.Error(), o.Server+o.Socket) || strings.Contains(err.Error(), "Get \"") {
			t.Errorf("%v (%s)", err, shoal.HintOf(err))
		}
		_, err = c.WaitJob(t.Context(), "1")
		wantKind(t, err, shoal.KindUnavailable)
		_, err = c.Output(t.Context(), shoal.TaskRef{Job: "1"}, client.OutputQuery{Follow: true})
		wantKind(t, err, shoal.KindUnavailable)
		for _, err = range c.Events(t.Context(), time.Time{}, true) {
		}
		wantKind(t, err, shoal.KindUnavailable)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err = c.Pools(ctx)
		wantKind(t, err, shoal.KindCancelled)
	}
}

// answers is a server that gives one answer after the other; the last for ever.
type answers struct {
	asked atomic.Int64
	list  []func(http.ResponseWriter, *http.Request)
}

func (a *answers) RoundTrip(r *http.Request) (*http.Response, error) {
	n := int(a.asked.Add(1))
	w := httptest.NewRecorder()
	f := a.list[min(n, len(a.list))-1]
	if f == nil {
		return nil, errors.New("connection reset by peer")
	}
	f(w, r)
	return w.Result(), nil
}

func say(status int, body string) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		fmt.Fprint(w, body)
	}
}

func against(t *testing.T, list ...func(http.ResponseWriter, *http.Request)) (*client.Client, *answers) {
	t.Helper()
	a := &answers{list: list}
	c, err := client.New(client.Options{Server: "http://x", Token: " token\n", Transport: a})
	if err != nil {
		t.Fatal(err)
	}
	return c, a
}

// TestRetries: a break is gone over where nothing can happen twice, and only there.
func TestRetries(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ok := say(200, `{"items":[]}`)
		who := say(200, `{"user":"alice"}`)
		broken := say(502, "<html>")
		c, a := against(t, who, nil, broken, ok)
		_, _ = c.Whoami(t.Context())
		if _, err := c.Pools(t.Context()); err != nil || a.asked.Load() != 4 {
			t.Errorf("%v after %d requests", err, a.asked.Load())
		}
		c, a = against(t, who, nil, say(201, `{"id":"7"}`))
		_, _ = c.Whoami(t.Context())
		if j, err := c.Submit(t.Context(), shoal.JobSpec{}, "key"); err != nil || j.ID != "7" {
			t.Errorf("%v, %v", j, err)
		}
		for _, try := range []func(*client.Client) error{
			func(c *client.Client) error { _, err := c.Submit(t.Context(), shoal.JobSpec{}, ""); return err },
			func(c *client.Client) error { return c.DeletePool(t.Context(), "lab") },
			func(c *client.Client) error { _, err := c.Apply(t.Context(), api.ApplyRequest{}); return err },
		} {
			c, a = against(t, who, nil, ok)
			_, _ = c.Whoami(t.Context())
			wantKind(t, try(c), shoal.KindUnavailable)
			if n := a.asked.Load(); n != 2 {
				t.Errorf("a change was sent %d times", n-1)
			}
		}
		c, a = against(t, who, nil)
		_, _ = c.Whoami(t.Context())
		began := time.Now()
		_, err := c.Pools(t.Context())
		wantKind(t, err, shoal.KindUnavailable)
		if d := time.Since(began); d > 10*time.Second || a.asked.Load() > 15 {
			t.Errorf("it was tried for %v, %d times", d, a.asked.Load())
		}
		// A wait is more patient, and not for ever.
		began = time.Now()
		_, err = c.WaitJob(t.Context(), "1")
		wantKind(t, err, shoal.KindUnavailable)
		if d := time.Since(began); d < 50*time.Second || d > 70*time.Second {
			t.Errorf("a wait ends after %v", d)
		}
	})
}

// TestWaitDoesNotPress: a server that answers at once without an end is not asked all the time.
func TestWaitDoesNotPress(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, a := against(t, say(200, `{"job":{"id":"1","state":"running"}}`))
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err := c.WaitJob(ctx, "1")
		wantKind(t, err, shoal.KindCancelled)
		if n := a.asked.Load(); n > 61 {
			t.Errorf("%d requests in a minute", n)
		}
	})
}

// TestStrangeAnswers: what is no answer of Shoal's is an error that says so.
func TestStrangeAnswers(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		answer func(http.ResponseWriter, *http.Request)
		kind   shoal.Kind
	}{
		"html":          {say(200, "<html>"), shoal.KindInternal},
		"another shape": {say(200, `{"items":7}`), shoal.KindInternal},
		"html 404":      {say(404, "<html>"), shoal.KindNotFound},
		"html 500":      {say(500, "<html>"), shoal.KindInternal},
		"redirect": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "http://evil/")
			w.WriteHeader(302)
		}, shoal.KindInvalid},
		"teapot":       {say(418, ""), shoal.KindInvalid},
		"huge problem": {say(400, `{"kind":"invalid","detail":"`+strings.Repeat("x", 2<<20)+`"}`), shoal.KindInvalid},
	} {
		cl, a := against(t, c.answer)
		if _, err := cl.Pools(t.Context()); shoal.KindOf(err) != c.kind || len(err.Error()) > 1000 {
			t.Errorf("%s: %.200v", name, err)
		}
		if a.asked.Load() != 1 {
			t.Errorf("%s: asked %d times", name, a.asked.Load())
		}
	}
}

func TestProblem(t *testing.T) {
	t.Parallel()
	c, _ := against(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer token" {
			t.Errorf("Authorization %q", r.Header.Get("Authorization"))
		}
		say(409, `{"type":"about:blank","status":409,"kind":"conflict","detail":"no","hint":"wait","mistakes":[{"path":"a","msg":"b"}]}`)(w, r)
	})
	_, err := c.Pools(t.Context())
	e, ok := errors.AsType[*shoal.Error](err)
	if !ok || e.Kind != shoal.KindConflict || e.Msg != "no" || e.Hint != "wait" || len(e.Mistakes) != 1 {
		t.Errorf("%#v", err)
	}
}

// TestLimits: lists stop where they are told, whatever the server puts on a page.
func TestLimits(t *testing.T) {
	t.Parallel()
	page := func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, `{"items":[{"id":"1"},{"id":"2"}],"next":"%sx"}`, r.URL.Query().Get("cursor"))
	}
	c, a := against(t, page)
	if jobs, err := c.Jobs(t.Context(), client.JobQuery{Limit: 3}); err != nil || len(jobs) < 3 || a.asked.Load() != 2 {
		t.Errorf("%d jobs, %v", len(jobs), err)
	}
	c, a = against(t, say(200, `{"items":[{"id":"1"}],"next":"same"}`))
	if jobs, err := c.Jobs(t.Context(), client.JobQuery{}); err != nil || len(jobs) != 2 || a.asked.Load() != 2 {
		t.Errorf("a cursor that stays: %d jobs, %v", len(jobs), err)
	}
}

// TestOutputGoesOn: what broke is opened again where it broke, and an end is an end.
func TestOutputGoesOn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const text = "0123456789abcdef"
		var offsets []string
		n := 0
		c, err := client.New(client.Options{Server: "http://x", Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
			offset := 0
			if s := r.URL.Query().Get("offset"); s != "" {
				fmt.Sscan(s, &offset)
			}
			offsets = append(offsets, fmt.Sprint(offset))
			n++
			if n == 3 {
				return nil, errors.New("refused")
			}
			// Cut after some bytes: in the middle of a line, of data, of a gap's line, and cleanly by a proxy.
			all := "beat\n"
			if offset < 10 {
				all += fmt.Sprintf("data %d %d\n%sbeat\n", offset, 10-offset, text[offset:10])
			}
			if at := max(offset, 10); at <= 16 {
				all += fmt.Sprintf("data %d %d\n%sgap 16 1000\n", at, 16-at, text[at:])
			}
			at := max(offset, 1016)
			all += fmt.Sprintf("data %d %d\n%send 1020\n", at, 1020-at, "tail"[at-1016:])
			end := []error{io.ErrUnexpectedEOF, io.EOF}[n%2]
			return &http.Response{StatusCode: 200, Body: io.NopCloser(&breaks{text: all, after: 7 * n, end: end})}, nil
		})})
		if err != nil {
			t.Fatal(err)
		}
		r, err := c.Output(t.Context(), shoal.TaskRef{Job: "1", Index: -1}, client.OutputQuery{Follow: true})
		if err != nil {
			t.Fatal(err)
		}
		want := text + string(api.OutputNotice(1000)) + "tail"
		if got, err := io.ReadAll(r); err != nil || string(got) != want || r.Offset() != 1020 {
			t.Errorf("%q, %v, by %v, to %d", got, err, offsets, r.Offset())
		}
	})
}

// TestOutputDied: a connection that says nothing, not even that there is nothing, is opened again.
func TestOutputDied(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := 0
		c, err := client.New(client.Options{Server: "http://x", Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
			in, out := io.Pipe()
			context.AfterFunc(r.Context(), func() { out.CloseWithError(context.Cause(r.Context())) })
			n++
			go func() {
				if n == 1 {
					fmt.Fprint(out, "data 0 5\nhel")
					return // and never more
				}
				time.Sleep(30 * time.Second)
				fmt.Fprint(out, "beat\n")
				time.Sleep(30 * time.Second)
				fmt.Fprint(out, "data 3 2\nloend 5\n")
			}()
			return &http.Response{StatusCode: 200, Body: in}, nil
		})})
		if err != nil {
			t.Fatal(err)
		}
		r, err := c.Output(t.Context(), shoal.TaskRef{Job: "1", Index: -1}, client.OutputQuery{Follow: true})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		if got, err := io.ReadAll(r); err != nil || string(got) != "hello" || n != 2 {
			t.Errorf("%q, %v, after %d connections", got, err, n)
		}
	})
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// breaks gives a few bytes and then an error.
type breaks struct {
	text  string
	after int
	end   error
}

func (b *breaks) Read(p []byte) (int, error) {
	n := copy(p, b.text[:min(b.after, len(b.text))])
	b.text, b.after = b.text[n:], b.after-n
	if n == 0 {
		return 0, b.end
	}
	return n, nil
}
