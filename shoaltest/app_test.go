package shoaltest_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/client"
	"github.com/shoal-pool/shoal/internal/providers/fake"
	"github.com/shoal-pool/shoal/shoaltest"
)

const webPool = `
kind: Pool
name: lab
provider: fake
image: any
machine: {cpus: 2, memory: 2GiB}
size: {min: 0, max: 2}
scale: {idle: {after: 30m}}
endpoints:
  - {name: web, protocol: http, command: serve}
  - {name: mortal, protocol: http, command: serve 60}
  - {name: broken, protocol: http, command: exit 3}
  - {name: deaf, protocol: http, command: hang, ready: {timeout: 90s}}
  - {name: jupyter, protocol: http}
---
kind: User
name: alice
---
kind: User
name: bob
`

func webWorld(t *testing.T) *shoaltest.World {
	t.Helper()
	w := shoaltest.New(t, fake.Config{BootTime: 3 * time.Second})
	w.Apply(webPool)
	return w
}

// open opens an app and waits until it runs, or has ended.
func open(t *testing.T, c *client.Client, req api.OpenApp) shoal.App {
	t.Helper()
	a, err := c.OpenApp(t.Context(), req)
	for err == nil && a.Live() && a.State != shoal.AppRunning {
		a, err = c.WaitApp(t.Context(), a.ID, a.Rev)
	}
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// ended waits for the end of an app.
func ended(t *testing.T, c *client.Client, id shoal.AppID) shoal.App {
	t.Helper()
	a, err := c.App(t.Context(), id)
	for err == nil && a.Live() {
		a, err = c.WaitApp(t.Context(), id, a.Rev)
	}
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// An app wakes the pool, lies where its user's other sessions are, and outlives the server. Nobody else sees it.
func TestAppWakesAndStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := webWorld(t)
		alice, bob := w.As("alice"), w.As("bob")
		a := open(t, alice, api.OpenApp{Endpoint: "web"})
		if a.State != shoal.AppRunning || a.Address == "" || a.BaseURL != "/shoal/app/lab/web/" {
			t.Fatalf("%+v", a)
		}
		if again := open(t, alice, api.OpenApp{Pool: "lab", Endpoint: "web"}); again.ID != a.ID {
			t.Errorf("again it is %s", again.ID)
		}
		if out := w.SSH("alice", "who").Out; out != "alice "+string(a.Machine)+"\n" {
			t.Errorf("by ssh %q, the app is on %s", out, a.Machine)
		}
		sessions, err := alice.Sessions(t.Context(), client.SessionQuery{})
		if err != nil || len(sessions) != 1 || sessions[0].ID != a.Session || sessions[0].Parts[0].Kind != "web" {
			t.Errorf("%+v, %v", sessions, err)
		}
		if _, err := bob.App(t.Context(), a.ID); shoal.KindOf(err) != shoal.KindNotFound {
			t.Errorf("bob: %v", err)
		}
		if err := bob.StopApp(t.Context(), a.ID); shoal.KindOf(err) != shoal.KindNotFound {
			t.Errorf("bob stops it: %v", err)
		}
		w.Restart()
		w.Until("it has its part again", time.Minute, func() bool {
			s, err := alice.Session(t.Context(), a.Session)
			return err == nil && s.State == shoal.SessionActive && len(s.Parts) == 1 && s.Parts[0].Kind == "web"
		})
		time.Sleep(5 * time.Minute)
		if now, err := alice.App(t.Context(), a.ID); err != nil || now.State != shoal.AppRunning || now.Address != a.Address || now.Session != a.Session {
			t.Errorf("after the restart %+v, %v", now, err)
		}
		if err := alice.StopApp(t.Context(), a.ID); err != nil {
			t.Fatal(err)
		}
		if a = ended(t, alice, a.ID); a.State != shoal.AppEnded || a.Reason != "alice stopped it" {
			t.Errorf("%+v", a)
		}
		w.Until("her session has ended", time.Minute, func() bool {
			s, err := alice.Session(t.Context(), a.Session)
			return err == nil && !s.Live()
		})
	})
}

// What does not come up is told with its reason and the last it said; so is what dies.
func TestAppsThatFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := webWorld(t)
		alice := w.As("alice")
		for endpoint, want := range map[string]string{"broken": "exit code 3", "deaf": "did not answer at / within 1m30s"} {
			if a := open(t, alice, api.OpenApp{Endpoint: endpoint}); a.State != shoal.AppFailed || !strings.Contains(a.Reason, want) {
				t.Errorf("%s: %+v", endpoint, a)
			} else if endpoint == "broken" && !strings.Contains(a.Log, "no such database") {
				t.Errorf("the last it said is %q", a.Log)
			}
		}
		a := open(t, alice, api.OpenApp{Endpoint: "mortal"})
		if a = ended(t, alice, a.ID); a.State != shoal.AppFailed || !strings.Contains(a.Reason, "signal 9") || a.ExitCode != 137 {
			t.Errorf("%+v", a)
		}
		for endpoint, kind := range map[string]shoal.Kind{"jupyter": shoal.KindInvalid, "nothing": shoal.KindNotFound, "": shoal.KindInvalid} {
			if _, err := alice.OpenApp(t.Context(), api.OpenApp{Endpoint: endpoint}); shoal.KindOf(err) != kind {
				t.Errorf("%q: %v", endpoint, err)
			}
		}
		if _, err := alice.OpenApp(t.Context(), api.OpenApp{Endpoint: "web", Command: "serve"}); shoal.KindOf(err) != shoal.KindInvalid {
			t.Errorf("a command of her own: %v", err)
		}
		if _, err := alice.OpenApp(t.Context(), api.OpenApp{Endpoint: "web", User: "bob"}); shoal.KindOf(err) != shoal.KindDenied {
			t.Errorf("for bob: %v", err)
		}
		if _, err := w.Host.OpenApp(t.Context(), api.OpenApp{Endpoint: "web"}); shoal.KindOf(err) != shoal.KindInvalid {
			t.Errorf("the host: %v", err)
		}
	})
}

// A machine that dies takes a running app along: she is told, and gets another. One that was only starting goes on
// by itself.
func TestAppsWhoseMachineDies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := webWorld(t)
		alice := w.As("alice")
		a := open(t, alice, api.OpenApp{Endpoint: "web"})
		w.Provider.Kill(a.Machine, "the power failed")
		first := a
		if a = ended(t, alice, a.ID); a.State != shoal.AppFailed || !strings.Contains(a.Reason, string(a.Machine)) || !strings.Contains(a.Reason, "open it again") {
			t.Errorf("%+v", a)
		}
		if a = open(t, alice, api.OpenApp{Endpoint: "web"}); a.State != shoal.AppRunning || a.Machine == first.Machine || a.ID == first.ID {
			t.Errorf("the next is %+v", a)
		}
		deaf, err := alice.OpenApp(t.Context(), api.OpenApp{Endpoint: "deaf"})
		if err != nil {
			t.Fatal(err)
		}
		w.Until("it is starting", time.Minute, func() bool {
			deaf, err = alice.App(t.Context(), deaf.ID)
			return err == nil && deaf.State == shoal.AppStarting
		})
		was := deaf.Machine
		w.Provider.Kill(was, "the power failed again")
		w.Until("it is starting on another machine", 3*time.Minute, func() bool {
			deaf, err = alice.App(t.Context(), deaf.ID)
			return err == nil && deaf.State == shoal.AppStarting && deaf.Machine != was
		})
	})
}

// Whom nobody uses ends; whom somebody uses, or whose kernel runs, stays. Then the machine is stopped.
func TestIdleApps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := webWorld(t)
		alice, bob := w.As("alice"), w.As("bob")
		a, b := open(t, alice, api.OpenApp{Endpoint: "web"}), open(t, bob, api.OpenApp{Endpoint: "web"})
		for range 8 {
			time.Sleep(10 * time.Minute)
			if _, err := bob.TellAppUse(t.Context(), b.ID, api.AppActivity{LastActivity: time.Now()}); err != nil {
				t.Fatal(err)
			}
		}
		if a, err := alice.App(t.Context(), a.ID); err != nil || a.State != shoal.AppEnded || !strings.Contains(a.Reason, "nobody used it for 30m") {
			t.Errorf("%+v, %v", a, err)
		}
		b, err := bob.App(t.Context(), b.ID)
		if err != nil || b.State != shoal.AppRunning {
			t.Fatalf("%+v, %v", b, err)
		}
		if s, err := bob.Session(t.Context(), b.Session); err != nil || time.Since(s.LastInput) > 11*time.Minute {
			t.Errorf("his session: %+v, %v", s, err)
		}
		for range 20 {
			if _, err := bob.TellAppUse(t.Context(), b.ID, api.AppActivity{Kernels: 2}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Minute)
		}
		if b, err = bob.App(t.Context(), b.ID); err != nil || b.State != shoal.AppRunning || b.Kernels != 2 {
			t.Errorf("with kernels: %+v, %v", b, err)
		}
		// Who told of kernels is gone: they do not keep the machine for ever.
		w.Until("the machine is gone", 2*time.Hour, func() bool { return len(w.Machines("lab")) == 0 })
	})
}

// A session that is ended ends its app; a disabled user's apps end; one that waits can be stopped.
func TestEndsOfApps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := webWorld(t)
		alice, bob := w.As("alice"), w.As("bob")
		waiting, err := bob.OpenApp(t.Context(), api.OpenApp{Endpoint: "web"})
		if err != nil || waiting.State != shoal.AppWaiting {
			t.Fatalf("%+v, %v", waiting, err)
		}
		if err := bob.StopApp(t.Context(), waiting.ID); err != nil {
			t.Fatal(err)
		}
		if a := ended(t, bob, waiting.ID); a.State != shoal.AppEnded {
			t.Errorf("%+v", a)
		}
		a := open(t, alice, api.OpenApp{Endpoint: "web"})
		if err := alice.EndSession(t.Context(), a.Session); err != nil {
			t.Fatal(err)
		}
		if a = ended(t, alice, a.ID); a.State != shoal.AppEnded || a.Reason != "its session was ended" {
			t.Errorf("%+v", a)
		}
		b := open(t, bob, api.OpenApp{Endpoint: "web"})
		if _, err := w.Host.DisableUser(t.Context(), "bob"); err != nil {
			t.Fatal(err)
		}
		if b = ended(t, w.Host, b.ID); b.State != shoal.AppEnded {
			t.Errorf("%+v", b)
		}
	})
}

// Whoever waits for an app hears of each change, and of nothing else at once.
func TestWaitForApp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := webWorld(t)
		alice := w.As("alice")
		a := open(t, alice, api.OpenApp{Endpoint: "web"})
		began := time.Now()
		if same, err := alice.WaitApp(t.Context(), a.ID, a.Rev); err != nil || same.Rev != a.Rev || time.Since(began) < 20*time.Second {
			t.Errorf("after %v: %+v, %v", time.Since(began), same, err)
		}
		go func() {
			time.Sleep(time.Second)
			_ = alice.StopApp(context.Background(), a.ID)
		}()
		began = time.Now()
		if a, err := alice.WaitApp(t.Context(), a.ID, a.Rev); err != nil || !a.Stopping && a.Live() || time.Since(began) > 5*time.Second {
			t.Errorf("after %v: %+v, %v", time.Since(began), a, err)
		}
	})
}

// Twenty at once from a pool at zero all get their app, on as few machines as have seats.
func TestAppsOfACrowd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := shoaltest.New(t, fake.Config{BootTime: 3 * time.Second})
		users := ""
		for i := range 20 {
			users += fmt.Sprintf("---\nkind: User\nname: u%02d\n", i)
		}
		w.Apply(strings.Replace(webPool, "size: {min: 0, max: 2}", "size: {min: 0, max: 10}\nseats: 4", 1) + users)
		var wg sync.WaitGroup
		var mu sync.Mutex
		machines := map[shoal.MachineID]int{}
		var clients []*client.Client
		for i := range 20 {
			clients = append(clients, w.As(shoal.UserName(fmt.Sprintf("u%02d", i))))
		}
		for user, c := range clients {
			wg.Go(func() {
				a, err := c.OpenApp(t.Context(), api.OpenApp{Endpoint: "web"})
				for err == nil && a.Live() && a.State != shoal.AppRunning {
					a, err = c.WaitApp(t.Context(), a.ID, a.Rev)
				}
				if err != nil || a.State != shoal.AppRunning {
					t.Errorf("u%02d: %+v, %v", user, a, err)
				}
				mu.Lock()
				defer mu.Unlock()
				machines[a.Machine]++
			})
		}
		wg.Wait()
		if len(machines) != 5 {
			t.Errorf("they are on %v", machines)
		}
	})
}
