package supervisor

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/host/passes"
	"github.com/shoal-pool/shoal/internal/host/tasks"
)

const userPath = "/usr/local/bin:/usr/bin:/bin:/usr/local/games:/usr/games" // Debian's for users

// keyFile is where the attempt's private key lies, among its files.
const keyFile = "ssh_key"

// setUp makes all that is ours to make. What it returns is why it could not.
func (t *task) setUp() string {
	o := t.req.Order
	var err error
	if t.name, err = tasks.FileName(t.ref); err != nil {
		return err.Error()
	}
	groupErr := t.takeGroup()
	acc := t.accepted()
	acc.Group = t.group.Name()
	if t.slot && groupErr == nil && !t.group.None() {
		if room, ok := t.s.rooms.spare(t.req.Person.UID); ok {
			t.dir, t.dirAt = room.path, room.at
			acc.Scratch = filepath.Base(room.path)
		}
	}
	if t.rec, err = tasks.NewRecord(t.s.set.Dir, t.name, t.req.Spare, tasks.Line{Accepted: &acc}); err != nil {
		return fmt.Sprintf("cannot keep its record on the machine's disk: %v", err)
	}
	if groupErr != nil {
		return groupErr.Error()
	}
	if t.workdir = o.Workdir; t.workdir == "" {
		t.workdir = t.req.Person.Home
	}
	if o.Signal != "" && signalNumber(o.Signal) == 0 {
		return fmt.Sprintf("there is no signal %q", o.Signal)
	}
	if err := t.takeGPUs(); err != nil {
		return fmt.Sprintf("cannot give it its GPUs: %v", err)
	}
	if err := t.scratch(); err != nil {
		return fmt.Sprintf("cannot make its scratch directory: %v", err)
	}
	t.env = t.environment()
	if why := t.findRuntime(); why != "" {
		return why
	}
	if err := t.files(); err != nil {
		return fmt.Sprintf("cannot write its files: %v", err)
	}
	if err := t.admit(); err != nil {
		return err.Error()
	}
	for i, e := range tasks.Endings() {
		t.out[i].path = filepath.Join(t.s.set.Dir, t.name+e)
		if err := t.out[i].open(t.req.Person.UID); err != nil {
			return fmt.Sprintf("cannot read its output: %v", err)
		}
	}
	return ""
}

// takeGroup gets the task a control group: one of its own where it must be found by the task's name, or gets rules
// that others must not inherit, else any that is free.
func (t *task) takeGroup() (err error) {
	o := t.req.Order
	if o.SSH != nil || o.Idle || t.s.set.GPUs != nil {
		t.group, err = t.s.groups.Task(t.req.Person.UID, t.name, o.Resources)
	} else {
		t.slot = true
		t.group, err = t.s.groups.Slot(t.req.Person.UID, o.Resources)
	}
	return err
}

// scratch makes the task's directory for temporary files, and that of the job if it is the first there.
func (t *task) scratch() error {
	p := t.req.Person
	var err error
	if t.dir == "" {
		if t.dirAt, err = t.s.rooms.take(t.s.set.ScratchOf(t.name), p); err != nil {
			return err
		}
		t.dir = t.s.set.ScratchOf(t.name)
	}
	return t.s.rooms.share(t.s.set.JobScratch(t.ref.Job), p)
}

// files writes the order's files. The directory is the user's once they are there, so nobody can put a link in the way.
func (t *task) files() error {
	o := t.req.Order
	if len(o.Files) == 0 && o.SSH == nil {
		return nil
	}
	files := o.Files
	if o.SSH != nil {
		files = maps.Clone(files)
		if files == nil {
			files = map[string]string{}
		}
		files[keyFile] = o.SSH.Key
	}
	if _, apart := files[insideFile]; apart && t.runtime != nil {
		files = maps.Clone(files)
		files[insideFile] = t.inside()
	}
	p := t.req.Person
	dir := t.s.set.FilesOf(t.name)
	if err := os.MkdirAll(t.s.set.Files(), 0o711); err != nil {
		return err
	}
	if err := tasks.RemoveScratch(dir); err != nil { // as above
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
			return shoal.Errorf(shoal.KindInvalid, "%q is not the name of a file", name)
		}
		mode := fs.FileMode(0o600)
		if strings.HasPrefix(files[name], "#!") {
			mode = 0o700
		}
		f, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
		if err != nil {
			return err
		}
		_, err = f.WriteString(files[name])
		if err := errors.Join(err, f.Chown(p.UID, p.GID), f.Close()); err != nil {
			return err
		}
	}
	return os.Lchown(dir, p.UID, p.GID)
}

// admit lets the attempt's other nodes log in.
func (t *task) admit() error {
	o := t.req.Order
	if o.SSH == nil {
		return nil
	}
	p := passes.Pass{Name: t.name, User: string(o.User), Key: o.SSH.Authorized, KeyFile: filepath.Join(t.s.set.FilesOf(t.name), keyFile), Scratch: t.dir}
	for _, n := range o.SSH.Nodes {
		p.Nodes = append(p.Nodes, passes.Node{Name: string(n.Name), Address: n.Address, HostKey: n.HostKey})
	}
	return t.s.passes.Give(p)
}

// environment is the login environment of the task's user, with what the order adds.
func (t *task) environment() map[string]string {
	p := t.req.Person
	shell := p.Shell
	if shell == "" {
		shell = shellPath
	}
	env := make(map[string]string, loginVars+len(t.s.set.Env)+len(t.req.Order.Env))
	env["HOME"], env["USER"], env["LOGNAME"], env["SHELL"] = p.Home, string(t.req.Order.User), string(t.req.Order.User), shell
	env["PATH"], env["LANG"] = userPath, "C.UTF-8"
	for _, kv := range t.s.set.Env {
		if k, v, ok := strings.Cut(kv, "="); ok {
			env[k] = v
		}
	}
	maps.Copy(env, t.req.Order.Env)
	env[passes.Mark] = t.dir
	return env
}

// loginVars is how many variables a login has, and the mark.
const loginVars = 7

// environ is the environment as a process gets it.
func (t *task) environ() []string {
	out := make([]string, 0, len(t.env))
	for k, v := range t.env {
		if k != "" && !strings.Contains(k, "=") {
			out = append(out, k+"="+v)
		}
	}
	slices.Sort(out)
	return out
}

// undo takes back what setUp has made. The pass ends first: who comes later finds no account.
func (t *task) undo() {
	o := t.req.Order
	if t.group.None() && !t.result.Started.IsZero() {
		tasks.KillStrays(t.req.Person.UID, t.dir, t.firsts)
	}
	if !t.group.Free() {
		if err := tasks.RemoveGroup(t.group); err != nil {
			t.note(err.Error())
		}
	}
	if len(o.Files) > 0 || o.SSH != nil {
		if err := tasks.RemoveScratch(t.s.set.FilesOf(t.name)); err != nil {
			t.note(fmt.Sprintf("its files could not be removed: %v", err))
		}
	}
	if t.dir != "" {
		if err := t.s.rooms.free(t.dir, t.dirAt, t.req.Person); err != nil {
			t.note(fmt.Sprintf("its scratch directory could not be removed: %v", err))
		}
	}
}
