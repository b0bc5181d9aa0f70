package web_test

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/identity/local"
	"github.com/shoal-pool/shoal/internal/store"
	"github.com/shoal-pool/shoal/internal/store/storetest"
	"github.com/shoal-pool/shoal/internal/web"
)

func TestLogin(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	b := w.browser()
	a := b.get("/shoal/")
	want(t, "home of nobody", a, http.StatusSeeOther)
	if a.location() != "/shoal/login" {
		t.Errorf("it leads to %s", a.location())
	}
	a = b.login("alice", "password of alice", "/user/alice/lab?x=1&y=%2F")
	want(t, "login", a, http.StatusSeeOther)
	if a.location() != "/user/alice/lab?x=1&y=%2F" {
		t.Errorf("it leads to %s", a.location())
	}
	lines := a.Header["Set-Cookie"]
	if len(lines) != 4 || !strings.HasPrefix(lines[2], "jupyterhub-hub-login=; Path=/hub/; Max-Age=0") || !strings.HasPrefix(lines[3], "jupyterhub-session-id=; Path=/; Max-Age=0") {
		t.Fatalf("cookies: %q", lines)
	}
	for _, part := range []string{"__Host-shoal=", "; Path=/", "; Max-Age=604800", "; HttpOnly", "; Secure", "; SameSite=Lax"} {
		if !strings.Contains(lines[0], part) {
			t.Errorf("the cookie lacks %s: %s", part, lines[0])
		}
	}
	if strings.Contains(strings.ToLower(lines[0]), "domain") {
		t.Errorf("the cookie names a domain: %s", lines[0])
	}
	a = b.get("/shoal/")
	want(t, "home", a, http.StatusOK)
	if !strings.Contains(a.body, "<strong>alice</strong>") {
		t.Errorf("the page does not say who is signed in: %s", a.body)
	}
	want(t, "login page of who is signed in", b.get("/shoal/login?next=/x"), http.StatusSeeOther)
	want(t, "login with capitals", w.browser().login(" Alice ", "password of alice", "/shoal/"), http.StatusSeeOther)
	secret := b.cookie("__Host-shoal")
	storetest.View(t, w.db, func(tx *store.Tx) error { // at rest there is the hash alone
		_, err := tx.Token(secret)
		if shoal.KindOf(err) != shoal.KindNotFound {
			t.Errorf("the secret itself is stored: %v", err)
		}
		return nil
	})
	if strings.Contains(w.log.String(), secret) || strings.Contains(w.log.String(), "password of") {
		t.Error("the log tells a secret")
	}
}

// TestNoFixation: a cookie that was there before signing in is worth nothing after it, nor is the one before.
func TestNoFixation(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	b := w.browser()
	planted := shoal.NewToken()
	u, _ := url.Parse(w.server.URL)
	b.jar.SetCookies(u, []*http.Cookie{{Name: "__Host-shoal", Value: planted, Path: "/", Secure: true}})
	want(t, "login", b.login("alice", "password of alice", ""), http.StatusSeeOther)
	if b.cookie("__Host-shoal") == planted {
		t.Fatal("the planted cookie stays")
	}
	first := b.cookie("__Host-shoal")
	form := w.browser() // another login with the same browser's cookie
	form.jar.SetCookies(u, []*http.Cookie{{Name: "__Host-shoal", Value: first, Path: "/", Secure: true}})
	token := w.browser()
	page := token.token("/shoal/login")
	form.jar.SetCookies(u, []*http.Cookie{{Name: "__Host-shoal-form", Value: token.cookie("__Host-shoal-form"), Path: "/", Secure: true}})
	want(t, "second login", form.post("/shoal/login", url.Values{"token": {page}, "user": {"bob"}, "password": {"password of bob"}}), http.StatusSeeOther)
	for _, dead := range []string{planted, first} {
		old := w.browser()
		old.jar.SetCookies(u, []*http.Cookie{{Name: "__Host-shoal", Value: dead, Path: "/", Secure: true}})
		want(t, "an old cookie", old.get("/shoal/"), http.StatusSeeOther)
		want(t, "an old cookie before an app", old.get("/user/alice/"), http.StatusForbidden)
	}
}

func TestLoginRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	pages := map[string]string{}
	for _, c := range [][2]string{
		{"alice", "wrong"}, {"nobody", "wrong"}, {"keyed", "wrong"}, {"ALICE", "x"}, {"alice@example.org", "x"},
		{"älice", "x"}, {"a/../b", "x"}, {"<script>alert(1)</script>", "x"}, {"alice\x00", "x"}, {"\xff\xfe", "x"}, {"' OR 1=1 --", "x"},
		{strings.Repeat("a", 5000), "x"}, {"alice", strings.Repeat("p", 5000)},
	} {
		w.people = local.New(store.Credentials{DB: w.db}) // which has not been tried yet, so that no guess slows the next
		b := w.pages().browser()
		a := b.login(c[0], c[1], "/shoal/")
		want(t, fmt.Sprintf("%.20q %.20q", c[0], c[1]), a, http.StatusUnauthorized)
		if strings.Contains(a.body, "<script>alert") {
			t.Errorf("%s is in the page as it was sent", c[0])
		}
		if b.cookie("__Host-shoal") != "" {
			t.Errorf("%q was given a cookie", c[0])
		}
		text := hidden.ReplaceAllString(a.body, "")
		text = valueOf.ReplaceAllString(text, "")
		pages[text] = c[0]
	}
	if text := w.log.String(); !strings.Contains(text, `user=alice`) || strings.Contains(text, "OR 1=1") || strings.Contains(text, "ALICE") {
		t.Errorf("the log names who is nobody, or does not name who is: %s", text)
	}
	if len(pages) != 1 {
		t.Errorf("what is wrong can be told from the page: %d different ones", len(pages))
	}
	for _, c := range [][2]string{{"", "x"}, {"alice", ""}} {
		want(t, fmt.Sprintf("%q", c), w.browser().login(c[0], c[1], ""), http.StatusBadRequest)
	}
}

// TestBruteForce: after some wrong passwords the source is slowed, whatever name it tries, and told when to come again.
func TestBruteForce(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"alice", "nobody"} {
		w := newWorld(t)
		b := w.browser()
		began, looked := time.Now(), 0
		guess := func() (again time.Duration) { // zero: it was looked at
			a := b.login(name, "wrong", "")
			if a.StatusCode != http.StatusTooManyRequests {
				looked++
				return 0
			}
			s := a.Header.Get("Retry-After")
			n, err := strconv.Atoi(s)
			if err != nil || n < 1 || !strings.Contains(a.body, "too many attempts") || !strings.Contains(a.body, "Try again in "+s+"s,") {
				t.Fatalf("%s: %v %s", name, a.Header, a.body)
			}
			return time.Duration(n) * time.Second
		}
		for range 12 {
			guess()
		}
		// Four at once, and each one more after twice the time of the one before, which begins with a second.
		if most := 4 + math.Log2(time.Since(began).Seconds()+1); float64(looked) > most {
			t.Errorf("%s: %d of 12 were looked at within %s", name, looked, time.Since(began))
		}
		for meanwhile := false; !meanwhile; {
			began := time.Now()
			again := guess()
			if again <= time.Second { // and the next is not looked at for longer
				continue
			}
			a := b.login("alice", "password of alice", "")
			if meanwhile = time.Since(began) < again-time.Second; meanwhile {
				want(t, "the right password meanwhile", a, http.StatusTooManyRequests)
			}
		}
	}
}

func TestLoginForm(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	good := func(token string) url.Values {
		return url.Values{"token": {token}, "user": {"alice"}, "password": {"password of alice"}}
	}
	other := w.browser()
	stolen := other.token("/shoal/login")
	for _, c := range []struct {
		name   string
		form   url.Values
		header []string
		status int
	}{
		{"no token", good(""), nil, 403},
		{"another browser's token", good(stolen), nil, 403},
		{"another site", good("own"), []string{"Origin", "https://evil.example", "Sec-Fetch-Site", "cross-site"}, 403},
		{"another site without fetch metadata", good("own"), []string{"Origin", "https://evil.example", "Sec-Fetch-Site", ""}, 403},
		{"another port of this host", good("own"), []string{"Origin", "https://127.0.0.1:1", "Sec-Fetch-Site", "same-site"}, 403},
		{"plain http", good("own"), []string{"Origin", strings.Replace(w.server.URL, "https", "http", 1), "Sec-Fetch-Site", ""}, 403},
		{"a frame without an origin", good("own"), []string{"Origin", "null", "Sec-Fetch-Site", ""}, 403},
		{"not a form", good("own"), []string{"Content-Type", "text/plain"}, 400},
		{"too long", url.Values{"token": {strings.Repeat("x", 100_000)}}, nil, 400},
		{"an old browser", good("own"), []string{"Sec-Fetch-Site", "", "Sec-Fetch-Mode", "", "Sec-Fetch-Dest", ""}, 303},
	} {
		b := w.browser()
		if c.form.Get("token") == "own" {
			c.form.Set("token", b.token("/shoal/login"))
		} else {
			b.get("/shoal/login")
		}
		want(t, c.name, b.post("/shoal/login", c.form, c.header...), c.status)
	}
}

func TestNext(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, bad := range []string{"https://evil.example/", "//evil.example/", "/\\evil.example", "\\\\evil.example", "/\t/evil.example", "/\n/evil.example", "/%0a/..//evil.example",
		"/.//evil.example", "/x/..//evil.example", "javascript:alert(1)", "evil", "", "/\x00", "/é", "/ x", "http:evil", "/%2f/evil.example", "/%5cevil.example",
		"/shoal/login?next=/shoal/login", "/shoal/../shoal/logout", "/" + strings.Repeat("a", 5000)} {
		b := w.browser()
		a := b.login("alice", "password of alice", bad)
		if a.location() != "/shoal/" {
			t.Errorf("%q leads to %q", bad, a.location())
		}
		if a := b.get("/shoal/login?next=" + url.QueryEscape(bad)); a.location() != "/shoal/" {
			t.Errorf("%q leads who is signed in to %q", bad, a.location())
		}
	}
	b := w.browser()
	a := b.get("/shoal/start/lab/code?next=%2Fshoal%2Fapp%2Flab%2Fcode%2Fx")
	if u, err := url.Parse(a.location()); err != nil || u.Path != "/shoal/login" || u.Query().Get("next") != "/shoal/start/lab/code?next=%2Fshoal%2Fapp%2Flab%2Fcode%2Fx" {
		t.Errorf("it leads to %s", a.location())
	}
}

// TestEnds: each way by which a cookie ends.
func TestEnds(t *testing.T) {
	t.Parallel()
	key := "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI" + strings.Repeat("A", 43)
	for name, end := range map[string]func(*world, *browser){
		"logout": func(_ *world, b *browser) {
			a := b.post("/shoal/logout", url.Values{"csrf": {b.token("/shoal/")}})
			want(b.t, "logout", a, http.StatusSeeOther)
			if a.Header.Get("Clear-Site-Data") != `"cache"` {
				b.t.Errorf("what the browser keeps stays: %v", a.Header)
			}
		},
		"logout in another browser": func(w *world, b *browser) {
			other := w.as("alice")
			a := other.post("/shoal/logout", url.Values{"csrf": {other.csrf()}, "everywhere": {"yes"}})
			want(b.t, "logout", a, http.StatusSeeOther)
		},
		"password": func(w *world, _ *browser) {
			if err := w.people.SetPassword(w.t.Context(), "alice", "another password"); err != nil {
				w.t.Fatal(err)
			}
		},
		"no password": func(w *world, _ *browser) {
			if err := w.people.RemovePassword(w.t.Context(), "alice"); err != nil {
				w.t.Fatal(err)
			}
		},
		"disabled": func(w *world, _ *browser) { w.admin("POST", "/api/v1/users/alice/disable", "") },
		"disabled and enabled": func(w *world, _ *browser) {
			w.admin("POST", "/api/v1/users/alice/disable", "")
			w.admin("POST", "/api/v1/users/alice/enable", "")
		},
		"lost key": func(w *world, _ *browser) { w.admin("PUT", "/api/v1/users/alice", `{"keys":[]}`) },
		"removed":  func(w *world, _ *browser) { w.admin("DELETE", "/api/v1/users/alice", "") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.admin("PUT", "/api/v1/users/alice", `{"keys":["`+key+`"]}`)
			b := w.as("alice")
			secret := b.cookie("__Host-shoal")
			want(t, "an app of hers", b.get("/user/alice/"), http.StatusOK)
			want(t, "the API", b.call("GET", "/api/v1/whoami", ""), http.StatusOK)
			csrf := b.csrf()
			link := w.linkFor("alice")
			end(w, b)
			w.web.Forget("alice") // as the server does once it hears of the change
			again := w.browser()
			u, _ := url.Parse(w.server.URL)
			again.jar.SetCookies(u, []*http.Cookie{{Name: "__Host-shoal", Value: secret, Path: "/", Secure: true}})
			want(t, "home", again.get("/shoal/"), http.StatusSeeOther)
			want(t, "an app of hers", again.get("/user/alice/"), http.StatusForbidden)
			want(t, "the API", again.do("GET", "/api/v1/whoami", "", "Accept", "application/json", web.CSRFHeader, csrf), http.StatusUnauthorized)
			other := w.browser()
			want(t, "a link made before", other.post("/shoal/link", url.Values{"token": {other.token("/shoal/link")}, "code": {link}}), http.StatusUnauthorized)
		})
	}
}

// admin does something as the admin on her command line.
func (w *world) admin(method, path, body string) {
	w.t.Helper()
	token, _, err := w.people.IssueToken(w.t.Context(), "ada", 0)
	if err != nil {
		w.t.Fatal(err)
	}
	if a := w.bearer(token, method, path, body); a.StatusCode >= 300 {
		w.t.Fatalf("%s %s: %d %s", method, path, a.StatusCode, a.body)
	}
}

// token is an API token of a user's.
func (w *world) token(name shoal.UserName) string {
	w.t.Helper()
	token, _, err := w.people.IssueToken(w.t.Context(), name, 0)
	if err != nil {
		w.t.Fatal(err)
	}
	return token
}

// linkFor is the code of a one-time link.
func (w *world) linkFor(name shoal.UserName) string {
	w.t.Helper()
	a := w.bearer(w.token(name), "POST", "/api/v1/web/link", "")
	want(w.t, "link", a, http.StatusOK)
	var l api.WebLink
	if err := json.Unmarshal([]byte(a.body), &l); err != nil || !strings.HasPrefix(l.URL, w.server.URL+"/shoal/link#"+string(name)+".") {
		w.t.Fatalf("%v: %s", err, a.body)
	}
	_, code, _ := strings.Cut(l.Path, "#")
	return code
}

func TestLink(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	use := func(b *browser, code string) answer {
		return b.post("/shoal/link", url.Values{"token": {b.token("/shoal/link")}, "code": {code}})
	}
	b := w.browser()
	code := w.linkFor("keyed")
	a := use(b, code)
	want(t, "a link", a, http.StatusSeeOther)
	if !strings.Contains(a.Header["Set-Cookie"][0], "Max-Age=43200") {
		t.Errorf("cookie: %s", a.Header["Set-Cookie"][0])
	}
	if a := b.get("/shoal/"); !strings.Contains(a.body, "<strong>keyed</strong>") {
		t.Errorf("she is not signed in: %s", a.body)
	}
	want(t, "the link again", use(w.browser(), code), http.StatusUnauthorized)
	want(t, "the whole address", use(w.browser(), w.server.URL+"/shoal/link#"+w.linkFor("keyed")), http.StatusSeeOther)
	_, secret, _ := strings.Cut(w.linkFor("keyed"), ".")
	for _, bad := range []string{"", ".", "keyed.", "keyed", "alice." + secret, "keyed." + shoal.NewToken(), strings.Repeat("#", 100)} {
		want(t, bad, use(w.browser(), bad), http.StatusUnauthorized)
	}
	nobody := w.browser()
	want(t, "without the page's token", nobody.post("/shoal/link", url.Values{"code": {w.linkFor("keyed")}}), http.StatusForbidden)
	want(t, "by cookie", w.as("alice").call("POST", "/api/v1/web/link", ""), http.StatusForbidden)
	want(t, "by nobody", w.bearer("x", "POST", "/api/v1/web/link", ""), http.StatusUnauthorized)
}

// TestChangedMeanwhile: a password that was right a moment ago, and is changed before its cookie is made, gets none.
func TestChangedMeanwhile(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	changes := 0
	w.before = func() {
		changes++
		if err := w.people.SetPassword(t.Context(), "alice", "another password"); err != nil {
			t.Error(err)
		}
	}
	b := w.browser()
	want(t, "the former password", b.login("alice", "password of alice", ""), http.StatusUnauthorized)
	if changes != 1 || b.cookie("__Host-shoal") != "" {
		t.Errorf("changed %d times, cookie %q", changes, b.cookie("__Host-shoal"))
	}
	code := w.linkFor("alice")
	want(t, "a link of before", b.post("/shoal/link", url.Values{"token": {b.token("/shoal/link")}, "code": {code}}), http.StatusUnauthorized)
	rehashed := false
	w.before = func() {
		if !rehashed { // the same password, hashed anew
			rehashed = true
			if err := w.people.SetPassword(t.Context(), "alice", "another password"); err != nil {
				t.Error(err)
			}
		}
	}
	want(t, "the new password while it is hashed anew", b.login("alice", "another password", ""), http.StatusSeeOther)
}
