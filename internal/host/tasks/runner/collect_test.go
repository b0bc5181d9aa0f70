package runner

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/host/tasks"
)

// plain is a Runner without a supervisor: what one would do is done to it by hand.
func plain(t interface{ Fatal(...any) }, dir string) *Runner {
	r := &Runner{cfg: Config{Dir: dir, Places: tasks.Places{Scratch: filepath.Join(dir, "scratch"), Run: filepath.Join(dir, "run")}, Log: slog.New(slog.DiscardHandler), Lookup: func(shoal.UserName) (tasks.Person, bool) { return tasks.Person{UID: 1}, true }},
		changed: make(chan struct{}, 1), wake: make(chan struct{}, 1), attempts: map[shoal.AttemptRef]*attempt{}, newest: map[shoal.TaskRef]*attempt{}, jobs: map[shoal.JobID]*job{}}
	r.forgotten.load(dir)
	return r
}

// plane is what the control plane has of one attempt, and what there is.
type plane struct {
	there [2][]byte
	has   [2][]byte
	ended bool // the task
	known bool // the end, to the control plane
}

// TestCollect lets output grow, tasks end, reports get lost, control planes forget, and Runners be replaced,
// and sees that each byte arrives in order and the end after all of them.
func TestCollect(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp("", "shoal-collect-")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		r := plain(t, dir)
		var refs []shoal.AttemptRef
		state := map[shoal.AttemptRef]*plane{}
		take := func(reports []api.TaskReport, output []api.Output, limit int) {
			sum := 0
			for _, o := range output {
				p, i := state[o.Ref], map[string]int{"stdout": 0, "stderr": 1}[o.Stream]
				sum += len(o.Data)
				if o.Offset > int64(len(p.has[i])) {
					t.Fatalf("a gap before %d of %s", o.Offset, o.Ref)
				}
				p.has[i] = append(p.has[i][:o.Offset], o.Data...)
				if !bytes.HasPrefix(p.there[i], p.has[i]) {
					t.Fatalf("%s has other output than was written", o.Ref)
				}
			}
			if sum > limit {
				t.Fatalf("%d bytes where %d are allowed", sum, limit)
			}
			for _, x := range reports {
				p := state[x.Ref]
				if !x.State.Ended() {
					continue
				}
				for i := range p.has {
					if p.known = true; !bytes.Equal(p.has[i], p.there[i]) || [2]int64{x.StdoutBytes, x.StderrBytes}[i] != int64(len(p.there[i])) {
						t.Fatalf("%s ended before its output was sent", x.Ref)
					}
				}
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"start": func(t *rapid.T) {
				ref := shoal.AttemptRef{TaskRef: shoal.TaskRef{Job: "1", Index: len(refs)}, Attempt: 1}
				r.Start(api.TaskOrder{Ref: ref, User: "alice"})
				name, _ := tasks.FileName(ref)
				rec, err := tasks.NewRecord(dir, name, r.attempts[ref].start.Spare, tasks.Line{Accepted: &tasks.Accepted{Ref: ref, User: "alice", UID: 1}})
				if err == nil {
					err = rec.Write(tasks.Line{Started: &tasks.Started{PID: 1 << 30, At: time.Now()}})
				}
				if err != nil {
					t.Fatal(err)
				}
				rec.Close()
				refs = append(refs, ref)
				state[ref] = &plane{}
				r.take(tasks.Event{Started: &tasks.StartedEvent{Ref: ref, At: time.Now()}})
			},
			"write": func(t *rapid.T) {
				ref := pick(t, refs)
				p := state[ref]
				if p.ended {
					t.Skip()
				}
				i := rapid.IntRange(0, 1).Draw(t, "stream")
				b := bytes.Repeat([]byte(fmt.Sprint(len(p.there[i]))), rapid.IntRange(1, 30_000).Draw(t, "n"))
				p.there[i] = append(p.there[i], b...)
				name, _ := tasks.FileName(ref)
				if err := os.WriteFile(filepath.Join(dir, name+tasks.Endings()[i]), p.there[i], 0o600); err != nil {
					t.Fatal(err)
				}
				if rapid.Bool().Draw(t, "told") {
					r.take(tasks.Event{Output: &tasks.OutputEvent{Ref: ref, Bytes: [2]int64{int64(len(p.there[0])), int64(len(p.there[1]))}}})
				}
			},
			"end": func(t *rapid.T) {
				ref := pick(t, refs)
				p := state[ref]
				if p.ended {
					t.Skip()
				}
				p.ended = true
				end := tasks.Result{State: shoal.JobSucceeded, Bytes: [2]int64{int64(len(p.there[0])), int64(len(p.there[1]))}}
				name, _ := tasks.FileName(ref)
				rec, err := tasks.GoOn(dir, name)
				if err == nil {
					err = rec.Write(tasks.Line{Ended: &end})
				}
				if err != nil {
					t.Fatal(err)
				}
				rec.Close()
				r.take(tasks.Event{Ended: &tasks.EndedEvent{Ref: ref, Result: end}})
			},
			"report": func(t *rapid.T) {
				limit := rapid.IntRange(1, 100_000).Draw(t, "bytes")
				reports, output, sent := r.Collect(limit)
				switch rapid.IntRange(0, 3).Draw(t, "fate") {
				case 0: // it did not arrive
				case 1: // the answer did not
					take(reports, output, limit)
				case 2:
					take(reports, output, limit)
					sent()
				case 3: // the control plane lost something, and says so in the answer
					take(reports, output, limit)
					if len(refs) == 0 {
						break
					}
					ref := pick(t, refs)
					i := rapid.IntRange(0, 1).Draw(t, "stream")
					at := rapid.IntRange(0, len(state[ref].has[i])).Draw(t, "offset")
					again := []api.Resend{{Ref: ref, Stream: tasks.Streams()[i], Offset: int64(at)}}
					if at < len(state[ref].has[i]) {
						state[ref].known = false
					}
					state[ref].has[i] = state[ref].has[i][:at]
					if rapid.Bool().Draw(t, "first") {
						r.Resend(again)
						sent()
					} else {
						sent()
						r.Resend(again)
					}
				}
			},
			"replace": func(t *rapid.T) {
				if rapid.Bool().Draw(t, "orderly") {
					for _, a := range r.attempts {
						a.saveAck(dir)
					}
				}
				_ = r.forgotten.close()
				r = plain(t, dir)
				var h tasks.Hello
				for _, ref := range refs {
					if p := state[ref]; !p.ended {
						h.Live = append(h.Live, tasks.LiveTask{Accepted: tasks.Accepted{Ref: ref, User: "alice", UID: 1}, Started: time.Now(), Bytes: [2]int64{int64(len(p.there[0])), int64(len(p.there[1]))}})
					}
				}
				if err := r.adopt(&h); err != nil {
					t.Fatal(err)
				}
			},
		})
		for _, ref := range refs { // and what remains arrives
			p := state[ref]
			r.take(tasks.Event{Output: &tasks.OutputEvent{Ref: ref, Bytes: [2]int64{int64(len(p.there[0])), int64(len(p.there[1]))}}})
		}
		for range 10_000 {
			reports, output, sent := r.Collect(100_000)
			if len(reports)+len(output) == 0 {
				break
			}
			take(reports, output, 100_000)
			sent()
		}
		for _, ref := range refs {
			p := state[ref]
			if p.ended != p.known {
				t.Fatalf("%s: ended %v, known %v", ref, p.ended, p.known)
			}
			for i := range p.has {
				if !bytes.Equal(p.has[i], p.there[i]) {
					t.Fatalf("%s: %d of %d bytes arrived", ref, len(p.has[i]), len(p.there[i]))
				}
			}
		}
		if len(r.dirty) != 0 {
			t.Fatalf("there is still something to say of %s", r.dirty[0].ref)
		}
	})
}

func pick(t *rapid.T, refs []shoal.AttemptRef) shoal.AttemptRef {
	if len(refs) == 0 {
		t.Skip()
	}
	return rapid.SampledFrom(refs).Draw(t, "ref")
}

func TestOneThatWritesMuchLeavesRoom(t *testing.T) {
	dir := t.TempDir()
	r := plain(t, dir)
	for i, n := range []int{1 << 20, 10} {
		ref := shoal.AttemptRef{TaskRef: shoal.TaskRef{Job: "1", Index: i}, Attempt: 1}
		r.Start(api.TaskOrder{Ref: ref, User: "alice"})
		name, _ := tasks.FileName(ref)
		must(t, os.WriteFile(filepath.Join(dir, name+".out"), make([]byte, n), 0o600))
		r.take(tasks.Event{Started: &tasks.StartedEvent{Ref: ref, At: time.Now()}})
		r.take(tasks.Event{Output: &tasks.OutputEvent{Ref: ref, Bytes: [2]int64{int64(n), 0}}})
	}
	_, output, _ := r.Collect(100_000)
	if len(output) != 2 || len(output[0].Data) != 50_000 || len(output[1].Data) != 10 {
		t.Errorf("%d pieces", len(output))
	}
}

func TestForgottenAreFew(t *testing.T) {
	dir := t.TempDir()
	var m memory
	m.load(dir)
	name := func(i int) shoal.AttemptRef {
		return shoal.AttemptRef{TaskRef: shoal.TaskRef{Job: "1", Index: i}, Attempt: 2}
	}
	for i := range 3*memorySize + 10 {
		m.add(name(i))
	}
	for range 2 {
		if len(m.refs) != memorySize || len(m.top) != memorySize || m.has(name(0)) || !m.has(name(3*memorySize+9)) || !m.newer(shoal.AttemptRef{TaskRef: name(3 * memorySize).TaskRef, Attempt: 1}) {
			t.Fatalf("%d are kept", len(m.refs))
		}
		must(t, m.close())
		if fi, err := os.Stat(filepath.Join(dir, memoryFile)); err != nil || fi.Size() > 3*memorySize*12 {
			t.Fatal("the file grows")
		}
		m = memory{}
		m.load(dir)
	}
	must(t, m.close())
}

func FuzzRecord(f *testing.F) {
	f.Add([]byte(`{"accepted":{"ref":{"job":"1","index":0,"attempt":1},"user":"alice","uid":20001}}` + "\n" + `{"started":{"pid":7,"born":9,"at":"2026-01-01T00:00:00Z"}}` + "\n\n" + `{"ended":{"state":"succeeded","bytes":[1,2]}}` + "\n"))
	f.Add([]byte(`{"ended":{"state":"running","bytes":[-1,2]}}` + "\n" + `{"ended":{"st`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := tasks.ParseRecord(b)
		if err == nil && r.Ended != nil && (!tasks.KnownState(r.Ended.State) || r.Ended.Bytes[0] < 0 || r.Ended.Bytes[1] < 0) {
			t.Errorf("%+v", r.Ended)
		}
		for _, n := range tasks.ParseAck(b) {
			if n < 0 {
				t.Error("a negative acknowledgement")
			}
		}
		if ref, ok := tasks.ParseName(string(b)); ok {
			if name, err := tasks.FileName(ref); err != nil || name != string(b) || filepath.Base(name) != name {
				t.Errorf("the name %q", b)
			}
		}
	})
}

// FuzzAdopt opens a directory with a record that anybody may have written.
func FuzzAdopt(f *testing.F) {
	f.Add([]byte(`{"accepted":{"ref":{"job":"1","index":0,"attempt":1},"user":"alice","uid":20001}}`+"\n"), []byte("x"), []byte("1 0\n"))
	f.Add([]byte("\x00\n"), []byte(""), []byte("9 9\n"))
	f.Fuzz(func(t *testing.T, rec, out, ack []byte) {
		if bytes.Contains(rec, []byte("uid")) && os.Geteuid() == 0 {
			rec = bytes.ReplaceAll(rec, []byte("uid"), []byte("uix")) // nobody's processes are killed here
		}
		dir := t.TempDir()
		for ext, b := range map[string][]byte{tasks.RecordFile: rec, ".out": out, tasks.AckFile: ack} {
			must(t, os.WriteFile(filepath.Join(dir, "1.0.1"+ext), b, 0o600))
		}
		r := plain(t, dir)
		must(t, r.adopt(nil))
		ref := shoal.AttemptRef{TaskRef: shoal.TaskRef{Job: "1"}, Attempt: 1}
		r.Start(api.TaskOrder{Ref: ref, User: "alice"})
		a := r.attempts[ref]
		if a == nil || a.phase != ended || len(r.queue) != 0 {
			t.Fatalf("%+v", a)
		}
		for range 10 {
			_, _, sent := r.Collect(1000)
			sent()
		}
		r.Forget(api.ForgetTask{Refs: []shoal.AttemptRef{ref}})
		must(t, r.forgotten.close())
		if left, _ := filepath.Glob(filepath.Join(dir, "1.0.1.*")); len(left) != 0 {
			t.Errorf("left: %v", left)
		}
	})
}
