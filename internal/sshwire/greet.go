package sshwire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

// Version is how we name ourselves to clients and machines. OpenSSH tells the other side
// that a reader has gone (eow@openssh.com), by which `ssh host yes | head` ends, only to a
// software version that begins with OpenSSH. What follows keeps this from being any version of it.
const Version = "SSH-2.0-OpenSSH_compatible_Shoal"

const (
	maxVersionLine = 255     // RFC 4253, section 4.2, with the line's end
	maxKexInit     = 35000   // RFC 4253, section 6.1
	msgKexInit     = 20      // RFC 4253, section 12
	kexInitHead    = 1 + 16  // its number and the cookie
	packetHead     = 4 + 1   // length, and length of padding
	maxNames       = 1 << 10 // of one list of algorithms
	cipherLists    = 2       // the lists of ciphers follow those of key exchanges and host keys
)

// Offer is what a client says about itself before anything is encrypted.
type Offer struct {
	Version string // its version line
	// Ciphers, from the client and to it, in its order. Empty where it waits for us to speak first.
	In, Out []string
}

// Greet sends our version line and reads the client's with, if it comes within patience, its first
// message of key exchange. Both can be read again: the SSH server that is then put on
// c sees them as if nothing had happened. An error means that no SSH client is there.
// Deadline is set again on c when Greet returns without one.
func (c *Conn) Greet(patience time.Duration, deadline time.Time) (Offer, error) {
	hello := []byte(Version + "\r\n")
	if _, err := c.Conn.Write(hello); err != nil {
		return Offer{}, err
	}
	c.told = hello
	g := greeting{conn: c}
	line, err := g.line()
	if err != nil {
		return Offer{}, err
	}
	offer := Offer{Version: line}
	c.SetReadDeadline(time.Now().Add(patience))
	packet, err := g.packet()
	c.SetReadDeadline(deadline)
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		return Offer{}, err
	}
	if err == nil {
		offer.In, offer.Out, err = parseKexInit(packet)
	} else {
		err = nil
	}
	g.giveBack()
	return offer, err
}

// greeting reads and remembers what it has read.
type greeting struct {
	conn *Conn
	seen []byte
}

// more reads until at least n bytes have been seen. It goes around Conn.Read, so
// that a deadline here does not count as the end of the connection.
func (g *greeting) more(n int) error {
	if len(g.seen) >= n {
		return nil
	}
	b := shared.ahead.Get().(*[]byte)
	defer shared.ahead.Put(b)
	for len(g.seen) < n {
		m, err := g.conn.Conn.Read((*b)[:min(len(*b), 4096)])
		g.seen = append(g.seen, (*b)[:m]...)
		if err != nil && len(g.seen) < n {
			return err
		}
	}
	return nil
}

func (g *greeting) line() (string, error) {
	for {
		if end := bytes.IndexByte(g.seen, '\n'); end >= 0 && end < maxVersionLine {
			line := strings.TrimSuffix(string(g.seen[:end]), "\r")
			if !strings.HasPrefix(line, "SSH-2.0-") && !strings.HasPrefix(line, "SSH-1.99-") {
				return "", errors.New("it does not speak SSH 2.0")
			}
			return line, nil
		}
		if len(g.seen) >= maxVersionLine {
			return "", errors.New("it does not begin with a version line")
		}
		if err := g.more(len(g.seen) + 1); err != nil {
			return "", err
		}
	}
}

// packet returns the payload of the first packet, which is never encrypted.
func (g *greeting) packet() ([]byte, error) {
	start := bytes.IndexByte(g.seen, '\n') + 1
	if err := g.more(start + packetHead); err != nil {
		return nil, err
	}
	size := binary.BigEndian.Uint32(g.seen[start:])
	padding := uint32(g.seen[start+4])
	if size > maxKexInit || size < padding+1+kexInitHead {
		return nil, fmt.Errorf("its first packet has an impossible size of %d", size)
	}
	if err := g.more(start + 4 + int(size)); err != nil {
		return nil, err
	}
	return g.seen[start+packetHead : start+4+int(size-padding)], nil
}

func (g *greeting) giveBack() {
	g.conn.ahead = g.seen
}

// parseKexInit reads the lists of ciphers from a client's SSH_MSG_KEXINIT.
func parseKexInit(p []byte) (in, out []string, err error) {
	bad := errors.New("its first message of key exchange cannot be read")
	if len(p) < kexInitHead || p[0] != msgKexInit {
		return nil, nil, bad
	}
	p = p[kexInitHead:]
	var lists [cipherLists + 2][]string
	for i := range lists {
		if len(p) < 4 {
			return nil, nil, bad
		}
		n := binary.BigEndian.Uint32(p)
		if p = p[4:]; uint64(n) > uint64(len(p)) {
			return nil, nil, bad
		}
		if names := string(p[:n]); names != "" {
			lists[i] = strings.SplitN(names, ",", maxNames)
		}
		p = p[n:]
	}
	return lists[cipherLists], lists[cipherLists+1], nil
}

// Ciphers returns what to offer the client. A client chooses the first of its own list that
// we offer too, which for OpenSSH is ChaCha20; here that is several times slower than
// AES-GCM, for which processors have instructions. So a client that can do AES-GCM is offered nothing else.
func (o Offer) Ciphers() []string {
	var both []string
	for _, c := range []string{ssh.CipherAES128GCM, ssh.CipherAES256GCM} {
		if slices.Contains(o.In, c) && slices.Contains(o.Out, c) {
			both = append(both, c)
		}
	}
	if len(both) > 0 {
		return both
	}
	return ssh.SupportedAlgorithms().Ciphers
}

// Packed reports whether both directions of a connection are encrypted with AES-GCM, see Conn.Pack.
func Packed(c ssh.ConnMetadata) bool {
	a, ok := c.(ssh.AlgorithmsConnMetadata)
	if !ok {
		return false
	}
	gcm := func(name string) bool { return name == ssh.CipherAES128GCM || name == ssh.CipherAES256GCM }
	return gcm(a.Algorithms().Read.Cipher) && gcm(a.Algorithms().Write.Cipher)
}

// GoneError reports whether err only says that the other side has left.
func GoneError(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}
