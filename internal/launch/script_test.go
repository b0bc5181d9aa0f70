package launch_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/launch"
)

// unpack writes an order's files into a directory that stands for its TaskDir, and returns a command that runs one of them.
func unpack(t *testing.T, o api.TaskOrder, program string) *exec.Cmd {
	t.Helper()
	dir := t.TempDir()
	for name, text := range o.Files {
		text = strings.ReplaceAll(text, api.TaskDir(o.Ref), dir)
		mode := os.FileMode(0o600)
		if strings.HasPrefix(text, "#!") {
			mode = 0o700
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	c := exec.Command(filepath.Join(dir, program))
	c.Env = []string{"PATH=/usr/bin:/bin", "HOME=" + dir}
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return c
}

func sorted(out []byte) []string {
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	slices.Sort(lines)
	return lines
}

// TestRank: a process that mpirun starts gets the node's variables, its own rank, and the command as it was written.
func TestRank(t *testing.T) {
	t.Parallel()
	spec := shoal.JobSpec{Launcher: "mpi", Dialect: "batchai", Workdir: t.TempDir() + "/it's",
		Command: `printf '%s|' "$RANK/$WORLD_SIZE/$LOCAL_RANK" "$AZ_BATCHAI_TASK_INDEX" "$SHOAL_NODE_RANK" "$ODD" 'a  b' "$(basename "$PWD")"`,
		Env:     map[string]string{"ODD": "it's \"$HOME\"\n`x`\\", "not a name": "x", "9": "x"}}
	if err := os.Mkdir(spec.Workdir, 0o755); err != nil {
		t.Fatal(err)
	}
	c := unpack(t, launch.Order(task(spec, 2), 1), "rank")
	c.Env = append(c.Env, "OMPI_COMM_WORLD_RANK=3", "OMPI_COMM_WORLD_SIZE=4", "OMPI_COMM_WORLD_LOCAL_RANK=1", "SHOAL_NODE_RANK=0")
	out, err := c.CombinedOutput()
	if want := "3/4/1|3|1|" + spec.Env["ODD"] + "|a  b|it's|"; err != nil || string(out) != want {
		t.Errorf("%v\ngot  %q\nwant %q", err, out, want)
	}
}

// TestRanks: a node that starts several processes itself gives each its rank.
func TestRanks(t *testing.T) {
	t.Parallel()
	spec := shoal.JobSpec{Processes: 5, Command: `echo "$RANK $LOCAL_RANK $WORLD_SIZE"`}
	var got []string
	for rank := range 2 {
		out, err := unpack(t, launch.Order(task(spec, 2), rank), "ranks").CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		got = append(got, sorted(out)...)
	}
	if want := []string{"0 0 5", "1 1 5", "2 2 5", "3 0 5", "4 1 5"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestRanksFail: the first process that fails takes the others along, and its status is the node's.
func TestRanksFail(t *testing.T) {
	t.Parallel()
	c := unpack(t, launch.Order(task(shoal.JobSpec{Processes: 3, Command: `if [ $RANK = 1 ]; then exit 7; fi; exec sleep 600`}, 1), 0), "ranks")
	out, err := c.CombinedOutput() // returns only when all that could write have ended
	if e, ok := errors.AsType[*exec.ExitError](err); !ok || e.ExitCode() != 7 {
		t.Errorf("%v: %s", err, out)
	}
}

// TestRanksTerminate: a request to end reaches all processes of a node, who can still say goodbye.
func TestRanksTerminate(t *testing.T) {
	t.Parallel()
	command := `trap 'echo bye $RANK; exit 0' TERM; : >"$OUT/$RANK"; while :; do sleep 0.05; done`
	dir := t.TempDir()
	c := unpack(t, launch.Order(task(shoal.JobSpec{Processes: 2, Command: command, Env: map[string]string{"OUT": dir}}, 1), 0), "ranks")
	var b strings.Builder
	c.Stdout, c.Stderr = &b, &b
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	for n := 0; n < 2; time.Sleep(5 * time.Millisecond) {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		n = len(entries)
	}
	if err := syscall.Kill(-c.Process.Pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	_ = c.Wait()                                                                                                 // the status is of no interest to who ended it
	got := slices.DeleteFunc(sorted([]byte(b.String())), func(line string) bool { return line == "Terminated" }) // a shell, of its sleep
	if !slices.Equal(got, []string{"bye 0", "bye 1"}) {
		t.Errorf("%q", got)
	}
}

// TestPorts: tasks of an array that run side by side, and attempts that follow each other, have ports of their own.
func TestPorts(t *testing.T) {
	t.Parallel()
	seen := map[string]string{}
	for position := range 100 {
		for attempt := range 3 {
			x := task(shoal.JobSpec{Array: "0-99"}, 1)
			x.Position, x.Attempt.Index, x.Attempt.Attempt = position, position, attempt+1
			port := launch.Order(x, 0).Env["MASTER_PORT"]
			if other := seen[port]; other != "" {
				t.Errorf("%s and %s share port %s", other, x.Attempt.AttemptRef, port)
			}
			seen[port] = x.Attempt.String()
		}
	}
}

// FuzzText: whatever an item, a pattern or a value says, an order is made, and names that mean nothing stay.
func FuzzText(f *testing.F) {
	f.Add(`{"a":"{b}","b":1}`, "x {a} {c} ${AZ_BATCHAI_X} $AZ_BATCHAI_ %j %% {", "$AZ_BATCHAI_Y")
	f.Add(`"text"`, "{", "${")
	f.Add(`{"a":`, "{a}", "$")
	f.Fuzz(func(t *testing.T, item, text, value string) {
		x := task(shoal.JobSpec{Command: text, Workdir: text, Stdout: text, Signal: text, Dialect: "batchai",
			Env: map[string]string{"AZ_BATCHAI_X": value, text: value}}, 1)
		x.Item = shoal.Item(item)
		o := launch.Order(x, 0)
		if !strings.Contains(item, "{") && o.Command != text {
			t.Errorf("the command %q became %q", text, o.Command)
		}
		plain := task(shoal.JobSpec{Command: text, Workdir: text, Env: map[string]string{"X": value}}, 1)
		if o := launch.Order(plain, 0); o.Command != text || o.Workdir != text || o.Env["X"] != value {
			t.Errorf("%q, %q changed to %q, %q, %q", text, value, o.Command, o.Workdir, o.Env["X"])
		}
	})
}
