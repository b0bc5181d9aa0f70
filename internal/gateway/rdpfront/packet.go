package rdpfront

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// request is a client's first packet: an X.224 connection request in a TPKT ([MS-RDPBCGR] 2.2.1.1).
type request struct {
	raw    []byte // as it came, to be passed on
	name   string // of the cookie mstshash; empty: none
	token  string // another cookie or routing token, of load balancers
	offers bool   // it negotiates security, so that it understands an answer which refuses
}

const (
	tpktVersion  = 3
	tpktHead     = 4
	x224Head     = 7 // length indicator, code, two references, class
	x224Request  = 0xe0
	maxPacket    = tpktHead + 1 + 255 // the length indicator is one byte
	negotiation  = 8
	negRequest   = 1
	nameCookie   = "Cookie: mstshash="
	maxNameBytes = 128
)

var errPacket = errors.New("it is not the first packet of RDP")

// readRequest reads the first packet and not a byte more. The reader's deadline is the caller's affair.
func readRequest(r io.Reader) (request, error) {
	buf := make([]byte, tpktHead, maxPacket)
	if _, err := io.ReadFull(r, buf[:1]); err != nil {
		return request{}, err
	}
	if buf[0] != tpktVersion { // told at once: who speaks another protocol may wait for us
		return request{}, errPacket
	}
	if _, err := io.ReadFull(r, buf[1:]); err != nil {
		return request{}, err
	}
	size := int(binary.BigEndian.Uint16(buf[2:]))
	if size < tpktHead+x224Head || size > maxPacket {
		return request{}, fmt.Errorf("%w: it would have %d bytes", errPacket, size)
	}
	buf = buf[:size]
	if _, err := io.ReadFull(r, buf[tpktHead:]); err != nil {
		return request{}, err
	}
	return parseRequest(buf)
}

// parseRequest reads a packet that is there as a whole.
func parseRequest(raw []byte) (request, error) {
	if len(raw) < tpktHead+x224Head || len(raw) > maxPacket || raw[0] != tpktVersion || int(binary.BigEndian.Uint16(raw[2:])) != len(raw) {
		return request{}, errPacket
	}
	body := raw[tpktHead:]
	if int(body[0]) != len(body)-1 || body[1] != x224Request {
		return request{}, errPacket
	}
	q := request{raw: raw}
	rest := body[x224Head:]
	// A line, then the negotiation. Either may be missing.
	if line, after, ok := bytes.Cut(rest, []byte("\r\n")); ok && !negotiates(rest) {
		if name, ok := strings.CutPrefix(string(line), nameCookie); ok {
			q.name = clean(name)
		} else {
			q.token = clean(string(line))
		}
		rest = after
	}
	q.offers = negotiates(rest)
	return q, nil
}

// negotiates reports whether b begins with a request to negotiate security.
func negotiates(b []byte) bool {
	return len(b) >= negotiation && b[0] == negRequest && binary.LittleEndian.Uint16(b[2:]) == negotiation
}

// clean is a name as it can be looked up and logged: what could not be part of one makes it none.
func clean(s string) string {
	if len(s) > maxNameBytes || !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return ""
	}
	return s
}

// inconsistent is the failure that fits no particular mistake of the client: one that offers other security at once would
// be refused again.
const inconsistent = 4

// refusal is the answer that ends the connection: an X.224 confirmation with a negotiation failure (2.2.1.2.2).
func refusal() []byte {
	return []byte{tpktVersion, 0, 0, 19, 14, 0xd0, 0, 0, 0x12, 0x34, 0, 3, 0, negotiation, 0, inconsistent, 0, 0, 0}
}
