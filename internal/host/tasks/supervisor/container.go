package supervisor

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoal-pool/shoal/internal/host/tasks"
)

// containerRuntime runs commands in containers.
type containerRuntime struct {
	name string // podman, apptainer or docker
	path string
}

// refusedCode is podman's and docker's exit code for trouble of their own.
const refusedCode = 125

func (r *containerRuntime) refused(code int) bool {
	return r != nil && code == refusedCode && r.name != "apptainer"
}

// dockerSocket is where docker's server listens, without which its command is of no use.
const dockerSocket = "/var/run/docker.sock"

// findRuntime finds what runs the order's container. What it returns is why nothing does. Those that need no server
// and no root come first.
func (t *task) findRuntime() string {
	if t.req.Order.Container == nil {
		return ""
	}
	closed, others := false, ""
	for _, name := range []string{"podman", "apptainer", "docker"} {
		for _, dir := range filepath.SplitList(t.env["PATH"]) {
			path := filepath.Join(dir, name)
			if info, err := os.Stat(path); err != nil || !filepath.IsAbs(path) || !info.Mode().IsRegular() || info.Mode()&0o111 == 0 {
				continue
			}
			if name == "docker" && !t.mayUse(dockerSocket) {
				closed = true
				continue
			}
			if !t.suits(name) {
				others = name
				continue
			}
			t.runtime = &containerRuntime{name, path}
			return ""
		}
	}
	if others != "" {
		return fmt.Sprintf("its image %s needs apptainer, which the machine has not: %s cannot run the processes of one task that are started apart",
			t.req.Order.Container.Image, others)
	}
	if closed {
		return fmt.Sprintf("its image %s needs a container runtime, and the machine's only one is docker, which %s may not use here",
			t.req.Order.Container.Image, t.req.Order.User)
	}
	return fmt.Sprintf("its image %s needs a container runtime, and the machine has none: neither podman, apptainer nor docker is in %s",
		t.req.Order.Container.Image, t.env["PATH"])
}

// find finds a program as the task would; empty: there is none.
func (t *task) find(name string) string {
	for _, dir := range filepath.SplitList(t.env["PATH"]) {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && filepath.IsAbs(path) && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return path
		}
	}
	return ""
}

// hasNumbers reports whether the user may use other uids in containers than her own. See subuid(5).
func (t *task) hasNumbers() bool {
	b, err := os.ReadFile("/etc/subuid")
	if err != nil {
		return false
	}
	for l := range strings.Lines(string(b)) {
		if who, _, ok := strings.Cut(l, ":"); ok && (who == string(t.req.Order.User) || who == strconv.Itoa(t.req.Person.UID)) {
			return true
		}
	}
	return false
}

// mayUse reports whether the user may write to a socket.
func (t *task) mayUse(socket string) bool {
	var st unix.Stat_t
	if unix.Stat(socket, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return false
	}
	p := t.req.Person
	switch {
	case int(st.Uid) == p.UID:
		return st.Mode&0o200 != 0
	case int(st.Gid) == p.GID, slices.Contains(p.Groups, int(st.Gid)):
		return st.Mode&0o020 != 0
	}
	return st.Mode&0o002 != 0
}

// insideFile is a file of an order whose command starts processes that are each to run in the container: we make it a
// program that runs its arguments there. The command itself runs on the machine, as mpirun must, which starts processes
// on other machines.
const insideFile = "inside"

// suits reports whether a runtime can run the processes of the order's command where they are started apart. MPI's need to see
// the machine's processes and files, and docker's outlive whoever started them.
func (t *task) suits(runtime string) bool {
	how, apart := t.req.Order.Files[insideFile]
	return !apart || runtime == "apptainer" || runtime == "podman" && how != "mpi"
}

// inside is that program.
func (t *task) inside() string {
	var b strings.Builder
	b.WriteString("#!/bin/sh\n# Runs a program in the task's container.\nexec")
	part := t.container() + "-part"
	for _, word := range t.calling(part) {
		if word == part {
			b.WriteString(" " + part + "-$$")
			continue
		}
		b.WriteString(" '" + strings.ReplaceAll(word, "'", `'\''`) + "'")
	}
	b.WriteString(" \"$@\"\n")
	return b.String()
}

// argv is a command as it is run: by the shell, in the order's container if it has one.
func (t *task) argv(command string) []string {
	shell := []string{shellPath, "-c", command}
	if _, apart := t.req.Order.Files[insideFile]; t.req.Order.Container == nil || t.runtime == nil || apart && command == t.req.Order.Command {
		return shell
	}
	return append(t.calling(t.container()), shell...)
}

// calling begins the call of the runtime, up to the program that is to run in the container of that name.
func (t *task) calling(name string) []string {
	c := t.req.Order.Container
	var argv []string
	switch t.runtime.name {
	case "apptainer":
		argv = []string{t.runtime.path, "exec", "--pwd", t.workdir}
		for _, m := range t.places() {
			argv = append(argv, "--bind", m)
		}
	default:
		argv = []string{t.runtime.path, "run", "--rm", "--name", name, "--network=host", "--log-driver=none", "--workdir", t.workdir}
		for _, m := range t.places() {
			argv = append(argv, "--volume", m+":"+m)
		}
		for _, k := range t.told() {
			argv = append(argv, "--env", k) // with the value that the command itself has
		}
	}
	argv = append(argv, t.containerGPUs()...)
	p := t.req.Person
	switch t.runtime.name {
	case "podman":
		// Of runc, without root, all processes stay in the task's control group; crun asks for groups of its own
		// unless it is told not to.
		if t.find("crun") != "" {
			argv = append(argv, "--cgroups=disabled")
		}
		// Else root in the container is the user outside of it: that needs no further numbers.
		if t.hasNumbers() {
			argv = append(argv, "--userns=keep-id")
		}
	case "docker":
		argv = append(argv, "--user", fmt.Sprintf("%d:%d", p.UID, p.GID))
		for _, g := range p.Groups {
			argv = append(argv, "--group-add", fmt.Sprint(g))
		}
		if m := t.req.Order.Resources.Memory; m > 0 { // its server's control groups are not ours
			argv = append(argv, "--memory", fmt.Sprint(int64(m)))
		}
		if n := t.req.Order.Resources.CPUs; n > 0 {
			argv = append(argv, "--cpu-shares", fmt.Sprint(max(2, int64(n)*1024/1000)))
		}
	}
	image := c.Image
	if t.runtime.name == "apptainer" && !strings.Contains(image, "://") && !strings.HasPrefix(image, "/") && !strings.HasPrefix(image, ".") && !strings.HasSuffix(image, ".sif") {
		image = "docker://" + image
	}
	return append(append(argv, c.Options...), image)
}

// container is the name of the task's container.
func (t *task) container() string { return "shoal-" + t.name }

// places are what a container sees of the machine: the shares, the home, the working directory, and what is the
// task's own. One that lies within another comes with that.
func (t *task) places() []string {
	all := append(slices.Clone(t.req.Mounts), t.req.Person.Home, t.workdir, t.dir, t.s.set.JobScratch(t.ref.Job))
	if len(t.req.Order.Files) > 0 || t.req.Order.SSH != nil {
		all = append(all, t.s.set.FilesOf(t.name))
	}
	for i := range all {
		all[i] = filepath.Clean(all[i])
	}
	slices.Sort(all)
	var out []string
	for _, p := range all {
		within := slices.ContainsFunc(out, func(o string) bool { return p == o || strings.HasPrefix(p, o+"/") })
		if !within && filepath.IsAbs(p) && p != "/" && !strings.Contains(p, ":") {
			out = append(out, p)
		}
	}
	return out
}

// told are the variables that a container is told: all but those that say how the machine is.
func (t *task) told() []string {
	var out []string
	for k := range t.env {
		_, ordered := t.req.Order.Env[k]
		if ordered && k != "PATH" || k == "HOME" || k == "USER" || k == "LOGNAME" || strings.HasPrefix(k, "SHOAL_") {
			out = append(out, k)
		}
	}
	slices.Sort(out)
	return out
}

// removeTime bounds the removal of a container that its client left behind.
const removeTime = 10 * time.Second

// endContainer removes a container whose client did not end by itself: docker's are not in the task's control group,
// and podman remembers those that were killed.
func (t *task) endContainer() {
	if _, apart := t.req.Order.Files[insideFile]; t.runtime == nil || apart || t.runtime.name == "apptainer" || t.result.Started.IsZero() || t.stopped == "" && t.result.Signal == 0 {
		return
	}
	gone := make(chan exit, 1)
	pid, err := t.s.forks.start(forkRequest{argv: []string{t.runtime.path, "rm", "--force", t.container()}, env: t.environ(), dir: "/",
		person: t.req.Person, group: t.group, exit: gone, files: []uintptr{t.s.null(), t.s.null(), t.s.null()}})
	if err != nil {
		t.note("its container could not be removed: " + err.Error())
		return
	}
	t.firsts = append(t.firsts, tasks.Started{PID: pid, Born: tasks.Born(pid)})
	switch e, inTime := within(removeTime, gone, func() { _ = syscall.Kill(-pid, syscall.SIGKILL) }); {
	case !inTime:
		t.note("its container could not be removed in time")
	case e.status != 0:
		t.note(fmt.Sprintf("%s rm said that it failed: its container may still be there", t.runtime.name))
	}
}

// within waits for the end of a process that has a limit. Once killed it is waited for only as long as that may take: its home's
// file server may hold it.
func within(limit time.Duration, gone <-chan exit, kill func()) (e exit, inTime bool) {
	select {
	case e = <-gone:
		return e, true
	case <-time.After(limit):
	}
	kill()
	select {
	case e = <-gone:
	case <-time.After(deadTime):
	}
	return e, false
}
