package sshwire

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

// kexInit makes a client's first packet.
func kexInit(lists ...string) []byte {
	p := append([]byte{msgKexInit}, make([]byte, 16)...)
	for _, l := range lists {
		p = binary.BigEndian.AppendUint32(p, uint32(len(l)))
		p = append(p, l...)
	}
	p = append(p, 0, 0, 0, 0, 0)
	padding := 8 - (len(p)+5)%8 + 4
	packet := binary.BigEndian.AppendUint32(nil, uint32(len(p)+1+padding))
	packet = append(packet, byte(padding))
	packet = append(packet, p...)
	return append(packet, make([]byte, padding)...)
}

// loopback returns both ends of a connection.
func loopback(t testing.TB) (net.Conn, net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	a, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

func TestGreetGivesBackWhatItRead(t *testing.T) {
	openssh := kexInit("curve25519-sha256", "ssh-ed25519", "chacha20-poly1305@openssh.com,aes128-ctr,aes128-gcm@openssh.com",
		"aes128-gcm@openssh.com,aes256-gcm@openssh.com", "", "", "none", "none", "", "")
	sent := append([]byte("SSH-2.0-OpenSSH_9.2p1 Debian\r\n"), openssh...)
	sent = append(sent, "what follows"...)
	client, server := loopback(t)
	go func() {
		for _, piece := range [][]byte{sent[:5], sent[5:40], sent[40:41], sent[41:]} {
			client.Write(piece)
		}
		client.(*net.TCPConn).CloseWrite()
	}()
	ended := make(chan error, 1)
	c := NewConn(server, func(err error) { ended <- err })
	offer, err := c.Greet(time.Minute, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	if offer.Version != "SSH-2.0-OpenSSH_9.2p1 Debian" || !slices.Equal(offer.Ciphers(), []string{ssh.CipherAES128GCM}) {
		t.Errorf("%+v, offered %v", offer, offer.Ciphers())
	}
	all, err := io.ReadAll(c)
	if err != nil || !bytes.Equal(all, sent) {
		t.Errorf("read again: %q, %v", all, err)
	}
	if err := <-ended; err != io.EOF {
		t.Errorf("the end was %v", err)
	}
	// The version line is sent once, though the server on top sends it again.
	c.Write([]byte(Version + "\r\n"))
	c.Write([]byte("next"))
	server.Close()
	if got, _ := io.ReadAll(client); string(got) != Version+"\r\nnext" {
		t.Errorf("the client got %q", got)
	}
}

func TestGreetDoesNotWaitForASilentClient(t *testing.T) {
	client, server := loopback(t)
	client.Write([]byte("SSH-2.0-Waits\n"))
	c := NewConn(server, nil)
	offer, err := c.Greet(10*time.Millisecond, time.Time{})
	if err != nil || !slices.Equal(offer.Ciphers(), ssh.SupportedAlgorithms().Ciphers) {
		t.Errorf("%+v, %v", offer, err)
	}
	client.Write([]byte("more"))
	client.(*net.TCPConn).CloseWrite()
	if all, err := io.ReadAll(c); err != nil || string(all) != "SSH-2.0-Waits\nmore" {
		t.Errorf("%q, %v", all, err)
	}
}

func TestGreetRefusesWhatIsNotSSH(t *testing.T) {
	for _, s := range []string{"GET / HTTP/1.1\r\n\r\n", strings.Repeat("x", 1000), "SSH-1.5-old\n", "\n",
		"SSH-2.0-x\n\xff\xff\xff\xff\x00", "SSH-2.0-x\n\x00\x00\x00\x0c\xff" + strings.Repeat("x", 20),
		"SSH-2.0-x\n" + string(kexInit("a")[:4]) + "\x04" + strings.Repeat("x", 40)} {
		client, server := loopback(t)
		client.Write([]byte(s))
		client.(*net.TCPConn).CloseWrite()
		if offer, err := NewConn(server, nil).Greet(time.Minute, time.Time{}); err == nil {
			t.Errorf("%.30q: %+v", s, offer)
		}
	}
}

func TestOffersByWhatTheClientCan(t *testing.T) {
	all := ssh.SupportedAlgorithms().Ciphers
	for _, c := range []struct {
		in, out string
		want    []string
	}{
		{"chacha20-poly1305@openssh.com", "chacha20-poly1305@openssh.com", all},
		{"aes128-gcm@openssh.com,aes256-gcm@openssh.com", "aes256-gcm@openssh.com", []string{ssh.CipherAES256GCM}},
		{"aes128-gcm@openssh.com", "aes256-gcm@openssh.com", all},
		{"", "", all},
	} {
		o := Offer{In: strings.Split(c.in, ","), Out: strings.Split(c.out, ",")}
		if got := o.Ciphers(); !slices.Equal(got, c.want) {
			t.Errorf("%s, %s: %v, want %v", c.in, c.out, got, c.want)
		}
	}
}

func FuzzKexInit(f *testing.F) {
	f.Add(kexInit("k", "h", "a,b", "c", "", "", "", "", "", "")[packetHead:])
	f.Add([]byte{msgKexInit})
	f.Fuzz(func(t *testing.T, p []byte) {
		in, out, err := parseKexInit(p)
		if err != nil && (in != nil || out != nil) {
			t.Errorf("%v, %v with %v", in, out, err)
		}
		if n := len(strings.Join(in, "")) + len(strings.Join(out, "")); n > len(p) {
			t.Errorf("%d bytes of names from %d", n, len(p))
		}
	})
}

// With AES-GCM a packet leaves in one piece; nothing is held back for good.
func TestPack(t *testing.T) {
	client, server := loopback(t)
	c := NewConn(server, nil)
	c.Pack()
	var want []byte
	for i := range 50 {
		total := 4 + 16*(i*97+1) + 16
		packet := bytes.Repeat([]byte{byte(i)}, total)
		want = append(want, packet...)
		for len(packet) > headSize { // as a bufio.Writer of headSize does
			c.Write(packet[:headSize])
			packet = packet[headSize:]
			if len(packet) > headSize {
				c.Write(packet)
				packet = nil
			}
		}
		if len(packet) > 0 {
			c.Write(packet)
		}
		got := make([]byte, total)
		client.SetReadDeadline(time.Now().Add(time.Minute))
		if _, err := io.ReadFull(client, got); err != nil || !bytes.Equal(got, want[len(want)-total:]) {
			t.Fatalf("packet %d of %d bytes: %v", i, total, err)
		}
	}
}
