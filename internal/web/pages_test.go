package web_test

import (
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/store"
	"github.com/shoal-pool/shoal/internal/store/storetest"
)

// TestHeaders: what every answer below /shoal/ carries, whatever it is.
func TestHeaders(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	b := w.as("alice")
	nobody := w.browser()
	for _, a := range []answer{
		b.get("/shoal/"), b.get("/shoal/nothing"), nobody.get("/shoal/login"), nobody.get("/shoal/link"), nobody.get("/shoal/"), b.get("/shoal/start/lab/code"),
		b.get("/shoal/start/none/code"), b.get("/shoal/authorize"), b.post("/shoal/end/x", nil), nobody.login("alice", "wrong", ""), b.get(firstOf(b.get("/shoal/").body, `href="([^"]+\.css)"`)),
	} {
		h := a.Header
		policy := h.Get("Content-Security-Policy")
		for _, part := range []string{"default-src 'none'", "script-src 'self'", "style-src 'self'", "base-uri 'none'", "frame-ancestors 'none'", "form-action 'self'"} {
			if !strings.Contains(policy, part) {
				t.Errorf("%s: the policy lacks %s: %s", a.Request.URL.Path, part, policy)
			}
		}
		if strings.Contains(policy, "unsafe") || h.Get("X-Content-Type-Options") != "nosniff" || h.Get("X-Frame-Options") != "DENY" || h.Get("Referrer-Policy") != "same-origin" ||
			h.Get("Cross-Origin-Opener-Policy") != "same-origin" {
			t.Errorf("%s: %v", a.Request.URL.Path, h)
		}
		if strings.Contains(h.Get("Content-Type"), "html") && h.Get("Cache-Control") != "no-store" {
			t.Errorf("%s may be kept: %v", a.Request.URL.Path, h)
		}
	}
}

func firstOf(text, pattern string) string {
	m := regexp.MustCompile(pattern).FindStringSubmatch(text)
	if m == nil {
		return ""
	}
	return m[1]
}

// TestStatic: files whose address names their content are kept for ever, others are not there.
func TestStatic(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	b := w.browser()
	page := b.get("/shoal/login").body
	for pattern, media := range map[string]string{`href="([^"]+\.css)"`: "text/css", `src="([^"]+\.js)"`: "javascript", `src="([^"]+\.svg)"`: "image/svg+xml"} {
		a := b.get(firstOf(page, pattern))
		want(t, pattern, a, http.StatusOK)
		if !strings.Contains(a.Header.Get("Content-Type"), media) || !strings.Contains(a.Header.Get("Cache-Control"), "immutable") || a.body == "" {
			t.Errorf("%s: %v", pattern, a.Header)
		}
	}
	a := b.get("/shoal/static/0/shoal.css")
	if a.StatusCode != http.StatusOK || strings.Contains(a.Header.Get("Cache-Control"), "immutable") {
		t.Errorf("of another version: %d %v", a.StatusCode, a.Header)
	}
	for _, path := range []string{"/shoal/static/0/web.go", "/shoal/static/0/..%2Fweb.go", "/shoal/static/", "/shoal/static/0/"} {
		want(t, path, b.get(path), http.StatusNotFound)
	}
}

// TestPlain: pages have no script or style within them, every field has its label, and what people write is text.
func TestPlain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const evil = `<img src=x onerror=alert(1)>"'`
	storetest.Update(t, w.db, func(tx *store.Tx) error {
		_, err := tx.Sessions().Put(shoal.Session{ID: "s-1", User: "alice", Pool: "lab", Machine: "m-1", State: shoal.SessionActive, Reason: evil,
			Parts: []shoal.Part{{ID: "1", Kind: evil, Source: evil}}, Pins: []shoal.Pin{{Kind: evil, Count: 2}}})
		return err
	})
	b := w.as("alice")
	if _, err := w.apps.Open(t.Context(), "alice", "lab", "code", ""); err != nil {
		t.Fatal(err)
	}
	w.apps.set(func(a *shoal.App) { a.Progress = evil })
	pages := map[string]string{"home": b.get("/shoal/").body, "start": b.get("/shoal/start/lab/code").body, "login": w.browser().get("/shoal/login?next=" + url.QueryEscape("/"+evil)).body,
		"link": w.browser().get("/shoal/link").body}
	w.apps.set(func(a *shoal.App) { a.State, a.Reason, a.Log = shoal.AppFailed, evil, evil })
	pages["failed"] = b.get("/shoal/start/lab/code").body
	pages["home failed"] = b.get("/shoal/").body
	for name, page := range pages {
		if strings.Contains(page, "<img src=x") || strings.Contains(page, "ZgotmplZ") {
			t.Errorf("%s has what somebody wrote as HTML:\n%s", name, page)
		}
		for _, inline := range []string{"style=", "onclick=", "<style", "javascript:"} {
			if strings.Contains(page, inline) {
				t.Errorf("%s has %s, which the policy forbids", name, inline)
			}
		}
		if strings.Count(page, "<script ") != 1 || !strings.Contains(page, `<html lang="en">`) || !strings.Contains(page, "<title>") || strings.Count(page, "<h1") != 1 {
			t.Errorf("%s:\n%s", name, page)
		}
		for _, m := range regexp.MustCompile(`<input id="([^"]+)"`).FindAllStringSubmatch(page, -1) {
			if !strings.Contains(page, `<label for="`+m[1]+`"`) {
				t.Errorf("%s: field %s has no label", name, m[1])
			}
		}
	}
}

func TestHome(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	now := time.Now()
	storetest.Update(t, w.db, func(tx *store.Tx) error {
		_, err1 := tx.Sessions().Put(shoal.Session{ID: "s-1", User: "alice", Pool: "lab", Machine: "m-1", State: shoal.SessionActive,
			Parts: []shoal.Part{{ID: "1", Kind: "ssh", Source: "192.0.2.1:999", Since: now.Add(-2 * time.Hour)}}})
		_, err2 := tx.Sessions().Put(shoal.Session{ID: "s-2", User: "bob", Pool: "lab", Machine: "m-7", State: shoal.SessionActive})
		_, err3 := tx.Machines().Put(shoal.Machine{ID: "m-1", Pool: "lab", State: shoal.MachineReady})
		_, err4 := tx.Pools().Put(shoal.Pool{Name: "farm", Provider: "fake", Image: "host", Uses: []shoal.Use{shoal.UseBatch}})
		return errors.Join(err1, err2, err3, err4)
	})
	b := w.as("alice")
	page := b.get("/shoal/").body
	for _, part := range []string{"ssh -p 2222 alice@127.0.0.1", "1 machine is ready.", "why s-1", "192.0.2.1:999", "2 hours ago", "a connection (ssh) from &lt;here&gt;",
		`action="/shoal/start/lab/code"`, `href="/hub/spawn?pool=lab"`, "127.0.0.1:3389", "as alice with your password.", `action="/shoal/end/s-1"`} {
		if !strings.Contains(page, part) {
			t.Errorf("the page lacks %q:\n%s", part, page)
		}
	}
	for _, part := range []string{"m-7", "s-2", "farm"} {
		if strings.Contains(page, part) {
			t.Errorf("the page has %q", part)
		}
	}
	csrf := url.Values{"csrf": {b.csrf()}}
	a := b.post("/shoal/start/lab/code", csrf)
	want(t, "start", a, http.StatusSeeOther)
	if a.location() != "/shoal/start/lab/code" {
		t.Errorf("it leads to %s", a.location())
	}
	if page = b.get("/shoal/").body; !strings.Contains(page, `href="/shoal/start/lab/code"`) || !strings.Contains(page, "waiting") || !strings.Contains(page, "No machine is ready; one is starting.") {
		t.Errorf("while it waits:\n%s", page)
	}
	w.apps.set(func(a *shoal.App) { a.State, a.Machine = shoal.AppRunning, "m-1" })
	if page = b.get("/shoal/").body; !strings.Contains(page, `href="/shoal/app/lab/code/"`) || !strings.Contains(page, `action="/shoal/stop/a-000000"`) {
		t.Errorf("while it runs:\n%s", page)
	}
	w.apps.set(func(a *shoal.App) { a.Unknown = true })
	if page = b.get("/shoal/").body; !strings.Contains(page, "Machine m-1 does not answer now") {
		t.Errorf("while it is unknown:\n%s", page)
	}
	want(t, "stop", b.post("/shoal/stop/a-000000", csrf), http.StatusSeeOther)
	w.apps.set(func(a *shoal.App) { a.State, a.Reason, a.Unknown = shoal.AppFailed, "machine m-1 is gone", false })
	if page = b.get("/shoal/").body; !strings.Contains(page, "Machine m-1 is gone.") || !strings.Contains(page, `action="/shoal/start/lab/code"`) {
		t.Errorf("once it failed:\n%s", page)
	}
}

// TestHomeAsThingsStand: an address is shown only while the gateway listens there, and no machine is promised that may not start.
func TestHomeAsThingsStand(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	storetest.Update(t, w.db, func(tx *store.Tx) error {
		p, err := tx.Pools().Get("lab")
		if err != nil {
			return err
		}
		p.Endpoints = append(p.Endpoints, shoal.Endpoint{Name: "licence", Protocol: shoal.ProtocolTCP, Port: 27000, Listen: 27000})
		_, err = tx.Pools().Put(p)
		return err
	})
	b := w.as("alice")
	if page := b.get("/shoal/").body; !strings.Contains(page, "One starts when you need it.") || strings.Count(page, "127.0.0.1:3389") != 2 {
		t.Errorf("as it should be:\n%s", page)
	}
	w.shut = "port 3389 of the gateway cannot be had: <in use>"
	page := b.get("/shoal/").body
	if strings.Contains(page, "127.0.0.1:3389") || strings.Contains(page, ":27000") || strings.Contains(page, "/shoal/desktop/") || strings.Count(page, "It cannot be reached: port 3389 of the gateway cannot be had: &lt;in use&gt;.") != 2 {
		t.Errorf("while another process has the port:\n%s", page)
	}
	storetest.Update(t, w.db, func(tx *store.Tx) error {
		p, err := tx.Pools().Get("lab")
		if err != nil {
			return err
		}
		p.Size.Max = 0
		_, err = tx.Pools().Put(p)
		return err
	})
	if page := b.get("/shoal/").body; strings.Contains(page, "One starts") || !strings.Contains(page, "none may be started: the pool&#39;s size.max is 0.") {
		t.Errorf("a pool of no machines:\n%s", page)
	}
}

// TestDesktopPassword: who has no password gets one that is good once, by a form of hers and nothing else.
func TestDesktopPassword(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	b := w.as("alice")
	if page := b.get("/shoal/").body; strings.Contains(page, "/shoal/desktop/") {
		t.Errorf("she has a password:\n%s", page)
	}
	keyed := w.browser()
	want(t, "the link", keyed.post("/shoal/link", url.Values{"token": {keyed.token("/shoal/link")}, "code": {w.linkFor("keyed")}}), http.StatusSeeOther)
	page := keyed.get("/shoal/").body
	if !strings.Contains(page, `action="/shoal/desktop/lab/desktop"`) || !strings.Contains(page, "as keyed with a password that is good once, which the button gives.") {
		t.Errorf("she has none:\n%s", page)
	}
	const path = "/shoal/desktop/lab/desktop"
	for what, a := range map[string]answer{"without the token": keyed.post(path, nil), "with another's token": keyed.post(path, url.Values{"csrf": {b.csrf()}}),
		"from another site": keyed.post(path, url.Values{"csrf": {keyed.csrf()}}, "Sec-Fetch-Site", "cross-site", "Origin", "https://evil.example")} {
		want(t, what, a, http.StatusForbidden)
		if strings.Contains(a.body, "good-once") {
			t.Errorf("%s: %s", what, a.body)
		}
	}
	if a := keyed.get(path); a.StatusCode != http.StatusSeeOther || strings.Contains(a.body, "good-once") {
		t.Errorf("by a link: %d %s", a.StatusCode, a.body)
	}
	a := keyed.post(path, url.Values{"csrf": {keyed.csrf()}, "from": {"198.51.100.1"}})
	want(t, "the form", a, http.StatusOK)
	for _, part := range []string{"127.0.0.1:3389", "<code>keyed</code>", "<code>good-once</code>", "for 10 minutes", "<td>127.0.0.1</td>", "xfreerdp /v:127.0.0.1:3389 /u:keyed", "aa:bb"} {
		if !strings.Contains(a.body, part) {
			t.Errorf("the page lacks %q:\n%s", part, a.body)
		}
	}
	if a.Header.Get("Cache-Control") != "no-store" || strings.Contains(a.body, "198.51.100.1") || strings.Contains(w.log.String(), "good-once") {
		t.Errorf("%v\n%s", a.Header, a.body)
	}
	w.shut = "port 3389 of the gateway cannot be had: in use"
	a = keyed.post(path, url.Values{"csrf": {keyed.csrf()}})
	want(t, "while another process has the port", a, http.StatusConflict)
	if !strings.Contains(a.body, "cannot be had: in use") || strings.Contains(a.body, "good-once") {
		t.Errorf("%s", a.body)
	}
}

// TestStart goes with an app from a start to its end, as a person and as a program.
func TestStart(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	now := time.Now()
	storetest.Update(t, w.db, func(tx *store.Tx) error {
		for i, took := range []time.Duration{9 * time.Second, 12 * time.Second, time.Hour} {
			m := shoal.Machine{ID: shoal.MachineID("m-" + string(rune('a'+i))), Pool: "lab", State: shoal.MachineGone, Started: now, ReadyAt: now.Add(took)}
			if _, err := tx.Machines().Put(m); err != nil {
				return err
			}
		}
		return nil
	})
	b := w.as("alice")
	asProgram := []string{"Accept", "application/json"}
	status := func(path string, status int) (s api.AppStart) {
		t.Helper()
		a := b.get(path, asProgram...)
		want(t, path, a, status)
		_ = json.Unmarshal([]byte(a.body), &s)
		if status == http.StatusAccepted && (a.location() == "" || a.Header.Get("Retry-After") == "") {
			t.Errorf("%v", a.Header)
		}
		return s
	}
	const path = "/shoal/start/lab/code"
	next := path + "?next=" + url.QueryEscape("/shoal/app/lab/code/x?y=1")
	status(path, http.StatusNotFound)
	a := b.get(next)
	want(t, "not started", a, http.StatusOK)
	if !strings.Contains(a.body, "has not been started") || !strings.Contains(a.body, `action="`+next+`"`) {
		t.Errorf("not started:\n%s", a.body)
	}
	a = b.post(next, url.Values{"csrf": {b.csrf()}})
	want(t, "start", a, http.StatusSeeOther)
	if a.location() != next {
		t.Errorf("it leads to %s", a.location())
	}
	want(t, "started again", b.post(next, url.Values{"csrf": {b.csrf()}}), http.StatusSeeOther)
	if len(w.apps.all) != 1 {
		t.Errorf("%d apps", len(w.apps.all))
	}
	a = b.get(next)
	want(t, "waiting", a, http.StatusOK)
	for _, part := range []string{`<noscript><meta http-equiv="refresh" content="3"></noscript>`, "No machine is ready; one is starting.", "usually ready in 13 seconds", `max="13"`, "<progress"} {
		if !strings.Contains(a.body, part) {
			t.Errorf("the page lacks %q:\n%s", part, a.body)
		}
	}
	s := status(path, http.StatusAccepted)
	if s.State != shoal.AppWaiting || s.Expected != 13 || s.Rev != 1 || s.Location != "" {
		t.Errorf("%+v", s)
	}
	var waits sync.WaitGroup
	waits.Go(func() {
		if s := status(path+"?rev=1", http.StatusAccepted); s.State != shoal.AppStarting || s.Rev != 2 || !strings.Contains(s.Sentence, "m-1") {
			t.Errorf("%+v", s)
		}
	})
	w.apps.set(func(a *shoal.App) { a.State, a.Machine, a.Progress = shoal.AppStarting, "m-1", "" })
	waits.Wait()
	w.apps.set(func(a *shoal.App) { a.State, a.Address = shoal.AppRunning, "10.0.0.1:61000" })
	if s := status(path+"?rev=2", http.StatusOK); s.Location != "/shoal/app/lab/code/" {
		t.Errorf("%+v", s)
	}
	if a := b.get(next); a.StatusCode != http.StatusSeeOther || a.location() != "/shoal/app/lab/code/x?y=1" {
		t.Errorf("running: %d %s", a.StatusCode, a.location())
	}
	for _, elsewhere := range []string{"/hub/", "//evil.example", "/shoal/app/lab/code", "/shoal/app/lab/other/", "/shoal/app/lab/code/../../../hub"} {
		a := b.get(path + "?next=" + url.QueryEscape(elsewhere))
		if u, _ := url.Parse(a.location()); u.Path != "/shoal/app/lab/code/" && !strings.HasPrefix(u.Path, "/shoal/app/lab/code/") {
			t.Errorf("%s leads to %s", elsewhere, a.location())
		}
	}
	w.apps.set(func(a *shoal.App) { a.Unknown = true })
	if s := status(path, http.StatusAccepted); !strings.Contains(s.Sentence, "does not answer") {
		t.Errorf("%+v", s)
	}
	if a := b.get(path); !strings.Contains(a.body, "Machine m-1 does not answer now") {
		t.Errorf("unknown:\n%s", a.body)
	}
	w.apps.set(func(a *shoal.App) {
		a.Unknown, a.State, a.Reason, a.Log, a.Ended = false, shoal.AppFailed, "machine m-1 is gone: its agent was not heard for 5m", "last words", time.Now().Add(-time.Minute)
	})
	status(path, http.StatusConflict)
	a = b.get(path)
	want(t, "failed", a, http.StatusOK)
	for _, part := range []string{"code could not go on", "Machine m-1 is gone: its agent was not heard for 5m.", "That was 1 minute ago.", "last words", `action="` + path + `"`} {
		if !strings.Contains(a.body, part) {
			t.Errorf("the page lacks %q:\n%s", part, a.body)
		}
	}
	want(t, "start again", b.post(path, url.Values{"csrf": {b.csrf()}}), http.StatusSeeOther)
	if len(w.apps.all) != 2 {
		t.Errorf("%d apps", len(w.apps.all))
	}
	if a := b.get(path); !strings.Contains(a.body, "The one before could not go on.</strong> Machine m-1 is gone: its agent was not heard for 5m.") {
		t.Errorf("what became of the one before is not told:\n%s", a.body)
	}
	// Another's app is another's.
	if a := w.as("bob").get(path); !strings.Contains(a.body, "has not been started") {
		t.Errorf("bob sees:\n%s", a.body)
	}
	for _, path := range []string{"/shoal/start/none/code", "/shoal/start/lab/none", "/shoal/start/lab/desktop", "/shoal/start/lab/%2e%2e", "/shoal/start/lab/" + strings.Repeat("x", 2000)} {
		want(t, path, b.get(path), http.StatusNotFound)
		want(t, path, b.post(path, url.Values{"csrf": {b.csrf()}}), http.StatusNotFound)
	}
	if a := b.post("/shoal/start/lab/jupyter", url.Values{"csrf": {b.csrf()}}); a.location() != "/hub/spawn?pool=lab" {
		t.Errorf("notebooks: %d %s", a.StatusCode, a.location())
	}
	want(t, "a program of nobody's", w.browser().get(path, asProgram...), http.StatusUnauthorized)
	want(t, "a program with a token", w.bearer(w.token("alice"), "GET", path, ""), http.StatusAccepted)
	want(t, "a program with another's token", w.bearer(w.token("bob"), "GET", path, ""), http.StatusNotFound)
	want(t, "a program with a wrong token", w.bearer("x", "GET", path, ""), http.StatusUnauthorized)
	want(t, "starting with a token", w.bearer(w.token("alice"), "POST", path, ""), http.StatusUnauthorized)
}

// TestMessages: what goes wrong reads well for people and for programs.
func TestMessages(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	b := w.as("alice")
	a := b.get("/shoal/nothing/here")
	want(t, "nothing", a, 404)
	if !strings.Contains(a.body, "There is nothing here") || !strings.Contains(a.body, `href="/shoal/"`) {
		t.Errorf("%s", a.body)
	}
	a = b.get("/shoal/nothing/here", "Accept", "*/*")
	var p api.Problem
	if err := json.Unmarshal([]byte(a.body), &p); err != nil || p.Kind != shoal.KindNotFound || p.Status != 404 || a.Header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("%v %s", err, a.body)
	}
}

// TestContrast: text stands out from what is behind it as WCAG 2 asks (AA, 4.5 to 1), by day and by night.
func TestContrast(t *testing.T) {
	t.Parallel()
	css, err := os.ReadFile("static/shoal.css")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile(`(?s):root \{(.*?)\}`).FindAllStringSubmatch(string(css), -1)
	if len(blocks) != 2 {
		t.Fatalf("%d sets of colours, want 2", len(blocks))
	}
	for _, block := range blocks {
		colours := map[string]float64{}
		for _, m := range regexp.MustCompile(`--([a-z-]+): #([0-9a-f]{6});`).FindAllStringSubmatch(block[1], -1) {
			colours[m[1]] = luminance(t, m[2])
		}
		for _, pair := range [][2]string{{"text", "ground"}, {"text", "card"}, {"text", "code"}, {"soft", "ground"}, {"soft", "card"}, {"accent", "card"}, {"accent", "ground"},
			{"on-accent", "accent"}, {"good", "good-bg"}, {"busy", "busy-bg"}, {"bad", "bad-bg"}} {
			a, b := colours[pair[0]], colours[pair[1]]
			if ratio := (max(a, b) + 0.05) / (min(a, b) + 0.05); ratio < 4.5 {
				t.Errorf("%s on %s: %.1f to 1", pair[0], pair[1], ratio)
			}
		}
	}
}

// luminance is WCAG's relative luminance of a colour.
func luminance(t *testing.T, hex string) float64 {
	t.Helper()
	n, err := strconv.ParseUint(hex, 16, 32)
	if err != nil {
		t.Fatal(err)
	}
	linear := func(c uint64) float64 {
		if v := float64(c&255) / 255; v > 0.04045 {
			return math.Pow((v+0.055)/1.055, 2.4)
		} else {
			return v / 12.92
		}
	}
	return 0.2126*linear(n>>16) + 0.7152*linear(n>>8) + 0.0722*linear(n)
}
