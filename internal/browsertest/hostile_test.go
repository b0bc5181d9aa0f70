package browsertest

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/client"
	"github.com/shoal-pool/shoal/internal/rig"
)

// sub are the world and the browser of a part of a test.
func (w *world) sub(t *testing.T) *world     { c := *w; c.t = t; return &c }
func (b *browser) sub(t *testing.T) *browser { return &browser{b.w.sub(t), t, b.ctx} }

// attack is JavaScript of a page of our own origin that a stranger has written: what it gets is told as JSON.
const attack = `
const got = {};
const read = async (path) => { try { const a = await fetch(path); return a.status + " " + (await a.text()).slice(0, 60); } catch (e) { return "error " + e; } };
const page = await (await fetch("/shoal/")).text();
const token = (page.match(/name="shoal-csrf" content="([^"]*)"/) || [])[1] || "";
got.cookie = document.cookie;
const send = async (method, path, body, headers) => {
	try {
		const a = await fetch("/api/v1" + path, { method, headers: Object.assign({ "Content-Type": "application/json" }, headers), body: body === undefined ? undefined : JSON.stringify(body) });
		return a.status;
	} catch (e) { return "error " + e; }
};
const forged = token ? { "Shoal-CSRF": token } : {};
const wicked = [
	["POST", "/users", { name: "evil", role: "admin" }], ["PUT", "/users/evil", { name: "evil", role: "admin" }], ["PUT", "/users/mallory", { name: "mallory", role: "admin" }],
	["PUT", "/users/mallory/password", { password: "mallory-knows-this-one" }], ["PUT", "/users/alice/password", { password: "mallory-knows-this-one" }],
	["POST", "/users/alice/disable"], ["DELETE", "/pools/lab"], ["POST", "/pools/lab/scale", { size: 0 }], ["POST", "/web/link", {}], ["POST", "/web/redeem", { code: "x", redirectUri: "/" }],
];
for (const [method, path, body] of wicked) {
	got[method + " " + path + " bare"] = await send(method, path, body);
	got[method + " " + path] = await send(method, path, body, forged);
	let step = {};
	try { step = await (await fetch("/api/v1/web/step-up", { method: "POST", headers: Object.assign({ "Content-Type": "application/json" }, forged), body: JSON.stringify({ method, path: "/api/v1" + path }) })).json(); } catch (e) {}
	got[method + " " + path + " step-up"] = step.token ? await send(method, path, body, Object.assign({ "Shoal-Step-Up": step.token }, forged)) : 403;
	if (step.token) {
		got["confirm " + path] = await send("POST", "/web/confirm", { code: step.code }, forged);
		got["guess " + path] = await send("POST", "/web/step-up", { method, path: "/api/v1" + path, password: "guess" }, forged);
	}
}
document.cookie = "__Host-shoal=00000000000000000000000000000000; Secure; Path=/";
got.still = (await read("/shoal/")).slice(0, 3);
try { await navigator.serviceWorker.register(location.pathname, { scope: "/" }); got.worker = "registered"; } catch (e) { got.worker = "refused"; }
got.elsewhere = [];
for (const path of ["/user/mallory/", "/user/mallory/api/contents", "/user/mallory/tree"]) got.elsewhere.push((await read(path)).slice(0, 3));
return JSON.stringify(got);`

// beAdmin runs the attack in the page that is open, whose user is an administrator, and looks at what it did.
func (b *browser) beAdmin() {
	b.t.Helper()
	var got map[string]any
	if err := json.Unmarshal([]byte(b.eval(attack)), &got); err != nil {
		b.t.Fatal(err)
	}
	for what, status := range got {
		switch s := fmt.Sprint(status); {
		case what == "cookie":
			if strings.Contains(s, "__Host-shoal") {
				b.t.Errorf("the page reads Shoal's cookie: %s", s)
			}
		case what == "still":
			if s != "200" {
				b.t.Errorf("after the page has written a cookie Shoal's home says %s", s)
			}
		case what == "worker":
			if s != "refused" {
				b.t.Error("the page has put a service worker before all pages")
			}
		case what == "elsewhere":
			if strings.Contains(s, "200") {
				b.t.Errorf("the page reads another user's server: %s", s)
			}
		case !strings.HasPrefix(s, "4"):
			b.t.Errorf("%s: status %s", what, s)
		}
	}
	if len(got) < 20 {
		b.t.Errorf("the attack was not made: %v", got)
	}
	b.w.unharmed()
}

// unharmed looks whether everything is as it was.
func (w *world) unharmed() {
	w.t.Helper()
	users, err := w.Client.Users(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	for _, u := range users {
		if u.Name == "evil" || u.Name == "mallory" && u.Role == shoal.RoleAdmin || u.Disabled {
			w.t.Errorf("user %s is %+v", u.Name, u)
		}
	}
	pools, err := w.Client.Pools(w.t.Context())
	if err != nil || len(pools) != 1 || pools[0].Deleting {
		w.t.Errorf("the pools are %+v: %v", pools, err)
	}
	again := w.browser() // with the password of before
	again.open("/shoal/login")
	again.signIn("alice")
}

// strange lets one user try another's notebook server, with a browser and with what it has signed in.
func (w *world) strange(user, owner shoal.UserName) {
	w.t.Helper()
	b := w.browser()
	b.open("/shoal/login")
	b.signIn(user)
	for _, path := range []string{"/", "/tree", "/notebooks/waves.ipynb", "/files/waves.ipynb", "/api/contents", "/api/kernels", "/api/terminals"} {
		path = "/user/" + string(owner) + path
		b.open(path)
		if text := b.text(); !strings.Contains(text, "another user") {
			w.t.Errorf("%s shows %s:\n%s", user, path, text)
		}
	}
	b.open("/shoal/")
	got := b.eval(`
const socket = (path) => new Promise((done) => { const s = new WebSocket("wss://" + location.host + path); s.onopen = () => done("open"); s.onerror = () => done("refused"); });
const statuses = [];
for (const [method, path] of [["GET", "/api/contents"], ["POST", "/api/kernels"], ["DELETE", "/api/contents/waves.ipynb"], ["PUT", "/api/contents/x.txt"]])
	statuses.push((await fetch("/user/` + string(owner) + `" + path, { method })).status);
statuses.push(await socket("/user/` + string(owner) + `/api/kernels/1/channels"), await socket("/user/` + string(owner) + `/terminals/websocket/1"));
return statuses.join(" ");`)
	if got != "403 403 403 403 refused refused" {
		w.t.Errorf("%s gets %s of %s", user, got, owner)
	}
}

// openStranger lets the browser's user open a page of mallory's notebook server.
func (b *browser) openStranger() {
	b.t.Helper()
	w := b.w
	m := w.browser()
	m.open("/hub/spawn")
	m.signIn("mallory")
	m.notebookServer("mallory")
	cmd := w.SSH(b.t.Context(), "mallory+lab", "cat > evil.html")
	cmd.Stdin = strings.NewReader("<!doctype html><title>evil</title><h1 id=evil>evil</h1><script>document.title = 'it ran'</script>")
	if _, err := rig.Output(cmd); err != nil {
		b.t.Fatal(err)
	}
	m.follow("/user/mallory/files/evil.html")
	m.until("mallory's own browser shows the page", func() bool { return m.text() == "evil" })
	b.follow("/user/mallory/files/evil.html")
	b.until("alice's browser shows something", func() bool { return b.text() != "" })
	if text, title := b.text(), must(b, "title", chromedp.Title()); text == "evil" || title == "it ran" || !strings.Contains(text, "another user") {
		b.t.Errorf("alice's browser shows %q, %q", title, text)
	}
}

// follow goes to a path by a link of the page that is open.
func (b *browser) follow(path string) {
	b.t.Helper()
	b.do("following a link", chromedp.Evaluate[chromedp.Void](`(() => { const a = document.createElement("a"); a.href = "`+path+`"; a.textContent = "x"; document.body?.append(a); a.click(); })()`))
	b.until("the link is followed", func() bool { return b.at() == path })
}

// A page that mallory has left where alice's web app shows it runs in her browser with our origin, and one of another
// site with that: neither gets more than a member may, and the other site nothing.
func TestHostilePages(t *testing.T) {
	t.Parallel()
	w := newWorld(t, map[shoal.UserName]string{"alice": "role: admin\n", "mallory": ""},
		rig.Pool("lab", "interactive", "{cpus: 1, memory: 1GiB}", "{min: 0, max: 1}", 4, "endpoints:\n"+filesApp))
	evil := "<!doctype html><title>evil</title><h1>a nice page</h1>"
	if err := os.WriteFile(filepath.Join(w.Share, "evil.html"), []byte(evil), 0o644); err != nil {
		t.Fatal(err)
	}
	b := w.browser()
	b.open("/shoal/login")
	b.signIn("alice")
	b.open("/shoal/app/lab/files/evil.html")
	b.until("the page is there", func() bool { return b.at() == "/shoal/app/lab/files/evil.html" })
	t.Run("a page in her own app", func(t *testing.T) { b.sub(t).beAdmin() })
	t.Run("a page of another site", func(t *testing.T) { b.sub(t).otherSite() })
}

// otherSite opens a page of another host, which does what it can with the cookies of the browser.
func (b *browser) otherSite() {
	b.t.Helper()
	l := b.w.net.listen("127.0.0.1:0")
	site := &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Content-Type", "text/html")
		fmt.Fprintf(rw, "<!doctype html><title>another site</title><h1>another site</h1><iframe id=frame src=%q></iframe>"+
			"<form method=post action=%q><input name=csrf value=x></form>", b.w.url("/shoal/"), b.w.url("/shoal/logout"))
	})}
	go func() { _ = site.Serve(l) }() // it ends with the test
	defer site.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		b.t.Fatal(err)
	}
	// Another port of one host would be the same site, whose cookies SameSite does not hold back: both are tried.
	for _, host := range []string{"127.0.0.1", "localhost"} {
		b.do("the other site", chromedp.Navigate("http://"+host+":"+port+"/"))
		got := b.eval(strings.ReplaceAll(`
const at = "SHOAL";
const out = [];
const send = async (path, init) => { try { const a = await fetch(at + path, Object.assign({ credentials: "include" }, init)); return a.type === "opaque" ? "opaque" : String(a.status); } catch (e) { return "refused"; } };
out.push(await send("/shoal/"), await send("/api/v1/users"), await send("/shoal/app/lab/files/"));
out.push(await send("/api/v1/users", { method: "POST", mode: "no-cors", headers: { "Content-Type": "text/plain" }, body: '{"name":"evil","role":"admin"}' }));
out.push(await send("/api/v1/jobs", { method: "POST", mode: "no-cors", headers: { "Content-Type": "text/plain" }, body: '{"pool":"lab","command":"touch /shared/pwned"}' }));
out.push(await send("/shoal/start/lab/files", { method: "POST", mode: "no-cors" }));
out.push(await new Promise((done) => { const s = new WebSocket(at.replace("https", "wss") + "/shoal/app/lab/files/"); s.onopen = () => done("open"); s.onerror = () => done("refused"); }));
let frame = ""; try { frame = document.getElementById("frame").contentDocument ? "seen" : "unseen"; } catch (e) { frame = "unseen"; }
out.push(frame);
return out.join(" ");`, "SHOAL", b.w.url("")))
		// What a request that it must not read has done is looked at below.
		if f := strings.Fields(strings.ReplaceAll(got, "opaque", "refused")); strings.Join(f, " ") != "refused refused refused refused refused refused refused unseen" {
			b.t.Errorf("a page at %s gets %s", host, got)
		}
		b.do("a form of the other site", chromedp.Submit(chromedp.CSS("form")))
		b.until("the form is answered", func() bool { return strings.HasPrefix(b.at(), "/shoal/") })
		b.open("/shoal/")
		if text := b.text(); !strings.Contains(text, "alice") || strings.Contains(b.at(), "login") {
			b.t.Errorf("a form at %s has signed alice out:\n%s", host, text)
		}
	}
	jobs, err := b.w.Client.Jobs(b.t.Context(), client.JobQuery{})
	if err != nil || len(jobs) > 0 {
		b.t.Errorf("there are jobs %+v: %v", jobs, err)
	}
	b.w.unharmed()
}
