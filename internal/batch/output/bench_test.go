package output

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
)

// BenchmarkPacked writes a line for each task of an array of 100,000 with bounded memory, finds the log
// again after a kill, and reads single tasks of it.
func BenchmarkPacked(b *testing.B) {
	const tasks = 100_000
	w := newWorld(b)
	write := func(i int) {
		a := w.store.Attempt(ref("1", i, 1), true)
		if _, err := a.Add(0, Stdout, 0, fmt.Appendf(nil, "result of task %d\n", i)); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("write", func(b *testing.B) {
		for i := range b.N {
			write(1_000_000 + i)
		}
	})
	if err := w.store.Remove("1"); err != nil {
		b.Fatal(err)
	}
	// The first and the last write all the time, so that every block of the index spans all tasks.
	first, last := w.store.Attempt(ref("1", -1, 1), true), w.store.Attempt(ref("1", tasks, 1), true)
	for i := range tasks {
		write(i)
		if i%500 == 0 {
			for _, a := range []*Attempt{first, last} {
				if _, err := a.Add(0, Stdout, a.Size(0, Stdout), []byte("still here\n")); err != nil {
					b.Fatal(err)
				}
			}
		}
	}
	for _, name := range []string{"log", "index"} {
		if info, err := os.Stat(filepath.Join(w.dir, "1", name)); err == nil {
			b.Logf("%s: %d bytes for each task", name, info.Size()/tasks)
		}
	}
	read := func(b *testing.B, i int) {
		want := fmt.Sprintf("result of task %d\n", i)
		if got, err := w.read(ref("1", i, 1), 0, Stdout, 0, int64(len(want))); err != nil || string(got) != want {
			b.Fatalf("%q, %v", got, err)
		}
	}
	b.Run("read", func(b *testing.B) {
		for b.Loop() {
			read(b, rand.IntN(tasks))
		}
	})
	b.Run("look for none", func(b *testing.B) {
		for b.Loop() {
			a := w.store.Attempt(ref("1", rand.IntN(tasks), 2), true)
			if a.Find(1); a.Size(0, Stderr) != 0 {
				b.Fatal("there is some")
			}
		}
	})
	b.Run("open after a kill and read", func(b *testing.B) {
		for b.Loop() {
			w.open()
			read(b, rand.IntN(tasks))
		}
	})
	b.Run("make the index anew and read", func(b *testing.B) {
		for b.Loop() {
			if err := os.Remove(filepath.Join(w.dir, "1", "index")); err != nil {
				b.Fatal(err)
			}
			w.open()
			read(b, rand.IntN(tasks))
		}
	})
}

// BenchmarkLong reads an output of many small pieces from its beginning.
func BenchmarkLong(b *testing.B) {
	w := newWorld(b)
	r, size := ref("1", 0, 1), 0
	a := w.store.Attempt(r, true)
	for i := range 100_000 {
		line := fmt.Appendf(nil, "epoch %d\n", i)
		if _, err := a.Add(0, Stdout, int64(size), line); err != nil {
			b.Fatal(err)
		}
		size += len(line)
	}
	b.SetBytes(int64(size))
	for b.Loop() {
		if got, err := w.read(r, 0, Stdout, 0, int64(size)); err != nil || len(got) != size {
			b.Fatal(len(got), err)
		}
	}
}
