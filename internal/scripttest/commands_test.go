package scripttest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/shoal-pool/shoal/internal/rig/cluster"
	"github.com/shoal-pool/shoal/internal/rig/fileservers"
)

// bin is where the script's shoal lies.
func bin(ts *testscript.TestScript) string { return filepath.SplitList(ts.Getenv("PATH"))[1] }

// serve [FLAG…] starts the server and waits until it answers.
func serve(ts *testscript.TestScript, neg bool, args []string) {
	onlyPlain(ts, neg, "serve")
	ts.Check(of(ts).start(bin(ts), args...))
}

// stop-serve ends the server as an operator would; its machines go on.
func stopServe(ts *testscript.TestScript, neg bool, _ []string) {
	onlyPlain(ts, neg, "stop-serve")
	ts.Check(of(ts).stop(syscall.SIGTERM))
}

// kill9 ends the server as a crash would.
func kill9(ts *testscript.TestScript, neg bool, _ []string) {
	onlyPlain(ts, neg, "kill9")
	ts.Check(of(ts).stop(syscall.SIGKILL))
}

// leftovers removes all pools, stops the server and looks for what it left on the host.
func leftovers(ts *testscript.TestScript, neg bool, _ []string) {
	onlyPlain(ts, neg, "leftovers")
	w := of(ts)
	ts.Check(w.empty(bin(ts)))
	ts.Check(w.endDatabase())
	left, err := w.left()
	ts.Check(err)
	if len(left) == 0 {
		return
	}
	ts.Fatalf("left on the host:\n%s\nserver:\n%s", strings.Join(left, "\n"), w.tail())
}

// person NAME… makes keys/NAME and keys/NAME.pub, which ssh NAME@pool uses, and the variable
// NAME_key with the public line.
func person(ts *testscript.TestScript, neg bool, names []string) {
	onlyPlain(ts, neg, "person")
	w := of(ts)
	for _, name := range names {
		file := w.path("keys", name)
		ts.Check(ts.Exec("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", file))
		public, err := os.ReadFile(file + ".pub")
		ts.Check(err)
		ts.Setenv(name+"_key", strings.TrimSpace(string(public)))
		config, err := os.OpenFile(w.path("ssh_config"), os.O_APPEND|os.O_WRONLY, 0)
		ts.Check(err)
		_, err = fmt.Fprintf(config, "Match user \"%s,%s+*\"\n    IdentityFile %s\n", name, name, file)
		ts.Check(errors.Join(err, config.Close()))
	}
}

// fill FILE… replaces $NAME in files by the script's variables.
func fill(ts *testscript.TestScript, neg bool, files []string) {
	onlyPlain(ts, neg, "fill")
	for _, f := range files {
		f = ts.MkAbs(f)
		text, err := os.ReadFile(f)
		ts.Check(err)
		ts.Check(os.WriteFile(f, []byte(os.Expand(string(text), ts.Getenv)), 0o644))
	}
}

// exits CODE COMMAND… runs a command that must exit with the code; stdout and stderr can be looked at.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	onlyPlain(ts, neg, "exits")
	if len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND…")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	if e, ok := errors.AsType[*exec.ExitError](err); ok {
		got = e.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// wait-for PATTERN COMMAND… runs a command again and again until its stdout matches.
func waitFor(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: wait-for PATTERN COMMAND…")
	}
	pattern, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	for deadline := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		if out, err := quietly(ts, args[1:]...); err == nil && pattern.MatchString(out) != neg {
			return
		}
		if time.Now().After(deadline) {
			err := ts.Exec(args[1], args[2:]...) // once more, for the record
			ts.Fatalf("waited in vain for %q: %v\nserver:\n%s", args[0], err, of(ts).tail())
		}
	}
}

// quietly runs a command of a script without a word in its record.
func quietly(ts *testscript.TestScript, args ...string) (string, error) {
	cmd := exec.Command("env", args...) // env looks for the program in the PATH of the script
	for _, name := range []string{"PATH", "HOME", "LC_ALL", "SHOAL_DATA", "TEAM", "WORK"} {
		cmd.Env = append(cmd.Env, name+"="+ts.Getenv(name))
	}
	cmd.Dir = ts.MkAbs(".")
	out, err := cmd.Output()
	return string(out), err
}

var shellBlock = regexp.MustCompile("(?ms)^```sh\n(.*?)^```$")

// guide FILE runs the commands of a page's ```sh blocks, in order, each block in one shell, beside a copy of
// examples/. The page's addresses and directories become the script's own; a line that starts a server starts
// the script's.
func guide(ts *testscript.TestScript, neg bool, args []string) {
	onlyPlain(ts, neg, "guide")
	w := of(ts)
	text, err := os.ReadFile(filepath.Join(w.root, args[0]))
	ts.Check(err)
	blocks := shellBlock.FindAllStringSubmatch(string(text), -1)
	if len(blocks) == 0 {
		ts.Fatalf("%s has no ```sh block", args[0])
	}
	own := strings.NewReplacer("/srv/team", w.path("team"), "/var/lib/shoal", w.path("data"), "2222", w.ssh, "7420", w.api, "7443", w.https, "3389", w.rdp)
	if w.files != "" {
		own = strings.NewReplacer("files.example.org", w.files, "/srv/team", w.path("team"))
	}
	if w.database != "" {
		own = strings.NewReplacer("postgres://shoal@db.example.org/shoal", w.database, "/var/lib/shoal", w.path("data"))
	}
	team, err := os.ReadFile(filepath.Join(w.root, "examples", "team.yaml"))
	ts.Check(err)
	ts.Check(os.MkdirAll(w.path("examples"), 0o755))
	ts.Check(os.WriteFile(w.path("examples", "team.yaml"), []byte(own.Replace(string(team))), 0o644))
	for _, b := range blocks {
		var script []string
		for line := range strings.Lines(b[1]) {
			line = strings.TrimSuffix(line, "\n")
			if strings.HasPrefix(line, "shoal serve") {
				ts.Check(w.start(bin(ts)))
				continue
			}
			script = append(script, own.Replace(line))
		}
		if err := ts.Exec("sh", "-euxc", strings.Join(script, "\n")); err != nil {
			ts.Fatalf("%s: %v in\n%s", args[0], err, b[1])
		}
	}
}

// fileserver starts an SMB server with the share team for the user of that name, whose password is "correct horse". It offers
// files/team, is files.example.org in a guide, and ends with the script.
func fileserver(ts *testscript.TestScript, neg bool, _ []string) {
	onlyPlain(ts, neg, "fileserver")
	w := of(ts)
	const uid = 31001
	dir := w.path("files", "team")
	ts.Check(errors.Join(os.MkdirAll(dir, 0o755), os.Chown(dir, uid, uid)))
	for d := dir; d != filepath.Dir(d); d = filepath.Dir(d) { // the way to it is for strangers, too
		st, err := os.Stat(d)
		ts.Check(err)
		if st.Mode().Perm()&0o011 != 0o011 {
			ts.Check(os.Chmod(d, st.Mode()|0o011))
		}
	}
	s, err := fileservers.StartSMB(w.path("files", "smb"), []fileservers.SMBUser{{Name: "team", UID: uid, Password: "correct horse"}},
		fileservers.SMBShare{Name: "team", Dir: dir})
	ts.Check(err)
	ts.Defer(func() { ts.Check(s.Close()) })
	w.files = "127.0.0.1:" + s.Port
	w.before, err = look(w.root) // it was there before the server
	ts.Check(err)
}

// database starts a PostgreSQL and makes an empty database, whose address is the variable DATABASE. In a guide it is
// postgres://shoal@db.example.org/shoal. It ends with the script.
func database(ts *testscript.TestScript, neg bool, _ []string) {
	onlyPlain(ts, neg, "database")
	pg, err := cluster.New(context.Background(), "fsync=off")
	ts.Check(err)
	w := of(ts)
	w.endDatabase = sync.OnceValue(pg.Close)
	ts.Defer(func() { ts.Check(w.endDatabase()) })
	w.database, err = pg.Database(context.Background())
	ts.Check(err)
	ts.Setenv("DATABASE", w.database)
}

func onlyPlain(ts *testscript.TestScript, neg bool, name string) {
	if neg {
		ts.Fatalf("%s cannot be negated", name)
	}
}
