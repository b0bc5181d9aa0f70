package runner

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
)

// standIn is a container runtime that writes down how it is called and runs the command where it is.
const standIn = `#!/bin/sh
printf '%s ' "$(basename "$0")" "$@" >> "$HOME/calls"; echo >> "$HOME/calls"
[ "$1" = rm ] && exit 0
while [ $# -gt 0 ] && [ "$1" != docker.io/library/debian ] && [ "$1" != docker://docker.io/library/debian ]; do shift; done
case $FAIL in ?*) echo "Error: no such image" >&2; exit 125; esac
shift
IN_CONTAINER=yes exec "$@"
`

func TestContainers(t *testing.T) {
	b := newBox(t, true, func(c *Config) { c.Mounts = func() []string { return []string{"/shared", "/data/sets"} } })
	home, _ := b.cfg.Lookup("alice")
	bin := filepath.Join(b.dir, "bin")
	must(t, os.Mkdir(bin, 0o755))
	tools := filepath.Join(b.dir, "tools") // no more than the stand-in needs: this host may have a real runtime
	must(t, os.Mkdir(tools, 0o755))
	for _, name := range []string{"basename", "sleep"} {
		path, err := exec.LookPath(name)
		must(t, err)
		must(t, os.Symlink(path, filepath.Join(tools, name)))
	}
	in := func(runtime string) func(*api.TaskOrder) {
		for _, name := range []string{"podman", "apptainer", "docker"} {
			_ = os.Remove(filepath.Join(bin, name))
		}
		_ = os.Remove(filepath.Join(home.Home, "calls"))
		for _, name := range []string{runtime, "crun"} {
			must(t, os.WriteFile(filepath.Join(bin, name), []byte(standIn), 0o755))
		}
		return func(o *api.TaskOrder) {
			o.Container = &shoal.Container{Image: "docker.io/library/debian", Options: []string{"--ipc=host"}}
			o.Env["PATH"], o.Env["LR"] = bin+":"+tools, "0.1"
		}
	}
	calls := func() string {
		text, _ := os.ReadFile(filepath.Join(home.Home, "calls"))
		return strings.ReplaceAll(string(text), b.dir, "DIR")
	}
	const command = `echo "$IN_CONTAINER $LR $SHOAL_JOB_ID"; pwd`
	s := b.run(order("1", command, in("podman"), func(o *api.TaskOrder) { o.Files = map[string]string{"hostfile": ""} }))
	if s.report.State != shoal.JobSucceeded || string(s.out[0]) != "yes 0.1 1\n"+home.Home+"\n" {
		t.Errorf("%+v %q %s", s.report, s.out[0], s.out[1])
	}
	want := "podman run --rm --name shoal-1.0.1 --network=host --log-driver=none --workdir DIR/home-alice " +
		"--volume /data/sets:/data/sets --volume /shared:/shared --volume DIR/home-alice:DIR/home-alice --volume DIR/run/tasks/1.0.1:DIR/run/tasks/1.0.1 " +
		"--volume DIR/scratch/1.0.1:DIR/scratch/1.0.1 --volume DIR/scratch/job-1:DIR/scratch/job-1 " +
		"--env HOME --env LOGNAME --env LR --env SHOAL_JOB_ID --env SHOAL_SCRATCH --env USER --cgroups=disabled --ipc=host docker.io/library/debian /bin/sh -c " + command + " \n"
	if calls() != want {
		t.Errorf("it was called as\n%s, want\n%s", calls(), want)
	}
	// Both commands of a job run in its image, and one that is ended leaves no container.
	o := order("2", "echo ready; exec sleep 1000", in("podman"), func(o *api.TaskOrder) { o.Prepare = "echo prepared in $IN_CONTAINER" })
	b.runner.Start(o)
	b.says(o.Ref, "prepared in yes\nready\n")
	b.runner.Stop(api.StopOrder{Ref: o.Ref, State: shoal.JobCancelled})
	if s := b.end(o.Ref); s.report.State != shoal.JobCancelled || !strings.HasSuffix(calls(), "podman rm --force shoal-2.0.1 \n") {
		t.Errorf("%+v: %s", s.report, calls())
	}
	s = b.run(order("3", command, in("apptainer")))
	if s.report.State != shoal.JobSucceeded || !strings.HasPrefix(calls(), "apptainer exec --pwd DIR/home-alice --bind /data/sets --bind /shared ") ||
		!strings.Contains(calls(), " --ipc=host docker://docker.io/library/debian /bin/sh -c ") {
		t.Errorf("%+v: %s", s.report, calls())
	}
	// Processes that the command starts apart run in the container, and the command itself does not.
	apart := func(how string) func(*api.TaskOrder) {
		return func(o *api.TaskOrder) {
			o.Files = map[string]string{"inside": how}
			o.Command = `echo "[$IN_CONTAINER]"; ` + b.cfg.FilesOf("8.0.1") + `/inside /bin/sh -c 'echo "$IN_CONTAINER it'\''s $LR"'`
		}
	}
	s = b.run(order("8", "", in("apptainer"), apart("mpi")))
	if s.report.State != shoal.JobSucceeded || string(s.out[0]) != "[]\nyes it's 0.1\n" {
		t.Errorf("%+v %q %s", s.report, s.out[0], s.out[1])
	}
	for i, c := range []struct {
		runtime, reason string
		change          func(*api.TaskOrder)
	}{
		{"podman", "podman could not run image docker.io/library/debian: Error: no such image", func(o *api.TaskOrder) { o.Env["FAIL"] = "yes" }},
		{"docker", "docker, which alice may not use here", nil},
		{"podman", "needs apptainer, which the machine has not: podman cannot", func(o *api.TaskOrder) { o.Files = map[string]string{"inside": "mpi"} }},
		{"none", "the machine has none: neither podman, apptainer nor docker is in " + bin, func(o *api.TaskOrder) { o.Env["PATH"] = bin }},
	} {
		change := in(c.runtime)
		if c.runtime == "docker" {
			if _, err := os.Stat("/var/run/docker.sock"); err == nil {
				continue // perhaps she may
			}
		}
		r := b.run(order(fmt.Sprint(i+10), "true", func(o *api.TaskOrder) {
			change(o)
			if c.change != nil {
				c.change(o)
			}
		})).report
		if r.State != shoal.JobFailed || r.Cause != shoal.CauseSetupFailed || !strings.Contains(r.Reason, c.reason) || r.ExitCode != 0 {
			t.Errorf("%s: %+v", c.runtime, r)
		}
	}
}
