package sshfront

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/crypto/ssh"
)

func itoa(n int) string { return strconv.Itoa(n) }

func marshalString(s string) []byte { return ssh.Marshal(struct{ S string }{s}) }

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// signer is the users' key.
func (w *world) signer(t testing.TB) ssh.Signer {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(w.dir, "id"))
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.ParsePrivateKey(text)
	if err != nil {
		t.Fatal(err)
	}
	return signer
}

// dial connects with a client of our own, for what OpenSSH's does not do on request.
func (w *world) dial(t testing.TB, user string) *ssh.Client {
	t.Helper()
	c, err := ssh.Dial("tcp", w.addr, &ssh.ClientConfig{
		User: user, Auth: []ssh.AuthMethod{ssh.PublicKeys(w.signer(t))}, HostKeyCallback: ssh.InsecureIgnoreHostKey(),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// runs reports whether a process of the machine has a text in its command line.
func (m *machine) runs(text string) bool {
	for _, pid := range m.children() {
		line, _ := os.ReadFile("/proc/" + itoa(pid) + "/cmdline")
		if strings.Contains(strings.ReplaceAll(string(line), "\x00", " "), text) {
			return true
		}
	}
	return false
}
