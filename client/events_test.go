package client

import (
	"bufio"
	"io"
	"strings"
	"testing"
)

func TestMessages(t *testing.T) {
	t.Parallel()
	text := ": hello\n\nid: 7\ndata: {\"a\"\ndata: :1}\n\nevent: x\r\nid:8\r\ndata:two\r\n\r\nid: 9\n\ndata\n\nretry: 10\nunknown\ndata: last\n\ndata: half"
	r := bufio.NewReaderSize(strings.NewReader(text), 16)
	want := []message{{"7", []byte("{\"a\"\n:1}")}, {"8", []byte("two")}, {"9", []byte("")}, {"", []byte("last")}}
	for _, w := range want {
		m, err := readMessage(r)
		if err != nil || m.id != w.id || string(m.data) != string(w.data) {
			t.Errorf("%q %q, %v; want %q %q", m.id, m.data, err, w.id, w.data)
		}
	}
	if _, err := readMessage(r); err != io.ErrUnexpectedEOF {
		t.Errorf("half a message ends with %v", err)
	}
	if _, err := readMessage(bufio.NewReader(strings.NewReader("data: " + strings.Repeat("x", 2<<20)))); err != errLong {
		t.Errorf("a long line: %v", err)
	}
	if _, err := readMessage(bufio.NewReader(strings.NewReader(strings.Repeat("data: xxxxxxxxxxxxxxxxxx\n", 1<<17)))); err != errLong {
		t.Errorf("a long message: %v", err)
	}
	if _, err := readMessage(bufio.NewReader(strings.NewReader(""))); err != io.EOF {
		t.Errorf("the end: %v", err)
	}
}

func FuzzMessages(f *testing.F) {
	f.Add("id: 1\ndata: {}\n\n")
	f.Add("data: x\r\n\r\n: c\n\n\n")
	f.Fuzz(func(t *testing.T, text string) {
		r := bufio.NewReaderSize(strings.NewReader(text), 16)
		total := 0
		for {
			m, err := readMessage(r)
			if err != nil {
				return
			}
			if total += len(m.data); m.data == nil || total > len(text) || strings.ContainsAny(m.id, "\n") {
				t.Fatalf("%q gives %q %q", text, m.id, m.data)
			}
		}
	})
}
