package web_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/store"
	"github.com/shoal-pool/shoal/internal/store/storetest"
	"github.com/shoal-pool/shoal/internal/web"
)

var valueOf = regexp.MustCompile(`value="[^"]*"|( autofocus)`)

// TestAPIByCookie: the cookie alone is not enough, and another site's page gets nowhere.
func TestAPIByCookie(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	b := w.as("alice")
	other := w.as("bob")
	for _, c := range []struct {
		name   string
		header []string
		get    int
		post   int
	}{
		{"a page of ours", nil, 200, 200},
		{"no token", []string{web.CSRFHeader, ""}, 403, 403},
		{"another's token", []string{web.CSRFHeader, other.csrf()}, 403, 403},
		{"another site", []string{"Origin", "https://evil.example", "Sec-Fetch-Site", "cross-site"}, 403, 403},
		{"same site, other origin", []string{"Origin", "https://127.0.0.1:1", "Sec-Fetch-Site", "same-site"}, 403, 403},
		{"another site that lies about fetch metadata", []string{"Origin", "https://evil.example"}, 403, 403},
		{"no origin at all", []string{"Origin", "", "Sec-Fetch-Site", ""}, 200, 403},
		{"null origin", []string{"Origin", "null", "Sec-Fetch-Site", ""}, 403, 403},
	} {
		want(t, c.name+", GET", b.call("GET", "/api/v1/whoami", "", c.header...), c.get)
		want(t, c.name+", POST", b.call("POST", "/api/v1/web/step-up", `{"method":"GET","path":"/api/v1/users"}`, c.header...), c.post)
	}
	a := b.call("GET", "/api/v1/whoami", "")
	if !strings.Contains(a.body, `"alice"`) {
		t.Errorf("who: %s", a.body)
	}
	want(t, "no cookie", w.browser().call("GET", "/api/v1/whoami", ""), 401)
	want(t, "a bearer token and no cookie", w.bearer(w.token("alice"), "GET", "/api/v1/whoami", ""), 200)
	want(t, "a wrong bearer token and a cookie", b.call("GET", "/api/v1/whoami", "", "Authorization", "Bearer x"), 401)
}

// TestStepUp: an admin's cookie does what a member may, and more only for the very request she confirmed.
func TestStepUp(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	b := w.as("ada")
	const user = `{"name":"eve","role":"admin"}`
	want(t, "adding a user by cookie", b.call("POST", "/api/v1/users", user), 403)
	want(t, "disabling by cookie", b.call("POST", "/api/v1/users/alice/disable", ""), 404)
	want(t, "her own password by cookie", b.call("PUT", "/api/v1/users/ada/password", `{"password":"a new password"}`), 403)
	want(t, "acting as another by cookie", b.call("GET", "/api/v1/whoami", "", api.AsHeader, "alice"), 404)

	stepUp := func(b *browser, body string) (api.StepUp, int) {
		t.Helper()
		a := b.call("POST", "/api/v1/web/step-up", body)
		var s api.StepUp
		_ = json.Unmarshal([]byte(a.body), &s)
		return s, a.StatusCode
	}
	for _, bad := range []string{`{}`, `{"method":"POST"}`, `{"method":"POST","path":"/shoal/"}`, `{"method":"POST","path":"https://x/api/v1/users"}`} {
		if _, status := stepUp(b, bad); status != 400 {
			t.Errorf("%s: %d", bad, status)
		}
	}
	const ask = `{"method":"POST","path":"/api/v1/users","password":"password of ada"}`
	if _, status := stepUp(b, strings.Replace(ask, "of ada", "of eve", 1)); status != 401 {
		t.Errorf("a wrong password: %d", status)
	}
	s, _ := stepUp(b, ask)
	if !s.Confirmed || s.Token == "" || s.Code != "" {
		t.Fatalf("%+v", s)
	}
	with := func(token string) []string { return []string{web.StepUpHeader, token} }
	want(t, "another path", b.call("POST", "/api/v1/users/alice/disable", "", with(s.Token)...), 403)
	want(t, "another query", b.call("POST", "/api/v1/users?x=1", user, with(s.Token)...), 403)
	want(t, "another method", b.call("GET", "/api/v1/users", "", with(s.Token)...), 403)
	want(t, "another browser of hers", w.as("ada").call("POST", "/api/v1/users", user, with(s.Token)...), 403)
	want(t, "without the page's token", b.call("POST", "/api/v1/users", user, append(with(s.Token), web.CSRFHeader, "")...), 403)
	want(t, "as confirmed", b.call("POST", "/api/v1/users", user, with(s.Token)...), 201)
	want(t, "again", b.call("POST", "/api/v1/users", strings.Replace(user, "eve", "mal", 1), with(s.Token)...), 403)
	if _, status := stepUp(w.as("alice"), `{"token":"`+s.Token+`"}`); status != 404 {
		t.Errorf("another's token can be looked at: %d", status)
	}
	// A member confirms too, and it gives no more than her role.
	m := w.as("alice")
	s, _ = stepUp(m, `{"method":"POST","path":"/api/v1/users","password":"password of alice"}`)
	want(t, "a member's", m.call("POST", "/api/v1/users", user, with(s.Token)...), 403)
	want(t, "step-up with a bearer token", w.bearer(w.token("ada"), "POST", "/api/v1/web/step-up", ask), 403)
}

// TestConfirm: who has no password confirms on her command line.
func TestConfirm(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	b := w.as("ada")
	a := b.call("POST", "/api/v1/web/step-up", `{"method":"post","path":"/api/v1/users"}`)
	want(t, "step-up", a, 200)
	var s api.StepUp
	if err := json.Unmarshal([]byte(a.body), &s); err != nil || s.Confirmed || s.Code == "" {
		t.Fatalf("%v %s", err, a.body)
	}
	add := func() answer {
		return b.call("POST", "/api/v1/users", `{"name":"eve"}`, web.StepUpHeader, s.Token)
	}
	want(t, "before it is confirmed", add(), 403)
	confirm := func(token, body string) answer {
		return w.bearer(token, "POST", "/api/v1/web/confirm", body)
	}
	code := `{"code":"` + s.Code + `"}`
	want(t, "another user's confirmation", confirm(w.token("alice"), `{"code":"`+s.Code+`","confirm":true}`), 404)
	want(t, "by cookie", b.call("POST", "/api/v1/web/confirm", `{"code":"`+s.Code+`","confirm":true}`), 403)
	want(t, "a wrong code", confirm(w.token("ada"), `{"code":"0000-0000","confirm":true}`), 404)
	a = confirm(w.token("ada"), code)
	want(t, "looking", a, 200)
	if !strings.Contains(a.body, `"POST"`) || !strings.Contains(a.body, "/api/v1/users") {
		t.Errorf("it does not say what is confirmed: %s", a.body)
	}
	want(t, "after a look", add(), 403)
	want(t, "confirming", confirm(w.token("ada"), `{"code":"`+strings.ToUpper(s.Code)+`","confirm":true}`), 200)
	want(t, "confirming again", confirm(w.token("ada"), `{"code":"`+s.Code+`","confirm":true}`), 404)
	a = b.call("POST", "/api/v1/web/step-up", `{"token":"`+s.Token+`"}`)
	if !strings.Contains(a.body, `"confirmed":true`) {
		t.Errorf("how it stands: %d %s", a.StatusCode, a.body)
	}
	want(t, "once confirmed", add(), 201)
	want(t, "again", add(), 403)
}

// TestWho: whose requests to apps count.
func TestWho(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	b := w.as("alice")
	for _, c := range []struct {
		name   string
		method string
		header []string
		status int
	}{
		{"a page of this origin", "GET", nil, 200},
		{"typed", "GET", []string{"Sec-Fetch-Site", "none"}, 200},
		{"a link on another site", "GET", []string{"Sec-Fetch-Site", "cross-site"}, 200},
		{"a frame on another site", "GET", []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Dest", "iframe"}, 403},
		{"a script of another site", "GET", []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "no-cors", "Sec-Fetch-Dest", "script"}, 403},
		{"a form of another site", "POST", []string{"Sec-Fetch-Site", "cross-site", "Origin", "https://evil.example"}, 403},
		{"a form of another port", "POST", []string{"Sec-Fetch-Site", "same-site", "Origin", "https://127.0.0.1:1"}, 403},
		{"a websocket of ours", "GET", []string{"Sec-Fetch-Site", "", "Origin", w.server.URL}, 200},
		{"a websocket of another site", "GET", []string{"Sec-Fetch-Site", "", "Origin", "https://evil.example"}, 403},
		{"a program with the cookie", "GET", []string{"Sec-Fetch-Site", "", "Sec-Fetch-Mode", "", "Sec-Fetch-Dest", ""}, 200},
		{"a form whose page sends no referrer", "POST", []string{"Origin", "null"}, 200},
	} {
		want(t, c.name, b.do(c.method, "/user/alice/", "", c.header...), c.status)
	}
	want(t, "another's", b.get("/user/bob/"), 403)
	want(t, "nobody", w.browser().get("/user/alice/"), 403)
}

// TestKnownAddress: a proxy before us may ask by another name; a page at the address that people know is ours all the same.
func TestKnownAddress(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	b := w.as("alice")
	form := url.Values{"csrf": {b.csrf()}}
	inner := func(header ...string) []string {
		return append([]string{"Host", "inner:8443", "Cookie", "__Host-shoal=" + b.cookie("__Host-shoal")}, header...)
	}
	want(t, "from another site", b.post("/shoal/start/lab/code", form, inner("Origin", "https://evil.example")...), 403)
	a := b.post("/shoal/start/lab/code", form, inner()...)
	want(t, "from the address people know", a, 303)
	if a.location() != "/shoal/start/lab/code" {
		t.Errorf("it leads to %s", a.location())
	}
	want(t, "a websocket from there", b.get("/user/alice/", inner("Sec-Fetch-Site", "", "Origin", w.server.URL)...), 200)
}

func TestStrip(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, c := range []struct{ in, out []string }{
		{nil, nil},
		{[]string{"a=1; b=2"}, []string{"a=1; b=2"}},
		{[]string{`a="x y" ;  b`}, []string{`a="x y" ;  b`}},
		{[]string{"__Host-shoal=S"}, nil},
		{[]string{"a=1; __Host-shoal=S; b=2"}, []string{"a=1; b=2"}},
		{[]string{"__Host-shoal=S;__Host-shoal-form=T;a=1"}, []string{"a=1"}},
		{[]string{"a=1", "__Host-shoal=S", "b=__Host-shoal"}, []string{"a=1", "b=__Host-shoal"}},
		{[]string{"a=1;; __Host-shoal =S; __Host-shoal"}, []string{"a=1;"}},
	} {
		h := http.Header{"Cookie": c.in, "X": {"y"}, "Shoal-Csrf": {"t"}, "Shoal-Step-Up": {"t"}}
		if c.in == nil {
			h.Del("Cookie")
		}
		w.web.Strip(h)
		if got := h["Cookie"]; strings.Join(got, "|") != strings.Join(c.out, "|") || h.Get("X") != "y" || len(h) != 1+min(1, len(c.out)) {
			t.Errorf("%q: %q %v", c.in, got, h)
		}
	}
	h := http.Header{"Set-Cookie": {"__Host-shoal=S; Path=/; Secure", "a=1", " __host-SHOAL-form=1"}, "Service-Worker-Allowed": {"/"}, "Clear-Site-Data": {`"*"`}, "Etag": {"x"}}
	w.web.StripAnswer(h)
	if len(h) != 2 || strings.Join(h["Set-Cookie"], "|") != "a=1" {
		t.Errorf("%v", h)
	}
	h = http.Header{"Set-Cookie": {"__Host-shoal=S"}}
	w.web.StripAnswer(h)
	if len(h) != 0 {
		t.Errorf("%v", h)
	}
}

func FuzzStrip(f *testing.F) {
	f.Add("a=1; __Host-shoal=S; b=2")
	f.Fuzz(func(t *testing.T, line string) {
		h := http.Header{"Cookie": {line}}
		(&web.Web{}).Strip(h)
		r := http.Request{Header: h}
		for _, c := range r.Cookies() {
			if strings.HasPrefix(c.Name, "__Host-shoal") {
				t.Errorf("%q keeps %q", line, c)
			}
		}
	})
}

func TestCodes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const ask = "/shoal/authorize?client=hub&redirect_uri=%2Fhub%2Fshoal-callback&state=S1"
	nobody := w.browser()
	a := nobody.get(ask)
	want(t, "nobody", a, http.StatusFound)
	u, err := url.Parse(a.location())
	if err != nil || u.Path != "/shoal/login" || u.Query().Get("next") != ask {
		t.Fatalf("it leads to %s", a.location())
	}
	if a := nobody.login("alice", "password of alice", ask); a.location() != ask {
		t.Fatalf("it leads to %s", a.location())
	}
	code := func(b *browser) string {
		t.Helper()
		a := b.get(ask)
		want(t, "authorize", a, http.StatusFound)
		u, err := url.Parse(a.location())
		if err != nil || u.Host != "" || u.Path != "/hub/shoal-callback" || u.Query().Get("state") != "S1" || u.Query().Get("code") == "" {
			t.Fatalf("it leads to %s", a.location())
		}
		return u.Query().Get("code")
	}
	redeem := func(token, code, uri, state string) answer {
		body, _ := json.Marshal(api.RedeemRequest{Code: code, RedirectURI: uri, State: state})
		return w.bearer(token, "POST", "/api/v1/web/redeem", string(body))
	}
	b := w.as("alice")
	c := code(b)
	a = redeem(hubToken, c, "/hub/shoal-callback", "S1")
	want(t, "redeem", a, 200)
	if strings.TrimSpace(a.body) != `{"user":"alice","groups":["research"],"admin":false}` {
		t.Errorf("who: %s", a.body)
	}
	want(t, "again", redeem(hubToken, c, "/hub/shoal-callback", "S1"), 403)
	c = code(b)
	want(t, "another redirect", redeem(hubToken, c, "/hub/other", "S1"), 403)
	want(t, "then the right one", redeem(hubToken, c, "/hub/shoal-callback", "S1"), 403)
	want(t, "another state", redeem(hubToken, code(b), "/hub/shoal-callback", "S2"), 403)
	want(t, "no state", redeem(hubToken, code(b), "/hub/shoal-callback", ""), 403)
	want(t, "made up", redeem(hubToken, shoal.NewToken(), "/hub/shoal-callback", "S1"), 403)
	for _, who := range []string{w.token("alice"), w.token("ada")} {
		want(t, "not the hub", redeem(who, code(b), "/hub/shoal-callback", "S1"), 403)
	}
	want(t, "nobody", redeem("x", code(b), "/hub/shoal-callback", "S1"), 401)
	c = code(b)
	want(t, "logout", b.post("/shoal/logout", url.Values{"csrf": {b.csrf()}}), 303)
	want(t, "after logout", redeem(hubToken, c, "/hub/shoal-callback", "S1"), 403)
	b = w.as("ada")
	if a := redeem(hubToken, code(b), "/hub/shoal-callback", "S1"); !strings.Contains(a.body, `"admin":false`) || !strings.Contains(a.body, `"groups":[]`) {
		t.Errorf("an admin: %s", a.body)
	}
	for _, bad := range []string{
		"client=hub&redirect_uri=https%3A%2F%2Fevil.example%2F&state=S1", "client=hub&redirect_uri=%2F%2Fevil.example%2F&state=S1",
		"client=hub&redirect_uri=%2Fhub%2Fshoal-callback%2F..%2Fx&state=S1", "client=hub&redirect_uri=&state=S1",
		"client=other&redirect_uri=%2Fhub%2Fshoal-callback&state=S1", "client=hub&redirect_uri=%2Fhub%2Fshoal-callback",
		"client=hub&redirect_uri=%2Fhub%2Fshoal-callback&state=" + strings.Repeat("s", 600), "",
	} {
		a := b.get("/shoal/authorize?" + bad)
		want(t, bad, a, 400)
		if a.location() != "" {
			t.Errorf("%s leads to %s", bad, a.location())
		}
	}
	a = b.get("/shoal/authorize?client=hub&redirect_uri=%2Fhub%2Fshoal-callback&state=" + url.QueryEscape("a&code=x\r\nSet-Cookie: y"))
	if u, err := url.Parse(a.location()); err != nil || u.Query().Get("state") != "a&code=x\r\nSet-Cookie: y" || len(u.Query()["code"]) != 1 {
		t.Errorf("an odd state leads to %s", a.location())
	}
}

// TestForms: each form of a page wants the page's token, and what is another's is not there.
func TestForms(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	storetest.Update(t, w.db, func(tx *store.Tx) error {
		_, err := tx.Sessions().Put(shoal.Session{ID: "s-bob", User: "bob", Pool: "lab", State: shoal.SessionWaiting})
		return err
	})
	if _, err := w.apps.Open(t.Context(), "bob", "lab", "code", ""); err != nil {
		t.Fatal(err)
	}
	alice, bob := w.as("alice"), w.as("bob")
	for _, path := range []string{"/shoal/start/lab/code", "/shoal/stop/a-000000", "/shoal/end/s-bob", "/shoal/logout"} {
		want(t, path+" without a token", bob.post(path, nil), 403)
		want(t, path+" with another's", bob.post(path, url.Values{"csrf": {alice.csrf()}}), 403)
		want(t, path+" from another site", bob.post(path, url.Values{"csrf": {bob.csrf()}}, "Origin", "https://evil.example", "Sec-Fetch-Site", "cross-site"), 403)
	}
	if a := w.browser().post("/shoal/logout", nil, "Origin", "https://evil.example", "Sec-Fetch-Site", "cross-site"); a.StatusCode != 403 || len(a.Header["Set-Cookie"]) > 0 {
		t.Errorf("signing out from another site, without the cookie: %d %v", a.StatusCode, a.Header)
	}
	for path, status := range map[string]int{"/shoal/start/lab/code": 200, "/shoal/stop/a-000000": 404, "/shoal/end/s-bob": 404, "/shoal/logout": 303} {
		want(t, path+" by GET", bob.get(path), status)
	}
	token := url.Values{"csrf": {alice.csrf()}}
	want(t, "another's app", alice.post("/shoal/stop/a-000000", token), 404)
	want(t, "another's session", alice.post("/shoal/end/s-bob", token), 404)
	token = url.Values{"csrf": {bob.csrf()}}
	want(t, "her own app", bob.post("/shoal/stop/a-000000", token), 303)
	want(t, "her own session", bob.post("/shoal/end/s-bob", token), 303)
	if len(w.apps.stopped) != 1 || len(w.broker.ended) != 1 {
		t.Errorf("stopped %v, ended %v", w.apps.stopped, w.broker.ended)
	}
}
