package desktop

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/need"
)

// image makes the files that Serve looks for, and a Server in it. Keys are not made: xrdp-keygen is the host's.
func image(t *testing.T) (*Server, string) {
	t.Helper()
	root := t.TempDir()
	for _, f := range []string{XRDP, Sesman, keygen, "/usr/lib/xorg/Xorg", "/etc/X11/xrdp/xorg.conf", "/etc/pam.d/other"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(root, f)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, f), nil, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	state := filepath.Join(root, "state")
	if err := os.Mkdir(state, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(state, "rsakeys.ini"), []byte("[keys]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return New(Config{Root: root, Dir: filepath.Join(root, "run/shoal/desktop"), State: state, Agent: "/opt/shoal/bin/shoal-agent", Name: "m-1",
		Account: func() (Owner, bool) { return Owner{28605, 28605}, true }, Start: func() error { return nil }}), root
}

func TestServeSaysWhatAnImageLacks(t *testing.T) {
	t.Parallel()
	for _, f := range []string{XRDP, Sesman, keygen, "/usr/lib/xorg/Xorg", "/etc/X11/xrdp/xorg.conf"} {
		s, root := image(t)
		if err := os.Remove(filepath.Join(root, f)); err != nil {
			t.Fatal(err)
		}
		err := s.Serve(t.Context(), order(t, 3389))
		if shoal.KindOf(err) != shoal.KindInvalid || !strings.Contains(err.Error(), filepath.Base(f)) || shoal.HintOf(err) == "" {
			t.Errorf("without %s: %v", f, err)
		}
	}
	s, _ := image(t)
	s.cfg.Account = func() (Owner, bool) { return Owner{}, false }
	if err := s.Serve(t.Context(), order(t, 3389)); shoal.KindOf(err) != shoal.KindInvalid || !strings.Contains(err.Error(), "account xrdp") {
		t.Errorf("without an account: %v", err)
	}
}

// xrdp stands for the real one: it confirms what it is asked for.
func xrdp(t *testing.T, answer []byte) int {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			_, _ = io.ReadFull(c, make([]byte, 19))
			_, _ = c.Write(answer)
			c.Close()
		}
	}()
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	n, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

var confirms = []byte{3, 0, 0, 19, 14, 0xd0, 0, 0, 0x12, 0x34, 0, 2, 1, 8, 0, 1, 0, 0, 0}

func TestServe(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("files get other owners")
	}
	s, root := image(t)
	port := xrdp(t, confirms)
	o := order(t, port)
	// A user was there first.
	if err := os.MkdirAll(filepath.Join(root, "tmp"), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc", filepath.Join(root, "tmp/.X11-unix")); err != nil {
		t.Fatal(err)
	}
	started := 0
	s.cfg.Start = func() error {
		started++
		for _, f := range []string{XRDPConfig(s.cfg.Dir), SesmanConfig(s.cfg.Dir)} {
			if _, err := os.Stat(f); err != nil {
				return err
			}
		}
		return nil
	}
	if err := s.Serve(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{"run/xrdp/sockdir": "dgtrwxrwxrwx", "tmp/.X11-unix": "dtrwxrwxrwx", "run/shoal/desktop/key.pem": "-r--------",
		"run/shoal/desktop/cert.pem": "-rw-r--r--", "etc/xrdp/rsakeys.ini": "-r--------", "run/shoal/desktop": "drwxr-xr-x", "var/log/xrdp": "drwxr-x---"} {
		info, err := os.Lstat(filepath.Join(root, path))
		if err != nil || info.Mode().String() != want {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
	}
	pair, err := tls.LoadX509KeyPair(filepath.Join(s.cfg.Dir, "cert.pem"), filepath.Join(s.cfg.Dir, "key.pem"))
	if err != nil || len(pair.Certificate) != 1 {
		t.Error(err)
	}
	pam, err := os.ReadFile(filepath.Join(root, "etc/pam.d/xrdp-sesman"))
	if err != nil || !strings.Contains(string(pam), "auth requisite pam_exec.so quiet expose_authtok /opt/shoal/bin/shoal-agent password\n") ||
		!strings.Contains(string(pam), "session required pam_exec.so quiet /opt/shoal/bin/shoal-agent enter\n") {
		t.Errorf("%s, %v", pam, err)
	}
	ini, err := os.ReadFile(XRDPConfig(s.cfg.Dir))
	if err != nil || !strings.Contains(string(ini), "\nport="+strconv.Itoa(port)+"\n") || !strings.Contains(string(ini), "\nsecurity_layer=tls\n") {
		t.Errorf("%s, %v", ini, err)
	}
	// Again: the same key, and nothing else changes.
	again := New(s.cfg)
	if err := again.Serve(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	second, err := tls.LoadX509KeyPair(filepath.Join(s.cfg.Dir, "cert.pem"), filepath.Join(s.cfg.Dir, "key.pem"))
	if err != nil || string(second.Certificate[0]) != string(pair.Certificate[0]) || started != 2 {
		t.Errorf("%v, started %d times", err, started)
	}
	log := filepath.Join(root, "var/log/xrdp/xrdp.log")
	if err := os.WriteFile(log, make([]byte, maxLog+1), 0o600); err != nil {
		t.Fatal(err)
	}
	s.CutLogs()
	if info, err := os.Stat(log); err != nil || info.Size() != 0 {
		t.Errorf("%v, %v", info, err)
	}
	// A pool with another certificate, and one with none.
	o = order(t, port)
	if err := again.Serve(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	third, err := tls.LoadX509KeyPair(filepath.Join(s.cfg.Dir, "cert.pem"), filepath.Join(s.cfg.Dir, "key.pem"))
	if err != nil || string(third.Certificate[0]) == string(pair.Certificate[0]) {
		t.Error(err)
	}
	o.Key = order(t, port).Key
	if err := again.Serve(t.Context(), o); shoal.KindOf(err) != shoal.KindInvalid {
		t.Errorf("with the key of another: %v", err)
	}
}

// order is one with a certificate of its own.
func order(t *testing.T, port int) api.DesktopOrder {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, c, c, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return api.DesktopOrder{Port: port, Certificate: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		Key: string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}))}
}

func TestProbe(t *testing.T) {
	t.Parallel()
	if err := Probe(t.Context(), xrdp(t, confirms)); err != nil {
		t.Error(err)
	}
	old := append([]byte{}, confirms...)
	old[15] = 0 // the security of before TLS
	nobody, _ := strconv.Atoi(need.Port(t))
	for what, port := range map[string]int{"without TLS": xrdp(t, old), "says nothing": xrdp(t, nil), "nobody": nobody} {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		if err := Probe(ctx, port); shoal.KindOf(err) != shoal.KindUnavailable || shoal.HintOf(err) == "" {
			t.Errorf("%s: %v", what, err)
		}
		cancel()
	}
}

func TestRootListens(t *testing.T) {
	t.Parallel()
	const head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
	const root = "   0: 0100007F:0D16 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0\n"
	const users = "   0: 0100007F:0D16 00000000:0000 0A 00000000:00000000 00:00000000 00000000 20001        0 1 1 0 100 0 0 10 0\n"
	const six = "   0: 0000000000000000FFFF00000100007F:0D16 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0\n"
	const connected = "   1: 0100007F:0D16 0100007F:C350 01 00000000:00000000 00:00000000 00000000 20001        0 2 1 0 20 4 30 10 -1\n"
	for text, want := range map[string]bool{head: false, head + root: true, head + six: true, head + users: false, head + root + users: false,
		head + connected: false, head + root + connected: true, "": false, "nonsense\n": false} {
		if got := RootListens([]byte(text), SesmanPort); got != want {
			t.Errorf("%v of\n%s", got, text)
		}
	}
	if RootListens([]byte(head+root), 3389) {
		t.Error("another port")
	}
}
