package mounts

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/shoal-pool/shoal/internal/rig/fileservers"
	"github.com/shoal-pool/shoal/internal/rig/guest"
)

// The kernel's clients, against ganesha and Samba: this host's kernel may have none, so they are tried in a virtual machine with
// Debian's. These tests are run there, see kernel_test.go.
func TestGuest(t *testing.T) {
	needHost(t)
	dir, err := os.MkdirTemp("", "shoal-mounts-guest-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	for _, err := range []error{os.Chmod(dir, 0o755), os.Mkdir(filepath.Join(dir, "export"), 0o777), os.Mkdir(filepath.Join(dir, "team"), 0o777),
		os.Chmod(filepath.Join(dir, "team"), 0o777), os.Mkdir(filepath.Join(dir, "nfs"), 0o755), os.Mkdir(filepath.Join(dir, "smb"), 0o755)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	nfs, err := fileservers.StartNFS(filepath.Join(dir, "nfs"), fileservers.NFSExport{Name: "export", Dir: filepath.Join(dir, "export")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = nfs.Close() })
	const password = "b64/secret+of==the,team"
	smb, err := fileservers.StartSMB(filepath.Join(dir, "smb"), []fileservers.SMBUser{{Name: "team", UID: 31001, Password: password}},
		fileservers.SMBShare{Name: "team", Dir: filepath.Join(dir, "team")}, fileservers.SMBShare{Name: "sealed", Dir: filepath.Join(dir, "team"), Sealed: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = smb.Close() })

	program := filepath.Join(dir, "mounts.test")
	cmd := exec.CommandContext(t.Context(), "go", "test", "-c", "-trimpath", "-ldflags", "-s -w", "-o", program, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	host := "http://" + guest.Host + ":" + serversOf(t, nfs, smb)
	r, err := guest.Run(t.Context(), guest.Config{Programs: []string{"unshare", "nsenter"}, Files: map[string]string{"mounts.test": program}, Timeout: 5 * time.Minute,
		Command: []string{"/mounts.test", "-test.v", "-test.run", "^TestKernel"},
		Env: []string{"SHOAL_TEST_NFS=" + nfs.URL(guest.Host, "export"), "SHOAL_TEST_SMB=" + smb.URL(guest.Host, "team"), "SHOAL_TEST_SMB_SEALED=" + smb.URL(guest.Host, "sealed"),
			"SHOAL_TEST_SMB_USER=team", "SHOAL_TEST_SMB_PASSWORD=" + password, "SHOAL_TEST_AZURE_KEY=" + password, "SHOAL_TEST_CONTROL=" + host}})
	t.Logf("the guest said:\n%s", r.Output)
	if err != nil || r.Code != 0 {
		t.Fatalf("exit status %d, %v; console:\n%s", r.Code, err, r.Console)
	}
	if n := len(regexp.MustCompile(`(?m)^--- PASS: TestKernel`).FindAllString(r.Output, -1)); n != 3 {
		t.Errorf("%d tests passed there", n)
	}
}

// serversOf lets the guest stop and start the servers. It returns the port.
func serversOf(t *testing.T, nfs *fileservers.NFSServer, smb *fileservers.SMBServer) string {
	t.Helper()
	mux := http.NewServeMux()
	for path, do := range map[string]func(body string) error{
		"/nfs/stop": func(string) error { return nfs.Kill() }, "/nfs/start": func(string) error { return nfs.Start() },
		"/smb/stop": func(string) error { return smb.Kill() }, "/smb/start": func(string) error { return smb.Start() },
		"/smb/password": func(body string) error { return smb.SetPassword("team", body) }} {
		mux.HandleFunc("POST "+path, func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(io.LimitReader(r.Body, 1024))
			if err == nil {
				err = do(string(body))
			}
			if err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
			w.WriteHeader(http.StatusNoContent)
		})
	}
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	_, port, err := net.SplitHostPort(s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}
