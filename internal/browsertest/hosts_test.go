package browsertest

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/client"
	"github.com/shoal-pool/shoal/internal/rig"
)

const appsDomain = "pool.shoal.test"

// fromOwnHost is JavaScript of a page of a notebook server that has a host name of its own: what it gets of Shoal's origin
// and of another user's is told as JSON. Each line is a status, or that the browser or the server has refused.
const fromOwnHost = `
const main = "MAIN", mallory = "MALLORY", got = {};
const send = async (what, at, init) => {
	try { const a = await fetch(at, Object.assign({ credentials: "include" }, init)); got[what] = a.type === "opaque" ? "opaque" : a.status + (a.redirected ? " " + new URL(a.url).pathname : ""); }
	catch (e) { got[what] = "refused"; }
};
const socket = (what, at) => new Promise((done) => { const s = new WebSocket(at.replace("https", "wss")); s.onopen = () => { got[what] = "open"; done(); }; s.onerror = () => { got[what] = "refused"; done(); }; });
got.cookie = document.cookie;
await send("home", main + "/shoal/");
await send("users", main + "/api/v1/users");
await send("app", main + "/shoal/app/lab/files/");
await send("home here", "/shoal/");
await send("users here", "/api/v1/users");
await send("app here", "/shoal/app/lab/files/");
const evil = JSON.stringify({ name: "evil", role: "admin" });
await send("POST users", main + "/api/v1/users", { method: "POST", headers: { "Content-Type": "application/json" }, body: evil });
await send("POST users, simple", main + "/api/v1/users", { method: "POST", mode: "no-cors", headers: { "Content-Type": "text/plain" }, body: evil });
await send("POST job, simple", main + "/api/v1/jobs", { method: "POST", mode: "no-cors", headers: { "Content-Type": "text/plain" }, body: '{"pool":"lab","command":"touch /shared/pwned"}' });
await send("PUT mallory", main + "/api/v1/users/mallory", { method: "PUT", headers: { "Content-Type": "application/json", "Shoal-CSRF": "x" }, body: '{"name":"mallory","role":"admin"}' });
await send("start, simple", main + "/shoal/start/lab/files", { method: "POST", mode: "no-cors" });
await send("hub", main + "/hub/api/users");
await send("mallory's files", mallory + "/user/mallory/api/contents");
await send("mallory's kernel", mallory + "/user/mallory/api/kernels", { method: "POST" });
await send("mallory's kernel, simple", mallory + "/user/mallory/api/kernels", { method: "POST", mode: "no-cors" });
await send("mallory's files here", "/user/mallory/api/contents");
await socket("socket of the app", main + "/shoal/app/lab/files/");
await socket("socket of mallory", mallory + "/user/mallory/terminals/websocket/1");
for (const name of ["__Host-shoal", "__Secure-shoal", "shoal"]) document.cookie = name + "=00000000000000000000000000000000; Secure; Path=/; Domain=DOMAIN";
const frame = document.createElement("iframe");
frame.src = main + "/shoal/";
const loaded = new Promise((done) => { frame.onload = done; });
document.body.append(frame);
await loaded; // until then it is a blank page, which everybody may look into; a refusal is loaded, too
try { got.frame = frame.contentDocument ? "seen" : "unseen"; } catch (e) { got.frame = "unseen"; }
return JSON.stringify(got);`

// With --apps-domain a notebook server has a host name of its own: what runs there is of another origin than Shoal's pages, the
// hub and everybody else's server.
func TestOwnHostNames(t *testing.T) {
	t.Parallel()
	w := newWorldWith(t, []string{"--apps-domain", appsDomain}, map[shoal.UserName]string{"alice": "role: admin\n", "mallory": ""},
		rig.Pool("lab", "interactive", "{cpus: 2, memory: 4GiB}", "{min: 0, max: 1}", 4, notebookPool))
	w.host = appsDomain
	alice, mallory := w.of("alice"), w.of("mallory")
	m := w.browser() // mallory's server is there, for alice's page to try
	m.open("/hub/spawn")
	m.signIn("mallory")
	m.until("mallory's server is there", func() bool { return strings.HasPrefix(m.at(), mallory+"/user/mallory/") })
	b := w.browser()
	b.open("/")
	b.signIn("alice")
	b.open("/hub/spawn")
	b.until("alice's server is there", func() bool { return strings.HasPrefix(b.at(), alice+"/user/alice/") })
	b.do("the page", chromedp.WaitReady(chromedp.CSS("body")))
	if own := b.eval(`return String((await fetch("/user/alice/api/contents")).status)`); own != "200" {
		t.Fatalf("her own page gets %s of her server", own)
	}
	attack := strings.NewReplacer("MAIN", w.url(""), "MALLORY", mallory, "DOMAIN", appsDomain).Replace(fromOwnHost)
	var got map[string]string
	if err := json.Unmarshal([]byte(stringly(b.eval(attack))), &got); err != nil {
		t.Fatal(err)
	}
	for what, is := range got {
		switch {
		case what == "cookie":
			if strings.Contains(is, "shoal") {
				t.Errorf("the page reads %s", is)
			}
		case is == "refused", is == "unseen", strings.HasPrefix(is, "4"): // a route of hers, or the hub's page that there is none
		case is == "opaque" && strings.HasSuffix(what, "simple"): // what that has done is looked at below
		default:
			t.Errorf("%s: %s", what, is)
		}
	}
	if len(got) < 18 {
		t.Errorf("the attack was not made: %v", got)
	}
	b.open("/shoal/")
	if text := b.text(); !strings.Contains(text, "alice") || strings.Contains(b.at(), "login") {
		t.Errorf("the page has signed alice out:\n%s", text)
	}
	jobs, err := w.Client.Jobs(t.Context(), client.JobQuery{})
	if err != nil || len(jobs) > 0 {
		t.Errorf("there are jobs %+v: %v", jobs, err)
	}
	apps, err := w.Client.Apps(t.Context(), client.AppQuery{User: "alice"})
	if err != nil || len(apps) != 1 {
		t.Errorf("alice has the apps %+v: %v", apps, err)
	}
	w.unharmed()
	for _, path := range []string{"/user/alice/tree", "/user/alice/api/contents", "/user/alice/files/x"} {
		m.do("alice's server", chromedp.Navigate(alice+path))
		if at, text := m.at(), m.text(); strings.Contains(text, "Select items") || strings.Contains(text, "\"content\"") || !strings.Contains(text, "403") && !strings.Contains(text, "another user") && !strings.Contains(text, "orbidden") {
			t.Errorf("mallory is at %s of alice's server:\n%s", at, text)
		}
	}
}

// of is where a user's server is.
func (w *world) of(user string) string { return "https://" + user + "." + w.host + ":" + w.HTTPS }

// stringly makes all values of a JSON object texts.
func stringly(object string) string {
	var all map[string]any
	if json.Unmarshal([]byte(object), &all) != nil {
		return object
	}
	out := map[string]string{}
	for k, v := range all {
		b, _ := json.Marshal(v) // it comes from JSON
		out[k] = strings.Trim(string(b), `"`)
	}
	b, _ := json.Marshal(out) // of texts
	return string(b)
}
