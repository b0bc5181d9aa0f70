package desktop

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shoal-pool/shoal/api"
)

func way() Way {
	return Way{DesktopTicket: api.DesktopTicket{User: "alice", Pool: "lab", Endpoint: "desktop", Address: "127.0.0.1:3389", From: "192.0.2.1",
		Fingerprint: "aa:bb", Password: "abcdefghijklmnopqrstuvwx", Expires: time.Date(2026, 11, 24, 15, 4, 5, 0, time.UTC)}}
}

func TestReached(t *testing.T) {
	t.Parallel()
	for _, c := range [][3]string{
		{"127.0.0.1:3389", "", "127.0.0.1:3389"},
		{"127.0.0.1:3389", "https://gate.example.org:7443", "gate.example.org:3389"},
		{"0.0.0.0:3389", "https://gate.example.org", "gate.example.org:3389"},
		{"[::]:3389", "", "127.0.0.1:3389"},
		{"[::]:3389", "http://[2001:db8::1]:7420", "[2001:db8::1]:3389"},
		{"192.0.2.9:3389", "https://gate.example.org", "192.0.2.9:3389"},
		{"not an address", "", "not an address"},
	} {
		w := way()
		w.Address = c[0]
		w.Reached(c[1])
		if w.Address != c[2] {
			t.Errorf("%s by %q is %s, want %s", c[0], c[1], w.Address, c[2])
		}
	}
}

// The password is in one place only: where she asked to have it.
func TestFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	w := way()
	w.File, w.PasswordFile = filepath.Join(dir, "a.rdp"), filepath.Join(dir, "it's secret")
	if err := os.WriteFile(w.PasswordFile, []byte("former"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := w.Write(); err != nil {
		t.Fatal(err)
	}
	document, err := os.ReadFile(w.File)
	if err != nil || !bytes.Contains(document, []byte("full address:s:127.0.0.1:3389\r\nusername:s:alice\r\n")) {
		t.Errorf("%q, %v", document, err)
	}
	info, err := os.Stat(w.PasswordFile)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	if b, err := os.ReadFile(w.PasswordFile); err != nil || string(b) != w.Password+"\n" {
		t.Errorf("%q, %v", b, err)
	}
	var out bytes.Buffer
	if err := w.Say(&out); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(out.String()+string(document)+w.FreeRDP(), w.Password) {
		t.Errorf("the password is told:\n%s", &out)
	}
	if !strings.Contains(out.String(), `/cert:fingerprint:sha256:aa:bb /bpp:32 /from-stdin:force < '`+dir+`/it'\''s secret'`) {
		t.Errorf("%s", &out)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 2 {
		t.Errorf("%v, %v", left, err)
	}
	w.PasswordFile = ""
	out.Reset()
	if err := w.Say(&out); err != nil || !strings.Contains(out.String(), w.Password) || strings.Contains(w.FreeRDP(), w.Password) {
		t.Errorf("%s %v", &out, err)
	}
	w.File = filepath.Join(dir, "nowhere", "a.rdp")
	if err := w.Write(); err == nil {
		t.Error("a file in no directory was written")
	}
}
