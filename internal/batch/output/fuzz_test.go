package output

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func FuzzFrame(f *testing.F) {
	one := frame{key: key{index: -3, attempt: 2, sub: 5}, number: 6, offset: 100, back: 50, jump: 70, span: 40}
	f.Add(appendFrame(nil, "1", one, []byte("hello")))
	f.Add(appendFrame(nil, "1", frame{}, []byte("x")))
	f.Add([]byte(magic))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, ok := checkFrame("1", b)
		if !ok {
			return
		}
		data := b[got.head:got.length()]
		again := appendFrame(nil, "1", got, data)
		if f, ok := checkFrame("1", again); !ok || f.key != got.key || f.offset != got.offset || f.span != got.span || !bytes.Equal(again[f.head:], data) {
			t.Errorf("%+v became %+v", got, f)
		}
		if _, ok := checkFrame("2", again); ok {
			t.Error("another job's frame is taken for one's own")
		}
	})
}

func FuzzBlock(f *testing.F) {
	f.Add(encodeBlock(100, []entry{{key{1, 1, 0}, tail{5, 10}}, {key{1, 2, 0}, tail{50, 100}}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		k, ok := parseBlock(b)
		if ok && (k.count <= 0 || k.upTo <= 0) {
			t.Errorf("%+v", k)
		}
	})
}

// Whatever is found on disk, the store opens it, says what it holds in bounded time, and goes on.
func FuzzLog(f *testing.F) {
	w := newWorld(f)
	for i := range 9 {
		w.write(ref("1", i%2, 1), 0, Stdout, []byte("some output\n"))
	}
	w.store.Close()
	log, err1 := os.ReadFile(filepath.Join(w.dir, "1", "log"))
	index, err2 := os.ReadFile(filepath.Join(w.dir, "1", "index"))
	if err1 != nil || err2 != nil {
		f.Fatal(err1, err2)
	}
	f.Add(log, index)
	f.Add(log[:len(log)-5], index)
	f.Add(append(log[20:], log...), index[:30])
	f.Fuzz(func(t *testing.T, log, index []byte) {
		w := newWorld(t)
		if err := errors.Join(os.MkdirAll(filepath.Join(w.dir, "1"), 0o700), os.WriteFile(filepath.Join(w.dir, "1", "log"), log, 0o600),
			os.WriteFile(filepath.Join(w.dir, "1", "index"), index, 0o600)); err != nil {
			t.Fatal(err)
		}
		defer w.store.Close()
		for i := range 2 {
			r := ref("1", i, 1)
			a := w.attempt(r)
			size := a.Size(0, Stdout)
			_, _ = w.read(r, 0, Stdout, 0, size) // an error is an answer
			if _, err := a.Add(0, Stdout, size, []byte("more")); err != nil {
				t.Fatal(err)
			}
			if got, err := w.read(r, 0, Stdout, size, size+4); err != nil || string(got) != "more" {
				t.Errorf("added to %d bytes: %q, %v", size, got, err)
			}
		}
	})
}
