package agent

import (
	"bufio"
	"bytes"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
)

func snapshot(rev shoal.Rev) api.Snapshot {
	return api.Snapshot{Machine: "m-1", Pool: "lab", Accounts: accounts(rev), Heartbeat: shoal.Duration(time.Minute), Mounts: []api.AgentMount{{Path: "/shared"}}}
}

func accounts(rev shoal.Rev) api.Accounts {
	return api.Accounts{Rev: rev, Users: []api.Account{{Name: "alice", UID: 20001, GID: 20001}, {Name: "bob", UID: 20002, GID: 20002, Disabled: true}},
		Groups: []api.Group{{Name: "research", GID: 30001, Members: []shoal.UserName{"alice"}}}}
}

func ref(index int) shoal.AttemptRef {
	return shoal.AttemptRef{TaskRef: shoal.TaskRef{Job: "7", Index: index}, Attempt: 1}
}

// booted is a house whose machine is ready, with the reports of the boot taken.
func booted(t *testing.T, change ...func(*Config)) *house {
	h := newHouse(t, snapshot(5))
	h.start(change...)
	if got := h.reports(); len(got) == 0 || got[len(got)-1].Boot == nil || !got[len(got)-1].Boot.Ready {
		t.Fatalf("the boot reported %+v", got)
	}
	h.watcher.count()
	h.tasks.heard()
	return h
}

// What cannot be made for one user keeps nobody out. It is told at once, and tried again every minute until it is there.
func TestUnmadeHomes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := booted(t)
		h.host.mu.Lock()
		h.host.unmade, h.host.files = 1, 0
		h.host.mu.Unlock()
		next := accounts(6)
		h.control.send(&api.Record{Accounts: &next})
		if got := h.reports(); len(got) == 0 || got[len(got)-1].Accounts != 6 || got[len(got)-1].Load == nil {
			t.Errorf("then it reports %+v", got)
		}
		time.Sleep(3*time.Minute + time.Second)
		synctest.Wait()
		h.host.mu.Lock()
		if h.host.files != 4 {
			t.Errorf("they are tried %d times in three minutes", h.host.files)
		}
		h.host.unmade = 0
		h.host.mu.Unlock()
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if h.host.files != 5 {
			t.Errorf("and %d times once all is there", h.host.files)
		}
		h.end()
	})
}

// A boot that goes well is one report.
func TestQuickBoot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, snapshot(5))
		h.start()
		got := h.reports()
		if len(got) != 1 || got[0].Boot == nil || !got[0].Boot.Ready || got[0].Accounts != 5 || got[0].Load == nil || got[0].Activity == nil {
			t.Errorf("reports are %+v", got)
		}
		if !h.host.booted || h.host.probes != 1 || !slices.Equal(h.host.certs, []string{"cert"}) {
			t.Errorf("the host is %+v", h.host)
		}
		if got := h.tasks.heard(); !slices.Equal(got, []string{"want 0"}) {
			t.Errorf("tasks heard %q", got)
		}
		h.end()
	})
}

// A machine is ready once it has what its snapshot says: what is sent to one that is ready must not be undone by that.
func TestReadyIsLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, snapshot(5))
		h.tasks.slow = time.Second
		h.start()
		ready := func(r api.Report) bool { return r.Boot != nil && r.Boot.Ready }
		time.Sleep(h.tasks.slow - time.Millisecond)
		if got := h.reports(); slices.ContainsFunc(got, ready) || len(h.tasks.heard()) > 0 {
			t.Errorf("it says too soon: %+v", got)
		}
		time.Sleep(time.Millisecond)
		if got := h.reports(); !slices.ContainsFunc(got, ready) || !slices.Equal(h.tasks.heard(), []string{"want 0"}) {
			t.Errorf("then it says %+v", got)
		}
		h.end()
	})
}

func TestSlowBootSaysWhatItDoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, snapshot(5))
		h.host.slow = 3 * time.Second
		h.start()
		time.Sleep(time.Second)
		if got := h.reports(); len(got) != 1 || got[0].Boot == nil || got[0].Boot.Progress != filesStep || got[0].Accounts != 0 {
			t.Errorf("meanwhile reports are %+v", got)
		}
		time.Sleep(3 * time.Second)
		if got := h.reports(); len(got) != 1 || !got[0].Boot.Ready || got[0].Accounts != 5 {
			t.Errorf("at the end reports are %+v", got)
		}
		h.end()
	})
}

func TestBootFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		snap := snapshot(5)
		snap.Setup = &shoal.Setup{Command: "false"}
		h := newHouse(t, snap)
		h.host.setup = errors.New("exit status 1")
		h.start()
		got := h.reports()
		if len(got) != 1 || got[0].Boot.Error != "exit status 1" || got[0].Boot.Log != "the log" {
			t.Errorf("reports are %+v", got)
		}
		time.Sleep(time.Hour)
		for _, r := range h.reports() {
			if r.Boot != nil {
				t.Errorf("later it reports %+v", r.Boot)
			}
		}
		h.end()
	})
}

// A mount that does not answer is named while there is hope, and then the boot has failed.
func TestBootWithDeadMount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, snapshot(5))
		h.host.hang = make(chan struct{})
		h.start()
		time.Sleep(bootTime + time.Second)
		got := h.reports()
		var said []string
		for _, r := range got {
			if r.Boot != nil {
				said = append(said, r.Boot.Progress+"|"+r.Boot.Error)
			}
		}
		const dead = "mount /shared does not answer"
		if !slices.Contains(said, dead+"|") || said[len(said)-1] != "|"+dead {
			t.Errorf("it says %q", said)
		}
		h.end()
	})
}

// A restarted agent does not boot again, and says that the machine is ready in case nobody knows.
func TestRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		snap := snapshot(5)
		snap.Tasks = []api.TaskOrder{{Ref: ref(0)}}
		h := newHouse(t, snap)
		h.host.booted = true
		h.start()
		all := h.reports()
		if h.host.probes != 0 || all[1].Boot == nil || !all[1].Boot.Ready { // the first asks for an answer only
			t.Errorf("%d probes, reports %+v", h.host.probes, all)
		}
		if got := h.tasks.heard(); !slices.Equal(got, []string{"want 1"}) {
			t.Errorf("tasks heard %q", got)
		}
		h.end()
	})
}

func TestAccountsAreReportedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := booted(t)
		began := time.Now()
		next := accounts(6)
		h.control.send(&api.Record{Accounts: &next})
		if got := h.reports(); len(got) != 1 || got[0].Accounts != 6 || time.Since(began) != 0 {
			t.Errorf("after %s: %+v", time.Since(began), got)
		}
		account, groups, ok := h.agent.cfg.People.Person("alice")
		if !ok || account.UID != 20001 || !slices.Equal(groups, []int{30001}) {
			t.Errorf("alice is %+v %v %v", account, groups, ok)
		}
		if _, _, ok := h.agent.cfg.People.Person("bob"); ok {
			t.Error("a disabled user is a person")
		}
		h.end()
	})
}

// While a mount does not answer new accounts do not count as in effect, but the rest goes on; when it answers again
// nobody has to say so.
func TestDeadMount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := booted(t)
		h.host.mu.Lock()
		h.host.hang = make(chan struct{})
		h.host.mu.Unlock()
		next := accounts(6)
		h.control.send(&api.Record{Accounts: &next})
		go h.control.send(&api.Record{Stop: &api.StopOrder{Ref: ref(1)}})
		time.Sleep(settleTime + time.Second)
		if got := h.tasks.heard(); !slices.Equal(got, []string{"stop 7/1#1"}) {
			t.Errorf("tasks heard %q", got)
		}
		time.Sleep(2 * time.Minute)
		for _, r := range h.reports() {
			if r.Accounts != 0 {
				t.Errorf("it reports %d as in effect", r.Accounts)
			}
		}
		close(h.host.hang)
		time.Sleep(retryLast + filesTime)
		all := h.reports()
		if !slices.ContainsFunc(all, func(r api.Report) bool { return r.Accounts == 6 }) {
			t.Errorf("in the end it reports %+v", all)
		}
		h.end()
	})
}

// After a break all is told again, and only what is true then.
func TestStreamBreaks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := booted(t)
		h.control.mu.Lock()
		h.control.snap = snapshot(9)
		h.control.snap.Tasks = []api.TaskOrder{{Ref: ref(0)}, {Ref: ref(1)}}
		h.control.mu.Unlock()
		h.control.send(nil)
		time.Sleep(time.Second)
		got := h.reports()
		if !slices.ContainsFunc(got, func(r api.Report) bool { return r.Accounts == 9 }) ||
			!slices.ContainsFunc(got, func(r api.Report) bool { return r.Activity != nil && r.Load != nil }) {
			t.Errorf("reports are %+v", got)
		}
		if got := h.tasks.heard(); !slices.Equal(got, []string{"want 2"}) {
			t.Errorf("tasks heard %q", got)
		}
		if joins, _ := h.control.counts(); joins != 1 {
			t.Errorf("it joined %d times", joins)
		}
		h.end()
	})
}

// A token that is no longer believed is replaced by joining again.
func TestTokenRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := booted(t)
		h.control.mu.Lock()
		h.control.token = "t2"
		h.control.mu.Unlock()
		time.Sleep(2 * time.Minute)
		if joins, streams := h.control.counts(); joins != 2 || streams != 2 {
			t.Errorf("%d joins and %d streams", joins, streams)
		}
		if got := h.reports(); len(got) == 0 {
			t.Error("nothing is reported")
		}
		h.end()
	})
}

func TestTokenIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := t.TempDir() + "/token"
		h := booted(t, func(c *Config) { c.TokenFile = file })
		h.stop()
		<-h.ended
		h.start(func(c *Config) { c.TokenFile = file })
		h.reports()
		if joins, _ := h.control.counts(); joins != 1 {
			t.Errorf("it joined %d times", joins)
		}
		h.stop()
		<-h.ended
		h.start(func(c *Config) { c.TokenFile = file; c.Join.Epoch = 2 })
		h.reports()
		if joins, _ := h.control.counts(); joins != 2 {
			t.Errorf("after another start of the machine it has joined %d times", joins)
		}
		h.end()
	})
}

// An idle machine costs one look and one report a minute.
func TestIdleIsQuiet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := booted(t)
		time.Sleep(time.Minute)
		h.watcher.count()
		h.reports()
		time.Sleep(time.Hour)
		if looks, reports := h.watcher.count(), len(h.reports()); looks > 61 || reports > 61 || reports < 59 {
			t.Errorf("an hour takes %d looks and %d reports", looks, reports)
		}
		h.end()
	})
}

// Who comes and goes is seen and told at once; while nothing changes it is looked seldom and told nothing.
func TestPresence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := booted(t)
		time.Sleep(10 * time.Second)
		h.reports()
		h.watcher.set(nil, api.UserActivity{User: "alice", Connections: 1, LastInput: time.Now()})
		h.door <- struct{}{}
		time.Sleep(afterDoor)
		if got := h.reports(); len(got) != 1 || got[0].Activity == nil || len(got[0].Activity.Users) != 1 {
			t.Errorf("when she came: %+v", got)
		}
		h.watcher.count()
		time.Sleep(30 * time.Minute)
		if looks, reports := h.watcher.count(), len(h.reports()); looks > 30*4+10 || looks < 30*4-5 || reports > 31 {
			t.Errorf("half an hour of her takes %d looks and %d reports", looks, reports)
		}
		// Something of hers ends without the door knowing.
		h.watcher.set(nil, api.UserActivity{User: "alice", Connections: 1, Pins: []shoal.Pin{{Kind: "tmux", Count: 1}}})
		time.Sleep(lookLast)
		if got := h.reports(); len(got) == 0 || len(got[0].Activity.Users[0].Pins) != 1 {
			t.Errorf("when her tmux came: %+v", got)
		}
		h.watcher.set(nil)
		h.door <- struct{}{}
		time.Sleep(afterDoor)
		if got := h.reports(); len(got) != 1 || got[0].Activity == nil || len(got[0].Activity.Users) != 0 {
			t.Errorf("when she went: %+v", got)
		}
		time.Sleep(time.Minute)
		h.watcher.count()
		time.Sleep(10 * time.Minute)
		if looks := h.watcher.count(); looks > 11 {
			t.Errorf("after that ten minutes take %d looks", looks)
		}
		h.end()
	})
}

// What cannot be seen is not reported as absent.
func TestUnknownIsNotGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := booted(t)
		h.watcher.set(errors.New("cannot read /proc"))
		h.door <- struct{}{}
		time.Sleep(3 * time.Minute)
		got := h.reports()
		for _, r := range got {
			if r.Activity != nil {
				t.Errorf("it reports %+v", r.Activity)
			}
		}
		if len(got) < 3 {
			t.Errorf("there are %d heartbeats", len(got))
		}
		h.end()
	})
}

// What tasks report counts as sent when it is acknowledged, and not before.
func TestTaskReports(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := booted(t)
		h.control.mu.Lock()
		h.control.refuse = 3
		h.control.answer = api.ReportAnswer{Resend: []api.Resend{{Ref: ref(0)}}}
		h.control.mu.Unlock()
		h.tasks.mu.Lock()
		h.tasks.pending = []api.TaskReport{{Ref: ref(0), State: shoal.JobSucceeded}}
		h.tasks.mu.Unlock()
		h.tasks.changed <- struct{}{}
		time.Sleep(5 * time.Second)
		if got := h.reports(); len(got) != 1 || len(got[0].Tasks) != 1 {
			t.Errorf("reports are %+v", got)
		}
		if len(h.tasks.pending) != 0 {
			t.Error("it was not told that it was sent")
		}
		if got := h.tasks.heard(); !slices.Equal(got, []string{"resend 1"}) {
			t.Errorf("tasks heard %q", got)
		}
		for _, r := range []api.Record{{Run: &api.TaskOrder{Ref: ref(1)}}, {Stop: &api.StopOrder{Ref: ref(1)}}, {Forget: &api.ForgetTask{Refs: []shoal.AttemptRef{ref(1)}}},
			{Message: &api.Message{User: "alice", Text: "hello"}}, {}} {
			h.control.send(&r)
		}
		if got := h.tasks.heard(); !slices.Equal(got, []string{"start 7/1#1", "stop 7/1#1", "forget 1"}) {
			t.Errorf("tasks heard %q", got)
		}
		if got := h.watcher.told; !slices.Equal(got, []string{"alice: hello"}) {
			t.Errorf("terminals were told %q", got)
		}
		h.end()
	})
}

// A control plane that is away for hours is found again within seconds, and meanwhile little is tried.
func TestControlAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := booted(t)
		h.control.mu.Lock()
		h.control.down, h.control.refuse = true, 1<<30
		h.control.mu.Unlock()
		h.control.send(nil)
		h.tasks.mu.Lock()
		h.tasks.pending = []api.TaskReport{{Ref: ref(0), State: shoal.JobFailed}}
		h.tasks.mu.Unlock()
		h.tasks.changed <- struct{}{}
		time.Sleep(5 * time.Hour)
		h.reports()
		h.control.mu.Lock()
		h.control.down, h.control.refuse = false, 0
		h.control.mu.Unlock()
		time.Sleep(3 * lastPause)
		got := h.reports()
		if !slices.ContainsFunc(got, func(r api.Report) bool { return len(r.Tasks) == 1 }) || !slices.ContainsFunc(got, func(r api.Report) bool { return r.Accounts == 5 }) {
			t.Errorf("reports are %+v", got)
		}
		h.end()
	})
}

func TestReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var newer atomic.Bool
		h := booted(t, func(c *Config) { c.Replaced = newer.Load })
		newer.Store(true)
		if err := <-h.ended; !errors.Is(err, ErrReplaced) {
			t.Errorf("it ended with %v", err)
		}
		h.stop()
		h.control.close()
		synctest.Wait()
	})
}

// Whatever comes over the stream, reading it ends, and what is a record is one.
func FuzzReadRecord(f *testing.F) {
	f.Add([]byte("{}\n{\"stop\":{\"ref\":{\"job\":\"1\"}}}\n"))
	f.Add([]byte(strings.Repeat("x", 10000) + "\n{}\n"))
	f.Add([]byte("{\"run\":"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bufio.NewReaderSize(bytes.NewReader(b), 16)
		for range bytes.Count(b, []byte("\n")) + 2 {
			if _, err := readRecord(r); err != nil {
				return
			}
		}
		t.Fatalf("%q has more records than lines", b)
	})
}
