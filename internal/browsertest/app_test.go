package browsertest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/client"
	"github.com/shoal-pool/shoal/internal/rig"
)

// filesApp is a web app that Debian has: the files of the team.
const filesApp = "  - {name: files, protocol: http, command: \"cd /shared && exec python3 -m http.server --bind 127.0.0.1 $SHOAL_PORT\", stripPrefix: true, ready: {path: /}}\n"

// A person who has never been here signs in, starts a web app while there is no machine, sees how far it is, and uses it.
func TestWebApp(t *testing.T) {
	t.Parallel()
	w := newWorld(t, map[shoal.UserName]string{"alice": "", "bob": ""},
		rig.Pool("lab", "interactive", "{cpus: 1, memory: 1GiB}", "{min: 0, max: 1}", 4, "endpoints:\n"+filesApp))
	if err := os.WriteFile(filepath.Join(w.Share, "hello.html"), []byte("<!doctype html><title>hello</title><h1>Hello from the pool</h1>"), 0o644); err != nil {
		t.Fatal(err)
	}
	old := time.Now().AddDate(-1, 0, 0) // for so old a page browsers do not ask again for weeks
	if err := os.Chtimes(filepath.Join(w.Share, "hello.html"), old, old); err != nil {
		t.Fatal(err)
	}
	b := w.browser()
	b.open("/")
	b.signIn("alice")
	if at := b.at(); at != "/shoal/" {
		t.Fatalf("after the login one is at %s", at)
	}
	if text := b.text(); !strings.Contains(text, "lab") || !strings.Contains(text, "files") || !strings.Contains(text, "alice") {
		t.Errorf("the home page says:\n%s", text)
	}
	b.shot("home")
	b.do("the start", chromedp.Click(chromedp.Search("//li[contains(., 'files')]//button[contains(., 'Start')]")))
	b.until("it starts", func() bool { // or it is there, if that was quick
		return strings.HasPrefix(b.at(), "/shoal/start/lab/files") || strings.HasPrefix(b.at(), "/shoal/app/lab/files/")
	})
	b.shot("starting")
	b.until("the app is there", func() bool { return strings.HasPrefix(b.at(), "/shoal/app/lab/files/") })
	b.shows("hello.html")
	b.do("a page of the app", chromedp.Click(chromedp.Search("//a[.='hello.html']")))
	b.shows("Hello from the pool")
	out, err := rig.Output(w.SSH(t.Context(), "alice+lab", "hostname"))
	if err != nil {
		t.Fatal(err)
	}
	sessions, err := w.Client.Sessions(t.Context(), client.SessionQuery{User: "alice"})
	if err != nil || len(sessions) != 1 || string(sessions[0].Machine) != strings.TrimSpace(out) {
		t.Errorf("ssh is on %s, sessions %+v: %v", strings.TrimSpace(out), sessions, err)
	}
	b.open("/shoal/")
	if text := b.text(); !strings.Contains(text, strings.TrimSpace(out)) {
		t.Errorf("the home page does not name the machine %s:\n%s", out, text)
	}
	b.shot("home-running")
	b.do("signing out", chromedp.Click(chromedp.CSS("form.who button")), chromedp.WaitVisible(chromedp.CSS("#password")))
	b.open("/shoal/app/lab/files/hello.html")
	if at := b.at(); !strings.HasPrefix(at, "/shoal/login?next=") {
		t.Errorf("without a login one is at %s", at)
	}
	b.signIn("bob") // who has an app of his own at the same address
	b.until("bob's app is there", func() bool { return b.at() == "/shoal/app/lab/files/hello.html" })
	b.shows("Hello from the pool")
}
