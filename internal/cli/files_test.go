package cli

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shoal-pool/shoal/api"
)

// TestFiles: what is listed is downloaded, into the directory and nowhere else, whole or not at all.
func TestFiles(t *testing.T) {
	w := newWorld(t)
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	all := []api.JobFile{{Output: "model", Path: "run 1", Dir: true, Modified: at}, {Output: "model", Path: "run 1/w?.pt", Size: 7, Modified: at}, {Output: "model", Path: "z", Size: 0, Modified: at}}
	list := func(items ...api.JobFile) api.List[api.JobFile] { return api.List[api.JobFile]{Items: items} }
	broken := 0
	w.mux.HandleFunc("GET /api/v1/jobs/17/files", func(rw http.ResponseWriter, r *http.Request) {
		switch r.URL.Query().Get("under") {
		case "":
			reply(rw, 200, list(all...))
		case "model/run 1":
			reply(rw, 200, list(all[1]))
		case "model/run 1/w?.pt":
			reply(rw, 200, list(all[1]))
		case "evil":
			reply(rw, 200, list(api.JobFile{Output: "evil", Path: "../../x", Size: 7}))
		}
	})
	w.mux.HandleFunc("GET /api/v1/jobs/17/files/{path...}", func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Content-Disposition", "attachment")
		if r.PathValue("path") == "model/z" {
			http.ServeContent(rw, r, "", at, strings.NewReader(""))
			return
		}
		if broken++; broken%2 == 1 && r.Header.Get("Range") == "" {
			rw.Header().Set("Content-Length", "7")
			rw.Header().Set("Last-Modified", at.Format(http.TimeFormat))
			rw.Write([]byte("wei"))
			rw.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}
		http.ServeContent(rw, r, "", at, strings.NewReader("weights"))
	})
	golden(t, "job-files-17", w.run("job", "files", "17").stdout)
	if got := w.run("job", "files", "17", "-o", "json"); got.code != 0 || !strings.Contains(got.stdout, `"path": "run 1/w?.pt"`) {
		t.Errorf("%+v", got)
	}
	w.run("job", "files", "17", "model/run 1/w?.pt").want(t, 0, "weights")
	if got := w.run("job", "files", "17", "model/run 1"); got.code != 0 || !strings.Contains(got.stdout, "FILE") {
		t.Errorf("a directory of one file: %+v", got)
	}
	dir := t.TempDir()
	for _, c := range []struct{ under, want string }{{"", "all/model/run 1/w?.pt"}, {"model/run 1", "one/w?.pt"}, {"model/run 1/w?.pt", "file/w?.pt"}} {
		into, _, _ := strings.Cut(c.want, "/")
		args := []string{"job", "files", "17", "-O", filepath.Join(dir, into)}
		if c.under != "" {
			args = append(args, c.under)
		}
		w.run(args...).want(t, 0, "")
		b, err := os.ReadFile(filepath.Join(dir, c.want))
		if err != nil || string(b) != "weights" {
			t.Errorf("%s: %q, %v", c.want, b, err)
		}
		if info, err := os.Stat(filepath.Join(dir, c.want)); err != nil || !info.ModTime().Equal(at) {
			t.Errorf("%s is of another time: %v", c.want, err)
		}
	}
	if info, err := os.Stat(filepath.Join(dir, "all/model/z")); err != nil || info.Size() != 0 {
		t.Errorf("an empty file: %v", err)
	}
	if got := w.run("job", "files", "17", "evil", "-O", filepath.Join(dir, "deep/evil")); got.code == 0 || !strings.Contains(got.stderr, "cannot put") {
		t.Errorf("a file that leads out: %+v", got)
	}
	var left []string
	for _, pattern := range []string{"*/.*", "*/*/.*", "*/*/*/.*", "x", "*/x"} {
		found, _ := filepath.Glob(filepath.Join(dir, pattern))
		left = append(left, found...)
	}
	if len(left) > 0 {
		t.Errorf("%v are left", left)
	}
	w.run("job", "files", "17/3").want(t, 2, "")
}
