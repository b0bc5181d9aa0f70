package rdpfront

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

// packet makes a client's first packet: a line, perhaps, and a negotiation, perhaps.
func packet(line string, negotiation ...byte) []byte {
	body := []byte{0, 0xe0, 0, 0, 0, 0, 0}
	if line != "" {
		body = append(body, line+"\r\n"...)
	}
	body = append(body, negotiation...)
	body[0] = byte(len(body) - 1)
	return append([]byte{3, 0, 0, byte(4 + len(body))}, body...)
}

var (
	tlsOnly = []byte{1, 0, 8, 0, 1, 0, 0, 0}
	// seen is what FreeRDP 2 sent.
	seen = []byte("\x03\x00\x00\x2b\x26\xe0\x00\x00\x00\x00\x00Cookie: mstshash=alice\r\n\x01\x00\x08\x00\x03\x00\x00\x00")
)

func TestParseRequest(t *testing.T) {
	t.Parallel()
	correlation := append(bytes.Clone(tlsOnly), append([]byte{6, 0, 36, 0}, make([]byte, 32)...)...)
	for _, c := range []struct {
		what   string
		raw    []byte
		name   string
		token  string
		offers bool
	}{
		{"FreeRDP", seen, "alice", "", true},
		{"no negotiation", packet("Cookie: mstshash=alice"), "alice", "", false},
		{"no cookie", packet("", tlsOnly...), "", "", true},
		{"nothing at all", packet(""), "", "", false},
		{"a correlation behind it", packet("Cookie: mstshash=bob", correlation...), "bob", "", true},
		{"a load balancer's cookie", packet("Cookie: msts=3640205228.15629.0000", tlsOnly...), "", "Cookie: msts=3640205228.15629.0000", true},
		{"a routing token", packet("tsv://MS Terminal Services Plugin.1.x", tlsOnly...), "", "tsv://MS Terminal Services Plugin.1.x", true},
		{"a domain", packet(`Cookie: mstshash=LAB\alice`, tlsOnly...), `LAB\alice`, "", true},
		{"an empty name", packet("Cookie: mstshash=", tlsOnly...), "", "", true},
		{"a name that is none", packet("Cookie: mstshash=a\x01b", tlsOnly...), "", "", true},
		{"a name that is too long", packet("Cookie: mstshash="+strings.Repeat("a", 200), tlsOnly...), "", "", true},
		{"a line that does not end", packet("", []byte("Cookie: mstshash=alice")...), "", "", false},
	} {
		q, err := readRequest(iotest.OneByteReader(bytes.NewReader(append(bytes.Clone(c.raw), "TLS"...))))
		if err != nil || q.name != c.name || q.token != c.token || q.offers != c.offers || !bytes.Equal(q.raw, c.raw) {
			t.Errorf("%s: %+v, %v", c.what, q, err)
		}
	}
}

func TestReadRequestRefuses(t *testing.T) {
	t.Parallel()
	for what, raw := range map[string]string{
		"another protocol":    "GET / HTTP/1.1\r\n\r\n",
		"ssh":                 "SSH-2.0-x\r\n",
		"too long":            "\x03\x00\xff\xff\x26\xe0",
		"too short":           "\x03\x00\x00\x05\x00",
		"a wrong inner size":  "\x03\x00\x00\x0b\x26\xe0\x00\x00\x00\x00\x00",
		"another X.224":       "\x03\x00\x00\x0b\x06\xd0\x00\x00\x00\x00\x00",
		"less than its size":  "\x03\x00\x00\x2b\x26\xe0",
		"nothing":             "",
		"only its first byte": "\x03",
	} {
		_, err := readRequest(strings.NewReader(raw))
		if err == nil {
			t.Errorf("%s: no error", what)
		}
		if !errors.Is(err, errPacket) && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func FuzzReadRequest(f *testing.F) {
	f.Add(seen)
	f.Add(packet("Cookie: msts=1.2.3", tlsOnly...))
	f.Add(packet("", tlsOnly...))
	f.Add([]byte("\x03\x00\x00\x0b\x06\xe0\x00\x00\x00\x00\x00"))
	f.Add([]byte("\x03\x00\xff\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		q, err := readRequest(r)
		read := len(b) - r.Len()
		if read > maxPacket {
			t.Fatalf("%d bytes were read", read)
		}
		if err != nil {
			return
		}
		if !bytes.Equal(q.raw, b[:read]) {
			t.Fatal("what would be passed on is not what came")
		}
		if len(q.name) > maxNameBytes || strings.ContainsAny(q.name+q.token, "\x00\r\n") {
			t.Fatalf("%+v", q)
		}
		again, err := parseRequest(q.raw)
		if err != nil || again.name != q.name || again.offers != q.offers {
			t.Fatalf("%+v, %v", again, err)
		}
	})
}
