package sharetest

import (
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoal-pool/shoal/internal/rig"
	"github.com/shoal-pool/shoal/internal/rig/fileservers"
	"github.com/shoal-pool/shoal/internal/rig/guest"
)

// needHost leaves a test out where it cannot run. A missing program is a failure.
func needHost(t *testing.T) {
	t.Helper()
	if testing.Short() || os.Geteuid() != 0 {
		t.Skip("file servers and machines need root, and are left out with -short")
	}
	if err := rig.LookAt(filepath.Join("..", "..")); err != nil {
		t.Fatal(err)
	}
}

// place makes a directory that strangers may enter, with further ones in it that belong to a user of a server's.
func place(t *testing.T, uid int, names ...string) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "shoal-shares-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		d := filepath.Join(dir, name)
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(d, uid, uid); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// uidOf is the owner of a file on a server.
func uidOf(t *testing.T, file string) int {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(file, &st); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	return int(st.Uid)
}

// ends closes a server when the test ends, and shows its log if that failed.
func ends(t *testing.T, s *fileservers.Server) {
	t.Helper()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the file server says:\n%s", s.Log())
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}

const filesUID = 31001

// The kernel's clients, in a virtual machine, against ganesha and Samba.
func TestKernelClients(t *testing.T) {
	needHost(t)
	t.Parallel()
	dir := place(t, 0, "open", "squashed", "squashed/open")
	smbDir := place(t, filesUID, "team", "sealed")
	if err := os.Chmod(filepath.Join(dir, "squashed/open"), 0o777|os.ModeSticky); err != nil {
		t.Fatal(err)
	}
	nfs, err := fileservers.StartNFS(filepath.Join(dir, "nfs"), fileservers.NFSExport{Name: "open", Dir: filepath.Join(dir, "open")},
		fileservers.NFSExport{Name: "squashed", Dir: filepath.Join(dir, "squashed"), Squash: true})
	if err != nil {
		t.Fatal(err)
	}
	ends(t, nfs.Server)
	const password = "b64/secret+of==the,team"
	smb, err := fileservers.StartSMB(filepath.Join(dir, "smb"), []fileservers.SMBUser{{Name: "team", UID: filesUID, Password: password}},
		fileservers.SMBShare{Name: "team", Dir: filepath.Join(smbDir, "team")}, fileservers.SMBShare{Name: "sealed", Dir: filepath.Join(smbDir, "sealed"), Sealed: true})
	if err != nil {
		t.Fatal(err)
	}
	ends(t, smb.Server)

	program := filepath.Join(dir, "kernel.test")
	cmd := exec.CommandContext(t.Context(), "go", "test", "-c", "-trimpath", "-ldflags", "-s -w", "-o", program, "./kernel")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	began := time.Now()
	r, err := guest.Run(t.Context(), guest.Config{Programs: []string{"flock"}, Files: map[string]string{"kernel.test": program}, Timeout: 15 * time.Minute,
		Command: []string{"/kernel.test", "-test.v", "-test.parallel", "2", "-test.run", "^TestKernel"},
		Env: []string{"SHOAL_TEST_NFS=nfs://" + guest.Host + ":" + nfs.Port, "SHOAL_TEST_SMB=smb://" + guest.Host + ":" + smb.Port,
			"SHOAL_TEST_SMB_PASSWORD=" + password, "SHOAL_TEST_CONTROL=http://" + guest.Host + ":" + controls(t, nfs, smb)}})
	t.Logf("the guest took %s and said:\n%s", time.Since(began), r.Output)
	if err != nil || r.Code != 0 {
		t.Fatalf("exit status %d, %v; console:\n%s", r.Code, err, r.Console)
	}
	passed := regexp.MustCompile(`(?m)^--- PASS: TestKernel`).FindAllString(r.Output, -1)
	if len(passed) != 5 {
		t.Errorf("%d tests passed there", len(passed))
	}

	// What the guest did is on the servers' disks, and is there whose it should be.
	for file, uid := range map[string]int{"open/home/ann/note": 20001, "squashed/open/ann/note": 20001, "squashed/open/home/bea/note": 20003} {
		if got := uidOf(t, filepath.Join(dir, file)); got != uid {
			t.Errorf("%s belongs to %d on its server", file, got)
		}
	}
	for _, file := range []string{"team/note", "team/home/ann/note", "sealed/cloudy", "team/after"} {
		if got := uidOf(t, filepath.Join(smbDir, file)); got != filesUID {
			t.Errorf("%s belongs to %d on its server", file, got)
		}
	}
}

// controls lets the guest stop and start the servers. It returns the port.
func controls(t *testing.T, nfs *fileservers.NFSServer, smb *fileservers.SMBServer) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	handle := func(path string, do func(body string) error) {
		mux.HandleFunc("POST "+path, func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(io.LimitReader(r.Body, 1024))
			if err == nil {
				err = do(string(body))
			}
			if err != nil {
				t.Errorf("%s: %v", path, err)
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
			w.WriteHeader(http.StatusNoContent)
		})
	}
	for name, s := range map[string]*fileservers.Server{"nfs": nfs.Server, "smb": smb.Server} {
		handle("/"+name+"/stop", func(string) error { return s.Kill() })
		handle("/"+name+"/start", func(string) error { return s.Start() })
	}
	handle("/smb/password", func(p string) error { return smb.SetPassword("team", p) })
	server := &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}
	go func() { _ = server.Serve(l) }() // until it is closed
	t.Cleanup(func() { server.Close() })
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}
