package output

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/need"
)

// ended is a task whose attempts have ended, with their sizes.
type ended []int64

func (e ended) Look(_ context.Context, number int) (View, error) {
	if number > len(e) {
		return View{Over: true}, nil
	}
	return View{Number: number, Placed: true, Size: e[number-1], Over: number == len(e)}, nil
}
func (ended) Listen() (<-chan struct{}, func()) { return nil, func() {} }
func (ended) Stopped() <-chan struct{}          { return nil }

// world is a store with the output that it must have.
type world struct {
	t     testing.TB
	dir   string
	cap   int64
	store *Store
	rand  *rand.Rand
	live  map[shoal.AttemptRef]*Attempt
	want  map[streamKey][]byte
}

type streamKey struct {
	shoal.AttemptRef
	rank   int
	stream Stream
}

func out(r shoal.AttemptRef) streamKey { return streamKey{r, 0, Stdout} }

func newWorld(t testing.TB) *world {
	w := &world{t: t, dir: t.TempDir(), rand: rand.New(rand.NewPCG(1, 2)), want: map[streamKey][]byte{}}
	w.open()
	return w
}

// open opens the store as after a kill: what another had in memory is gone.
func (w *world) open() {
	s, err := Open(Config{Dir: w.dir, Cap: w.cap})
	if err != nil {
		w.t.Fatal(err)
	}
	w.store, w.live = s, map[shoal.AttemptRef]*Attempt{}
	w.t.Cleanup(s.Close)
}

func ref(job shoal.JobID, index, attempt int) shoal.AttemptRef {
	return shoal.AttemptRef{TaskRef: shoal.TaskRef{Job: job, Index: index}, Attempt: attempt}
}

func (w *world) attempt(r shoal.AttemptRef) *Attempt {
	a := w.live[r]
	if a == nil {
		a = w.store.Attempt(r, true)
		a.Find(4)
		w.live[r] = a
	}
	return a
}

func (w *world) write(r shoal.AttemptRef, rank int, stream Stream, data []byte) {
	w.t.Helper()
	k := streamKey{r, rank, stream}
	a := w.attempt(r)
	if whole, err := a.Add(rank, stream, int64(len(w.want[k])), data); err != nil || !whole {
		w.t.Fatalf("%s: %v, %v", r, whole, err)
	}
	w.want[k] = append(w.want[k], data...)
}

func (w *world) read(r shoal.AttemptRef, rank int, stream Stream, offset, size int64) ([]byte, error) {
	sizes := make(ended, r.Attempt)
	sizes[r.Attempt-1] = size
	var got []byte
	q := Request{Task: r.TaskRef, Rank: rank, Stream: stream, Offset: offset}
	err := w.store.Read(w.t.Context(), q, sizes, func(p Piece) error {
		if p.Missing > 0 {
			p.Data = p.Notice()
		}
		got = append(got, p.Data...)
		return nil
	})
	return got, err
}

// check reads all that was written, from a random offset on.
func (w *world) check() {
	w.t.Helper()
	for k, want := range w.want {
		r, rank, stream := k.AttemptRef, k.rank, k.stream
		if got := w.attempt(r).Size(rank, stream); got != int64(len(want)) {
			w.t.Errorf("%v of %s has %d bytes, not %d", k, r.Job, got, len(want))
			continue
		}
		offset := int64(0)
		if r.Attempt == 1 && w.rand.IntN(2) == 0 {
			offset = w.rand.Int64N(int64(len(want) + 1))
		}
		got, err := w.read(r, rank, stream, offset, int64(len(want)))
		if r.Attempt > 1 {
			want = slices.Concat(fmt.Appendf(nil, "\n--- attempt %d of task %s ---\n", r.Attempt, r.TaskRef), want)
			for i := 2; i < r.Attempt && stream == Stdout; i++ {
				want = slices.Concat(fmt.Appendf(nil, "\n--- attempt %d of task %s ---\n", i, r.TaskRef), want)
			}
		}
		if err != nil || !bytes.Equal(got, want[offset:]) {
			w.t.Errorf("%v of %s from %d: %d bytes, want %d, %v", k, r.Job, offset, len(got), len(want)-int(offset), err)
		}
	}
}

func (w *world) some(n int) []byte {
	b := make([]byte, 1+w.rand.IntN(n))
	for i := range b {
		b[i] = byte(w.rand.Uint32())
	}
	return b
}

func (w *world) files(job shoal.JobID) []string {
	all, err := os.ReadDir(filepath.Join(w.dir, string(job)))
	if err != nil {
		w.t.Fatal(err)
	}
	var names []string
	for _, e := range all {
		names = append(names, e.Name())
	}
	return names
}

// The output of an array is in two files however many tasks it has, and read from any byte on, also
// after kills, with and without the index.
func TestPacked(t *testing.T) {
	w := newWorld(t)
	for round := range 8 {
		for range 300 {
			r := ref(shoal.JobID(fmt.Sprint(1+w.rand.IntN(2))), w.rand.IntN(40)-1, 1+w.rand.IntN(3))
			w.write(r, w.rand.IntN(2)*w.rand.IntN(4), Stream(w.rand.IntN(2)), w.some(1+w.rand.IntN(3000)))
		}
		w.write(ref("1", 3, 1), 0, Stdout, bytes.Repeat([]byte(magic+"long"), 40_000)) // more than a frame holds
		switch round % 4 {
		case 1:
			w.store.Close() // and it goes on
		case 2:
			w.open()
		case 3:
			if err := os.Remove(filepath.Join(w.dir, "1", "index")); err != nil {
				t.Fatal(err)
			}
			w.open()
		}
		w.check()
	}
	for _, job := range []shoal.JobID{"1", "2"} {
		if got := w.files(job); !slices.Equal(got, []string{"index", "log"}) {
			t.Errorf("job %s has the files %v", job, got)
		}
	}
	if err := w.store.Remove("1"); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(w.dir, "1")); !os.IsNotExist(err) {
		t.Errorf("removed, and there: %v", err)
	}
	if err := w.store.Remove("7"); err != nil {
		t.Error(err)
	}
}

// A task by itself has plain files, as all had before outputs were packed; those stay readable.
func TestPlain(t *testing.T) {
	w := newWorld(t)
	single := ref("1", 0, 1)
	w.live[single] = w.store.Attempt(single, false)
	w.write(single, 0, Stdout, []byte("hello "))
	w.write(single, 0, Stdout, []byte("world\n"))
	w.write(single, 0, Stderr, []byte("oh\n"))
	if b, err := os.ReadFile(filepath.Join(w.dir, "1", "0.1.stdout")); string(b) != "hello world\n" {
		t.Errorf("%q, %v", b, err)
	}
	w.check()
	old := ref("2", 7, 1)
	if err := os.MkdirAll(filepath.Join(w.dir, "2"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(w.dir, "2", "7.1.stdout"), []byte("from before "), 0o600); err != nil {
		t.Fatal(err)
	}
	w.want[out(old)] = []byte("from before ")
	w.write(old, 0, Stdout, []byte("and now"))
	w.write(ref("2", 8, 1), 0, Stdout, []byte("packed"))
	w.check()
	w.open()
	w.live[single] = w.store.Attempt(single, false)
	w.live[single].Find(1)
	w.check()
	if got := w.files("2"); !slices.Equal(got, []string{"7.1.stdout", "index", "log"}) {
		t.Errorf("files %v", got)
	}
}

// The server is killed at each byte that it writes: the log is cut there, with an index as old as may
// be. All frames that were whole are there, and writing goes on behind them.
func TestCutAtEachByte(t *testing.T) {
	w := newWorld(t)
	type state struct {
		end   int64
		sizes map[streamKey]int64
	}
	var states []state
	var indexes [][]byte
	for i := range 24 {
		w.write(ref("1", w.rand.IntN(4), 1), 0, Stream(w.rand.IntN(2)), w.some(30))
		sizes := map[streamKey]int64{}
		for k, b := range w.want {
			sizes[k] = int64(len(b))
		}
		info, err := os.Stat(filepath.Join(w.dir, "1", "log"))
		if err != nil {
			t.Fatal(err)
		}
		states = append(states, state{info.Size(), sizes})
		if i%8 == 7 {
			w.store.Close()
			index, err := os.ReadFile(filepath.Join(w.dir, "1", "index"))
			if err != nil {
				t.Fatal(err)
			}
			indexes = append(indexes, index)
		}
	}
	log, err := os.ReadFile(filepath.Join(w.dir, "1", "log"))
	if err != nil {
		t.Fatal(err)
	}
	written := w.want
	step := 1
	if testing.Short() {
		step = 11
	}
	for n := 0; n <= len(log); n += step {
		w := newWorld(t)
		for _, s := range states {
			if s.end <= int64(n) {
				for k, size := range s.sizes {
					w.want[k] = slices.Clone(written[k][:size])
				}
			}
		}
		index := indexes[n%len(indexes)]
		if n%5 == 0 {
			index = index[:len(index)*(n%7)/7]
		}
		tail := w.some(40)
		if err := errors.Join(os.MkdirAll(filepath.Join(w.dir, "1"), 0o700), os.WriteFile(filepath.Join(w.dir, "1", "log"), append(log[:n:n], tail[:n%len(tail)]...), 0o600),
			os.WriteFile(filepath.Join(w.dir, "1", "index"), index, 0o600)); err != nil {
			t.Fatal(err)
		}
		w.check()
		w.write(ref("1", 1, 1), 0, Stdout, w.some(30))
		w.write(ref("1", 9, 1), 0, Stdout, w.some(30))
		w.check()
		w.open()
		w.check()
		w.store.Close()
		if t.Failed() {
			t.Fatalf("cut at %d of %d", n, len(log))
		}
	}
}

func must(t testing.TB, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// Output that somebody deleted, or cut, is missing: that is said, and the rest is read.
func TestTakenAway(t *testing.T) {
	for _, packed := range []bool{false, true} {
		w := newWorld(t)
		first, second := ref("1", 0, 1), ref("1", 0, 2)
		for _, r := range []shoal.AttemptRef{first, second} {
			w.live[r] = w.store.Attempt(r, packed)
			w.write(r, 0, Stdout, []byte("twelve bytes"))
		}
		w.store.Close()
		if packed {
			must(t, os.RemoveAll(filepath.Join(w.dir, "1")))
		} else {
			must(t, os.Remove(filepath.Join(w.dir, "1", "0.1.stdout")), os.Truncate(filepath.Join(w.dir, "1", "0.2.stdout"), 6))
		}
		var got []byte
		err := w.store.Read(t.Context(), Request{Task: first.TaskRef, Offset: 2}, ended{12, 12}, func(p Piece) error {
			got = append(append(got, p.Data...), bytes.Repeat([]byte("?"), int(p.Missing))...)
			return nil
		})
		want := "??????????\n--- attempt 2 of task 1/0 ---\ntwelve??????"
		if packed {
			want = "??????????\n--- attempt 2 of task 1/0 ---\n????????????"
		}
		if err != nil || string(got) != want {
			t.Errorf("packed %v: %q, %v", packed, got, err)
		}
	}
}

// A disk's damage in the middle of a log costs what was there, and nothing behind it.
func TestDamaged(t *testing.T) {
	w := newWorld(t)
	for i := range 30 {
		w.write(ref("1", i%3, 1), 0, Stdout, fmt.Appendf(nil, "line %2d of %d\n", i/3, i%3))
	}
	name := filepath.Join(w.dir, "1", "log")
	log, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(log, []byte("line  4 of 1"))
	log[at] ^= 1
	if err := os.WriteFile(name, log, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, indexed := range []bool{false, true} {
		w.open()
		if got, err := w.read(ref("1", 0, 1), 0, Stdout, 0, 130); err != nil || !bytes.Equal(got, w.want[out(ref("1", 0, 1))]) {
			t.Errorf("of the undamaged: %q, %v", got, err)
		}
		want := "line  3 of 1\n\n--- 13 bytes (13B) of output are not kept here ---\nline  5 of 1\n"
		if got, err := w.read(ref("1", 1, 1), 0, Stdout, 0, 130); err != nil || !bytes.Contains(got, []byte(want)) {
			t.Errorf("of the damaged, indexed %v: %q, %v", indexed, got, err)
		}
		w.store.Close()
	}
	w.open()
	w.write(ref("1", 1, 1), 0, Stdout, []byte("it goes on\n"))
	if got, err := w.read(ref("1", 1, 1), 0, Stdout, 117, 141); err != nil || string(got) != "line  9 of 1\nit goes on\n" {
		t.Errorf("behind the damage: %q, %v", got, err)
	}
	index := filepath.Join(w.dir, "1", "index")
	w.store.Close()
	b, err := os.ReadFile(index)
	if err != nil {
		t.Fatal(err)
	}
	for i := range b {
		b[i] ^= 0x40
		if err := os.WriteFile(index, b, 0o600); err != nil {
			t.Fatal(err)
		}
		b[i] ^= 0x40
		w.open()
		if got, err := w.read(ref("1", 2, 1), 0, Stdout, 0, 130); err != nil || !bytes.Equal(got, w.want[out(ref("1", 2, 1))]) {
			t.Fatalf("with the index damaged at %d: %q, %v", i, got, err)
		}
		w.store.Close()
	}
}

// Of a long output head and tail are kept, the disk's space is given back, and offsets stay what they
// were, also when the cap changes.
func TestCap(t *testing.T) {
	for _, packed := range []bool{false, true} {
		w := newWorld(t)
		w.cap = 64 << 10
		w.open()
		r := ref("1", 0, 1)
		w.live[r] = w.store.Attempt(r, packed)
		k := out(r)
		for i := 0; len(w.want[k]) < 1<<20; i++ {
			w.write(r, 0, Stdout, fmt.Appendf(nil, "%0127d\n", i))
			if i%500 == 0 {
				w.store.Close()
				w.open()
				w.live[r] = w.store.Attempt(r, packed)
				w.live[r].Find(1)
			}
		}
		all := w.want[k]
		size := int64(len(all))
		gap := w.store.gapOf(size)
		if kept := size - (gap.to - gap.from); kept > w.cap*5/4 || kept < w.cap {
			t.Errorf("%d bytes are kept, %+v", kept, gap)
		}
		want := func(from int64) []byte {
			lost := gap.to - max(from, gap.from)
			return slices.Concat(all[from:max(from, gap.from)][:max(0, gap.from-from)], Piece{Missing: lost}.Notice(), all[gap.to:])
		}
		for _, from := range []int64{0, 5, gap.from - 1, gap.from, gap.from + 1, gap.to - 1} {
			if got, err := w.read(r, 0, Stdout, from, size); err != nil || !bytes.Equal(got, want(from)) {
				t.Errorf("from %d: %d bytes, want %d, %v", from, len(got), len(want(from)), err)
			}
		}
		if got, err := w.read(r, 0, Stdout, gap.to, size); err != nil || !bytes.Equal(got, all[gap.to:]) {
			t.Errorf("from the gap's end: %d bytes, %v", len(got), err)
		}
		var used int64
		for _, name := range w.files("1") {
			var s syscall.Stat_t
			if err := syscall.Stat(filepath.Join(w.dir, "1", name), &s); err != nil {
				t.Fatal(err)
			}
			used += s.Blocks * 512
		}
		if most := w.cap*5/4 + 64<<10; used > 3*most {
			t.Errorf("%d bytes of disk are used, packed %v", used, packed)
		}
		w.cap = 1 << 20
		w.open()
		if got, err := w.read(r, 0, Stdout, 0, size); err != nil || !bytes.Equal(got, want(0)) {
			t.Errorf("with another cap: %d bytes, %v", len(got), err)
		}
	}
}

// A full disk loses nothing that was acknowledged, and is gone on from.
func TestFullDisk(t *testing.T) {
	w := newWorld(t)
	if err := unix.Mount("small", w.dir, "tmpfs", 0, "size=256k"); err != nil {
		need.Missing(t, "a small file system cannot be mounted: "+err.Error())
	}
	defer unix.Unmount(w.dir, unix.MNT_DETACH)
	for round := range 3 {
		for range 200 {
			r := ref("1", w.rand.IntN(5), 1)
			data, k := w.some(5000), out(r)
			before := int64(len(w.want[k]))
			if _, err := w.attempt(r).Add(0, Stdout, before, data); err != nil {
				data = data[:w.attempt(r).Size(0, Stdout)-before]
			}
			w.want[k] = append(w.want[k], data...)
		}
		w.check()
		if round == 1 {
			w.open()
			w.check()
		}
		if err := unix.Mount("small", w.dir, "tmpfs", unix.MS_REMOUNT, fmt.Sprintf("size=%dk", 512*(round+1))); err != nil {
			t.Fatal(err)
		}
	}
}

// Many jobs are written and read at a time: few files are open, and nothing mixes.
func TestManyAtOnce(t *testing.T) {
	w := newWorld(t)
	const jobs, pieces = maxOpen + 60, 6
	var all sync.WaitGroup
	for part := range 8 {
		all.Go(func() {
			rand := rand.New(rand.NewPCG(uint64(part), 3))
			for i := range jobs * pieces {
				job := shoal.JobID(fmt.Sprint(1 + i%jobs))
				r := ref(job, part, 1)
				a := w.store.Attempt(r, true)
				a.Find(1)
				if _, err := a.Add(0, Stdout, a.Size(0, Stdout), fmt.Appendf(nil, "%s.%d.%d\n", job, part, i/jobs)); err != nil {
					t.Error(err)
				}
				if rand.IntN(4) > 0 {
					continue
				}
				size := a.Size(0, Stdout)
				got, err := w.read(r, 0, Stdout, 0, size)
				var want []byte
				for n := range i/jobs + 1 {
					want = fmt.Appendf(want, "%s.%d.%d\n", job, part, n)
				}
				if err != nil || !bytes.Equal(got, want) {
					t.Errorf("%s: %q, want %q, %v", r, got, want, err)
				}
			}
		})
	}
	all.Wait()
	if n := len(w.store.logs); n > maxOpen {
		t.Errorf("%d logs are open", n)
	}
	w.store.Close()
	if n := len(w.store.logs); n > 0 {
		t.Errorf("%d logs are open after the end", n)
	}
}
