package browsertest

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/client"
	"github.com/shoal-pool/shoal/internal/rig"
)

// patience is how long a test waits for what takes seconds on a quiet host.
const patience = 5 * time.Minute

// nobody is the account of Chromium: as root it would run without its sandbox.
const nobody = 65534

const password = "correct horse battery staple"

// binaries is where shoal and shoal-agent lie.
var binaries string

func TestMain(m *testing.M) {
	flag.Parse()
	if testing.Short() || os.Geteuid() != 0 {
		os.Exit(m.Run()) // each test leaves itself out
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	if binaries = os.Getenv("SHOAL_BIN"); binaries == "" {
		dir, err := os.MkdirTemp("", "shoal-browsertest-bin-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		binaries = dir
		if err := rig.Build(filepath.Join("..", ".."), dir, "./cmd/shoal", "./cmd/shoal-agent"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	return m.Run()
}

// world is a server of a test's own with people who have passwords.
type world struct {
	*rig.World
	t    *testing.T
	net  *network // the browsers'
	spki string   // the hash of the server's key, which is all that they trust
	host string   // the name of the server, where it has one: browsers find it, and all names below it, on the loopback
}

// networks counts those that were made.
var networks atomic.Int64

// lookAtSources lets the cache of results know what they depend on.
var lookAtSources = sync.OnceValue(func() error {
	return rig.LookAt(filepath.Join("..", ".."), filepath.Join(binaries, "shoal"), filepath.Join(binaries, "shoal-agent"))
})

// newWorld starts a server with users and further documents.
func newWorld(t *testing.T, users map[shoal.UserName]string, documents ...string) *world {
	t.Helper()
	return newWorldWith(t, nil, users, documents...)
}

// newWorldWith starts it with further flags.
func newWorldWith(t *testing.T, flags []string, users map[shoal.UserName]string, documents ...string) *world {
	t.Helper()
	if testing.Short() || os.Geteuid() != 0 {
		t.Skip("real machines need root, and are left out with -short")
	}
	if err := lookAtSources(); err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "shoal-web-") // short, for the paths of sockets in it
	if err != nil {
		t.Fatal(err)
	}
	r, err := rig.New(t.Context(), binaries, dir, flags...)
	if err != nil {
		log, _ := os.ReadFile(filepath.Join(dir, "serve.log")) // without a log there is nothing to show
		t.Fatalf("%v\n%s", err, log)
	}
	w := &world{World: r, t: t}
	t.Cleanup(w.close)
	public, err := os.ReadFile(w.Key() + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	var doc strings.Builder
	for name, more := range users {
		fmt.Fprintf(&doc, "---\nkind: User\nname: %s\nkeys: [%q]\n%s", name, strings.TrimSpace(string(public)), more)
	}
	if err := w.Apply(t.Context(), 0, doc.String()+strings.Join(documents, "")); err != nil {
		t.Fatal(err)
	}
	for name := range users {
		if err := w.Client.SetPassword(t.Context(), name, password); err != nil {
			t.Fatal(err)
		}
	}
	w.spki = w.fingerprint()
	w.net = newNetwork(t, &networks)
	if err := w.net.Relay(w.HTTPS); err != nil {
		t.Fatal(err)
	}
	return w
}

// close takes the world down.
func (w *world) close() {
	w.t.Helper()
	ctx := context.Background()
	sessions, err := w.Client.Sessions(ctx, client.SessionQuery{})
	for _, s := range sessions {
		_ = w.Client.EndSession(ctx, s.ID) // one that goes by itself is as good
	}
	if err := errors.Join(err, w.Close()); err != nil {
		w.t.Errorf("the end: %v", err)
	}
	if w.t.Failed() {
		log, _ := os.ReadFile(filepath.Join(w.Dir, "serve.log")) // without a log there is nothing to show
		lines := strings.Split(string(log), "\n")
		w.t.Logf("the log of the server ends with:\n%s", strings.Join(lines[max(0, len(lines)-60):], "\n"))
	}
	if err := os.RemoveAll(w.Dir); err != nil {
		w.t.Error(err)
	}
}

// url is the address of a path.
func (w *world) url(path string) string {
	return "https://" + cmp.Or(w.host, "127.0.0.1") + ":" + w.HTTPS + path
}

// fingerprint is how Chromium names a key that it is to trust.
func (w *world) fingerprint() string {
	w.t.Helper()
	c, err := tls.Dial("tcp", "127.0.0.1:"+w.HTTPS, &tls.Config{InsecureSkipVerify: true}) // to learn whom to trust from now on
	if err != nil {
		w.t.Fatal(err)
	}
	defer c.Close()
	sum := sha256.Sum256(c.ConnectionState().PeerCertificates[0].RawSubjectPublicKeyInfo)
	return base64.StdEncoding.EncodeToString(sum[:])
}

// browser is a Chromium with one page and a memory of its own.
type browser struct {
	w   *world
	t   *testing.T
	ctx context.Context
}

// browser starts one.
func (w *world) browser() *browser {
	w.t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		w.t.Fatalf("chromium is missing, run scripts/setup test: %v", err)
	}
	ip, err := exec.LookPath("ip")
	if err != nil {
		w.t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "shoal-chromium-")
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			w.t.Error(err)
		}
	})
	if err := os.Chown(dir, nobody, nobody); err != nil {
		w.t.Fatal(err)
	}
	alloc, cancel := chromedp.NewExecAllocator(context.Background(), append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path), chromedp.WSURLReadTimeout(patience), chromedp.UserDataDir(filepath.Join(dir, "profile")), chromedp.Flag("no-sandbox", false), chromedp.DisableGPU,
		chromedp.WindowSize(1280, 860), chromedp.Flag("ignore-certificate-errors-spki-list", w.spki), chromedp.Flag("force-color-profile", "srgb"),
		chromedp.Env("HOME="+dir), chromedp.Flag("host-resolver-rules", "MAP *.shoal.test 127.0.0.1"),
		chromedp.ModifyCmdFunc(func(cmd *exec.Cmd) {
			cmd.Dir = dir
			cmd.Args = append([]string{"ip", "netns", "exec", w.net.Name, "setpriv", fmt.Sprintf("--reuid=%d", nobody), fmt.Sprintf("--regid=%d", nobody), "--clear-groups", path}, cmd.Args[1:]...)
			cmd.Path, cmd.Err = ip, nil
		}))...)
	w.t.Cleanup(cancel)
	ctx, end := chromedp.NewContext(alloc)
	w.t.Cleanup(end)
	b := &browser{w, w.t, ctx}
	if err := chromedp.Do(ctx); err != nil {
		w.t.Fatalf("chromium does not start: %v", err)
	}
	return b
}

// do takes steps, within patience.
func (b *browser) do(what string, steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, steps...); err != nil {
		b.fail(what, err)
	}
}

// fail ends the test with what the page is like.
func (b *browser) fail(what string, err error) {
	b.t.Helper()
	b.shot("failed")
	at, _ := get(b, chromedp.Location()) // the page may be gone
	text, _ := get(b, chromedp.Text(chromedp.CSS("body")))
	b.t.Fatalf("%s: %v\nat %s:\n%s", what, err, at, text[:min(len(text), 2000)])
}

// get asks for something, within patience.
func get[T any](b *browser, a chromedp.Action[T]) (T, error) {
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	return chromedp.Run(ctx, a)
}

// must is get for what cannot fail.
func must[T any](b *browser, what string, a chromedp.Action[T]) T {
	b.t.Helper()
	v, err := get(b, a)
	if err != nil {
		b.fail(what, err)
	}
	return v
}

// script is JavaScript of the page, and results in the text that it promises.
func script(text string) chromedp.Action[string] {
	return chromedp.Evaluate[string]("(async () => { "+text+" })()", chromedp.EvalAwaitPromise)
}

// eval runs JavaScript in the page once, and returns the text that it promises.
func (b *browser) eval(text string) string {
	b.t.Helper()
	return must(b, "a script of the page", script(text))
}

// seen is what there is to see; a page that gives way to another while it is looked at is looked at again.
func seen[T any](b *browser, what string, a chromedp.Action[T]) T {
	b.t.Helper()
	for range 20 {
		if v, err := get(b, a); err == nil {
			return v
		}
		time.Sleep(50 * time.Millisecond)
	}
	return must(b, what, a)
}

// text is what one reads on the page.
func (b *browser) text() string {
	b.t.Helper()
	return seen(b, "the page's text", chromedp.Text(chromedp.CSS("body")))
}

// shows waits until one reads a text on the page: the address of a page is there before what it shows.
func (b *browser) shows(text string) {
	b.t.Helper()
	b.until("the page says "+text, func() bool { return strings.Contains(b.text(), text) })
}

// at is the path that the page is at.
func (b *browser) at() string {
	b.t.Helper()
	return strings.TrimPrefix(seen(b, "the address", chromedp.Location()), b.w.url(""))
}

// until waits until the page is as it should be.
func (b *browser) until(what string, is func() bool) {
	b.t.Helper()
	err := rig.Until(b.t.Context(), patience, what, func() (bool, error) { return is(), nil })
	if err != nil {
		b.fail("waiting", err)
	}
}

// shot keeps a picture of the page where SHOAL_SCREENSHOTS says, and returns it. Of a page that gives way to another at
// this moment Chromium never brings one: then the next is taken.
func (b *browser) shot(name string) []byte {
	b.t.Helper()
	const each = 15 * time.Second
	var png []byte
	var err error
	for began := time.Now(); time.Since(began) < patience; {
		ctx, cancel := context.WithTimeout(b.ctx, each)
		png, err = chromedp.Run(ctx, chromedp.CaptureScreenshot())
		cancel()
		if err == nil || b.ctx.Err() != nil {
			break
		}
	}
	if err != nil {
		b.t.Errorf("no picture of %s: %v", name, err)
	}
	if dir := os.Getenv("SHOAL_SCREENSHOTS"); dir != "" {
		if err := os.WriteFile(filepath.Join(dir, name+".png"), png, 0o644); err != nil {
			b.t.Error(err)
		}
	}
	return png
}

// signIn signs in at the page where that is asked for, and waits for what comes next. Whoever is told to try again in a
// moment, since somebody at her address has guessed passwords, does.
func (b *browser) signIn(user shoal.UserName) {
	b.t.Helper()
	for began := time.Now(); ; time.Sleep(time.Second) {
		b.do("signing in", chromedp.SetValue(chromedp.CSS("#user"), string(user)), chromedp.SetValue(chromedp.CSS("#password"), password),
			chromedp.Evaluate[chromedp.Void](`document.documentElement.dataset.sent = "yes"`), chromedp.Click(chromedp.CSS("main button[type=submit]")))
		var refused string
		b.until("the answer to a password", func() bool {
			answered, err := get(b, chromedp.Evaluate[bool](`!document.documentElement.dataset.sent && document.readyState !== "loading"`))
			if err == nil && answered {
				refused, err = get(b, chromedp.Evaluate[string](`document.querySelector("#password") ? document.body.innerText : ""`))
			}
			return err == nil && answered // else the page gives way to another at this moment
		})
		if refused == "" {
			return
		}
		if !strings.Contains(refused, "Try again in") || time.Since(began) > patience {
			b.fail("signing in", errors.New("refused"))
		}
	}
}

// open goes to a path.
func (b *browser) open(path string) {
	b.t.Helper()
	b.do("opening "+path, chromedp.Navigate(b.w.url(path)))
}
