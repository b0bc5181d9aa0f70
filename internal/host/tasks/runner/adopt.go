package runner

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/host/passes"
	"github.com/shoal-pool/shoal/internal/host/tasks"
)

// find looks for a supervisor of a former Runner.
func (r *Runner) find() (*linked, *tasks.Hello) {
	for tries := 0; ; tries++ {
		c, in, h, err := r.connect()
		if err == nil {
			return &linked{c, in}, h
		}
		lock, err2 := r.supervisorLock()
		if err2 == nil {
			_ = lock.Close()
			return nil, nil
		}
		if errors.Is(err, os.ErrDeadlineExceeded) || tries == 3 {
			r.cfg.Log.Error("the supervisor of tasks hangs and is killed", "error", err)
			r.killHung()
		}
		if tries > 20 {
			r.cfg.Log.Error("the supervisor of tasks neither answers nor ends", "error", err)
			return nil, nil
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// adopt learns what there is from the disk and from what a living supervisor says.
func (r *Runner) adopt(h *tasks.Hello) error {
	entries, err := os.ReadDir(r.cfg.Dir)
	if err != nil {
		return fmt.Errorf("cannot see the tasks of before: %w", err)
	}
	files := map[string][]string{}
	for _, e := range entries {
		ext := filepath.Ext(e.Name())
		name := strings.TrimSuffix(e.Name(), ext)
		switch ref, ok := tasks.ParseName(name); {
		case !ok || ext == "":
		case r.forgotten.has(ref):
			r.remove(e.Name())
		default:
			files[name] = append(files[name], ext)
		}
	}
	live := map[shoal.AttemptRef]tasks.LiveTask{}
	if h != nil {
		for _, l := range h.Live {
			live[l.Ref] = l
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for name := range files {
		rec, err := tasks.ReadRecord(r.cfg.Dir, name)
		if ref, _ := tasks.ParseName(name); err != nil && live[ref].Ref == ref {
			continue // it was accepted a moment ago, and its record is being written
		}
		if err != nil {
			r.adoptBroken(name, files[name], err)
			continue
		}
		a := &attempt{ref: rec.Ref, name: name, user: rec.User, uid: rec.UID, onDisk: true, adopted: true, size: tasks.Sizes(r.cfg.Dir, name), phase: sent}
		a.loadAck(r.cfg.Dir)
		r.live++
		r.add(a)
		a.held = live[a.ref].Held
		if rec.Started != nil && !rec.Started.Held {
			a.phase, a.started = running, rec.Started.At
		}
		switch _, ok := live[a.ref]; {
		case rec.Ended != nil:
			kept := a.size
			r.end(a, *rec.Ended)
			a.size = kept
		case !ok:
			r.lost(a, rec)
		default:
			r.mark(a)
		}
	}
	if h != nil {
		r.adoptHello(h)
	} else {
		r.takeGPUs()
	}
	return nil
}

// takeGPUs takes back what tasks had, when nobody watches over any.
func (r *Runner) takeGPUs() {
	if err := r.cfg.GPUs.TakeAll(); err != nil {
		r.cfg.Log.Warn("a GPU stays a user's whose task was lost", "error", err)
	}
}

// adoptHello takes what is not on disk.
func (r *Runner) adoptHello(h *tasks.Hello) {
	for _, l := range h.Live {
		if r.attempts[l.Ref] == nil {
			if name, err := tasks.FileName(l.Ref); err == nil {
				r.live++
				r.add(&attempt{ref: l.Ref, name: name, user: l.User, uid: l.UID, onDisk: true, adopted: true, phase: sent, size: l.Bytes})
			}
		}
		if a := r.attempts[l.Ref]; a != nil && a.phase == sent {
			a.held, a.ready = l.Held, l.Ready
			if !l.Started.IsZero() {
				a.phase, a.started = running, l.Started
			}
			r.mark(a)
		}
	}
	for _, e := range h.Ended {
		if r.attempts[e.Ref] == nil {
			if name, err := tasks.FileName(e.Ref); err == nil {
				r.live++
				r.add(&attempt{ref: e.Ref, name: name, onDisk: true, adopted: true, phase: sent})
			}
		}
		r.takeEnd(e)
	}
}

// adoptBroken handles files whose record is not there or makes no sense. They are an attempt all the same:
// it counts as lost.
func (r *Runner) adoptBroken(name string, files []string, why error) {
	ref, _ := tasks.ParseName(name)
	a := &attempt{ref: ref, name: name, size: tasks.Sizes(r.cfg.Dir, name), phase: sent, adopted: true}
	if errors.Is(why, fs.ErrNotExist) { // it was being removed
		r.removeFiles(a)
		return
	}
	r.cfg.Log.Warn("a task's record cannot be read", "error", why, "files", files)
	r.live++
	r.add(a)
	if err := os.Remove(r.path(name + tasks.RecordFile)); err != nil {
		r.cfg.Log.Warn("a task's record cannot be replaced", "error", err)
	}
	r.endHere(a, tasks.Result{State: shoal.JobLost, Cause: shoal.CauseMachineLost, Reason: "what the machine had written down about it cannot be read"})
}

func (a *attempt) loadAck(dir string) {
	b, err := os.ReadFile(filepath.Join(dir, a.name+tasks.AckFile))
	if err != nil {
		return
	}
	for i, n := range tasks.ParseAck(b) {
		a.acked[i] = min(n, a.size[i])
	}
	a.savedAck = a.acked[0] + a.acked[1]
}

// supervisorGone finds out what became of the attempts that the supervisor had.
func (r *Runner) supervisorGone() {
	// It may hang rather than be gone: then it has ours no longer.
	for tries := 0; ; tries++ {
		lock, err := r.supervisorLock()
		if err == nil {
			_ = lock.Close()
			break
		}
		if tries == 10 {
			r.killHung()
		}
		if tries > 200 {
			r.cfg.Log.Error("the supervisor of tasks does not end", "error", err)
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.queue = nil
	all := slices.SortedFunc(maps.Values(r.attempts), func(a, b *attempt) int { return cmp.Compare(a.came, b.came) })
	for _, a := range all { // in the order in which they came, since some wait for others
		if a.phase != sent && a.phase != running {
			a.unsaved = false // nobody keeps it any more
			continue
		}
		rec, err := tasks.ReadRecord(r.cfg.Dir, a.name)
		switch {
		case errors.Is(err, fs.ErrNotExist) && a.start != nil && a.stop != "":
			r.endHere(a, stopped(a.stop, "it was ended before it started"))
		case errors.Is(err, fs.ErrNotExist) && a.start != nil:
			r.hand(a)
		default:
			a.onDisk = true
			a.size = tasks.Sizes(r.cfg.Dir, a.name)
			if err == nil && rec.Ended != nil {
				r.end(a, *rec.Ended)
				continue
			}
			r.lost(a, rec)
		}
	}
	r.takeGPUs()
}

// lost ends an attempt whose supervisor is no more. Its processes are killed: nobody can tell any more how they end.
func (r *Runner) lost(a *attempt, rec tasks.Record) {
	scratch := r.cfg.ScratchOf(cmp.Or(rec.Scratch, a.name))
	if err := passes.At(r.cfg.Passes()).Take(string(a.user), a.name); err != nil {
		r.cfg.Log.Error("a task has ended, and the pass between its nodes has not", "attempt", a.ref.String(), "error", err)
	}
	end := tasks.Result{State: shoal.JobLost, Cause: shoal.CauseMachineLost, Started: a.started,
		Reason: "what watched over it on the machine was killed, or the machine was started anew"}
	g := r.cfg.Groups.Find(a.uid, cmp.Or(rec.Group, a.name))
	if usage, err := g.Usage(); err == nil {
		end.CPUTime, end.MaxMemory = usage.CPU, usage.MaxMemory
	}
	if err := tasks.RemoveGroup(g); err != nil {
		end.Reason += "; " + err.Error()
	}
	if r.cfg.Groups == nil && a.uid != 0 {
		var firsts []tasks.Started
		if rec.Started != nil {
			firsts = append(firsts, *rec.Started)
		}
		tasks.KillStrays(a.uid, scratch, firsts)
	}
	r.clear(scratch)
	if err := tasks.RemoveScratch(r.cfg.FilesOf(a.name)); err != nil {
		r.cfg.Log.Warn("a directory of a task stays", "error", err)
	}
	if rec.Started != nil {
		end.Started = rec.Started.At
	}
	r.endHere(a, end)
}
