package show

import (
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/cli/show/term"
	"github.com/shoal-pool/shoal/internal/usage"
)

// Pools writes pools and how many machines each has.
func Pools(w io.Writer, format string, pools []shoal.Pool, machines []shoal.Machine) error {
	return list(w, format, pools, []string{"NAME", "MACHINES", "SIZE", "SEATS", "USES", "IMAGE", "PROVIDER"}, func(o shoal.Pool) []string {
		return []string{string(o.Name), Population(o, machines), sizeOf(o), fmt.Sprint(o.Seats), Words(o.Uses), o.Image, o.Provider}
	})
}

// Pool writes one pool.
func Pool(w io.Writer, format string, o shoal.Pool) error { return one(w, format, o, poolFields) }

// Progress says how far a pool has come on the way to a size, and whether it is there.
func Progress(o shoal.Pool, machines []shoal.Machine, size int) (string, bool) {
	ready, alive := 0, 0
	var why string
	for _, m := range machines {
		if m.State == shoal.MachineReady {
			ready++
		}
		if m.Alive() {
			alive++
		} else if m.State == shoal.MachineFailed && m.Reason != "" {
			why = fmt.Sprintf("; %s failed: %s", m.ID, m.Reason)
		}
	}
	return Population(o, machines) + why, ready == size && alive == size
}

// Population counts a pool's machines: "2 ready, 1 booting".
func Population(o shoal.Pool, machines []shoal.Machine) string {
	count := map[string]int{}
	for _, m := range machines {
		if m.Pool == o.Name && m.State != shoal.MachineGone {
			count[m.Shown()]++
		}
	}
	var parts []string
	for _, s := range []string{"ready", "draining", "booting", "requested", "stopping", "stopped", "failed"} {
		if count[s] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", count[s], s))
		}
	}
	if len(parts) == 0 {
		return "none"
	}
	return strings.Join(parts, ", ")
}

// sizeOf is what a pool's size is bound to: "0-4", or "fixed at 3".
func sizeOf(o shoal.Pool) string {
	if o.Fixed != nil {
		return strings.TrimSpace(fmt.Sprintf("fixed at %d %s", o.Fixed.Size, term.Until(o.Fixed.Until, time.Now())))
	}
	return fmt.Sprintf("%d-%d", o.Size.Min, o.Size.Max)
}

// reached says where an endpoint is.
func reached(o shoal.Pool, e shoal.Endpoint) string {
	switch {
	case e.Protocol != shoal.ProtocolHTTP:
		return fmt.Sprintf("%s: %s, port %d of the gateway, %d of the machines", e.Name, e.Protocol, e.Listen, e.Port)
	case e.Command == "":
		return fmt.Sprintf("%s: %s, at /hub/", e.Name, e.Protocol)
	}
	return fmt.Sprintf("%s: %s, at /shoal/app/%s/%s/", e.Name, e.Protocol, o.Name, e.Name)
}

// Labelled are the pools with a label, KEY=VALUE or KEY; all of them without one.
func Labelled(pools []shoal.Pool, label string) []shoal.Pool {
	key, value, one := strings.Cut(label, "=")
	return slices.DeleteFunc(pools, func(p shoal.Pool) bool {
		has, ok := p.Labels[key]
		return label != "" && (!ok || one && has != value)
	})
}

func poolFields(o shoal.Pool) []term.Field {
	var mounts, endpoints []string
	for _, m := range o.Mounts {
		mounts = append(mounts, fmt.Sprintf("%s at %s%s", m.Share, m.Path, Only(m.ReadOnly, " (read-only)")))
	}
	for _, e := range o.Endpoints {
		endpoints = append(endpoints, reached(o, e))
	}
	home := "local to each machine"
	switch {
	case o.Home.Layout == shoal.LayoutDSVM:
		home = fmt.Sprintf("local to each machine, with ~/%s and ~/notebooks/remote on %s; the rest is archived there", o.Home.Share, o.Home.Share)
	case o.Home.Share != "":
		home = fmt.Sprintf("%s on %s", o.Home.Path, o.Home.Share)
	}
	size := sizeOf(o)
	if o.Size.Spare > 0 {
		size += ", " + Many(o.Size.Spare, "spare seat")
	}
	var price string
	if o.Price.PerHour > 0 {
		price = fmt.Sprintf("%s %s per machine and hour", usage.Exact(o.Price.PerHour), o.Price.Currency)
	}
	idle := "never"
	if o.Scale.Idle.After > 0 {
		idle = fmt.Sprintf("after %s with nobody there", o.Scale.Idle.After)
		if o.Has(shoal.UseInteractive) {
			idle += fmt.Sprintf("; sessions after %s without use, told %s before", shoal.Duration(o.Scale.Idle.UnusedFor()), o.Scale.Idle.Warn)
		}
	}
	var setup string
	if o.Setup != nil {
		setup = o.Setup.Command
	}
	fields := []term.Field{{"Name", string(o.Name)}, {"Default", Only(o.Default, "yes")}, {"Uses", Words(o.Uses)},
		{"Provider", o.Provider}, {"Image", o.Image}, {"Machine", resources(o.Machine)}, {"Size", size},
		{"Seats", fmt.Sprintf("%d per machine", o.Seats)}, {"Placement", string(o.Placement)}, {"Stops", idle}}
	return append(append(fields, scaleFields(o)...), []term.Field{{"Mounts", strings.Join(mounts, "\n")}, {"Homes", home}, {"Endpoints", strings.Join(endpoints, "\n")},
		{"Setup", setup}, {"Limits", limits(o.Limits)}, {"Price", price}, {"Labels", assignments(o.Labels)}, {"Created", when(o.Created)}, {"Changed", when(o.Updated)}}...)
}

// limits says what a pool allows, a line for each kind.
func limits(l shoal.Limits) string {
	var lines []string
	add := func(set bool, format string, args ...any) {
		if set {
			lines = append(lines, fmt.Sprintf(format, args...))
		}
	}
	add(l.DefaultTimeLimit > 0, "a task ends after %s if it does not say otherwise", l.DefaultTimeLimit)
	add(l.MaxTimeLimit > 0, "a task may run for %s", l.MaxTimeLimit)
	add(l.MinRunTime > 0, "what is more urgent waits until a task has run for %s", l.MinRunTime)
	each := func(who string, tasks int, r shoal.Resources, more ...string) {
		if tasks > 0 {
			more = append(more, Many(tasks, "running task"))
		}
		if r != (shoal.Resources{}) {
			more = append(more, resources(r))
		}
		add(len(more) > 0, "each %s: %s", who, strings.Join(more, ", "))
	}
	u, g := l.PerUser, l.PerGroup
	var people []string
	for _, n := range []struct {
		n    int
		noun string
	}{{u.Sessions, "session"}, {u.Connections, "connection"}, {u.Jobs, "job"}} {
		if n.n > 0 {
			people = append(people, Many(n.n, n.noun))
		}
	}
	each("user", u.Tasks, shoal.Resources{CPUs: u.CPUs, Memory: u.Memory, GPUs: u.GPUs}, people...)
	each("group", g.Tasks, shoal.Resources{CPUs: g.CPUs, Memory: g.Memory, GPUs: g.GPUs})
	return strings.Join(lines, "\n")
}

// resources is "2 CPUs, 4GiB, 1 GPU".
func resources(r shoal.Resources) string {
	var parts []string
	if r.CPUs > 0 {
		noun := "CPUs"
		if r.CPUs == 1000 {
			noun = "CPU"
		}
		parts = append(parts, r.CPUs.String()+" "+noun)
	}
	if r.Memory > 0 {
		parts = append(parts, r.Memory.String())
	}
	if r.GPUs > 0 {
		parts = append(parts, Many(r.GPUs, "GPU"))
	}
	return strings.Join(parts, ", ")
}

// Machines writes machines.
func Machines(w io.Writer, format string, machines []shoal.Machine) error {
	return list(w, format, machines, []string{"ID", "POOL", "STATE", "HEALTH", "CPU", "MEMORY", "SINCE", "REASON"}, func(m shoal.Machine) []string {
		var cpu, memory string
		if m.State == shoal.MachineReady && !reflect.ValueOf(m.Load).IsZero() {
			cpu, memory = fmt.Sprintf("%d%%", m.Load.CPUPercent), m.Load.Memory.String()
		}
		return []string{string(m.ID), string(m.Pool), m.Shown(), Only(m.Alive(), healthOf(m)), cpu, memory, Ago(m.ShownSince()), MachineReason(m)}
	})
}

// MachineReason is why a machine is as it is: of a draining one, its cordons.
func MachineReason(m shoal.Machine) string {
	var parts []string
	if m.Reason != "" {
		parts = append(parts, m.Reason)
	}
	if m.State != shoal.MachineReady { // who keeps people off one that takes nobody anyhow does not matter
		return m.Reason
	}
	for _, i := range m.Ill {
		parts = append(parts, fmt.Sprintf("%s does not answer: %s", i.Endpoint, i.Reason))
	}
	for _, c := range m.Cordons {
		ends := ""
		if !c.Deadline.IsZero() {
			ends = fmt.Sprintf(" (it ends %s)", Ago(c.Deadline))
		}
		parts = append(parts, strings.TrimSuffix(fmt.Sprintf("kept clear%s%s: %s", keeper(c), ends, c.Reason), ": "))
	}
	if m.Outdated != "" {
		parts = append(parts, m.Outdated)
	}
	return strings.Join(parts, "; ")
}

// quietFor is longer than an agent takes from one report to the next, which is two minutes.
const quietFor = 150 * time.Second

// healthOf is a machine's health, and when it was heard last if that is not right now: also of one that counts as up until more
// is known, for its agent may be stuck.
func healthOf(m shoal.Machine) string {
	if m.LastSeen.IsZero() || m.Health == shoal.HealthUp && (m.State != shoal.MachineReady || time.Since(m.LastSeen) < quietFor) {
		return string(m.Health)
	}
	return string(m.Health) + ", last heard " + Ago(m.LastSeen)
}

// keeper is by whom a machine is kept clear: of one that does not answer, by nobody.
func keeper(c shoal.Cordon) string {
	if c.Owner == shoal.CordonHealth {
		return ""
	}
	return " by the " + string(c.Owner)
}

// Machine writes one machine.
func Machine(w io.Writer, format string, m shoal.Machine) error {
	return one(w, format, m, machineFields)
}

func machineFields(m shoal.Machine) []term.Field {
	var cordons []string
	health := healthOf(m)
	wanted := string(m.Wanted)
	if m.State == shoal.MachineGone {
		m.Cordons, health, wanted, m.IdleAt = nil, "", "", time.Time{}
	}
	for _, c := range m.Cordons {
		text := strings.TrimSpace(fmt.Sprintf("%s since %s", keeper(c), when(c.Since)))
		text += Only(!c.Deadline.IsZero(), ", emptied "+Ago(c.Deadline)) + Only(c.Reason != "", ": "+c.Reason)
		cordons = append(cordons, text)
	}
	var ill []string
	for _, i := range m.Ill {
		ill = append(ill, fmt.Sprintf("%s does not answer since %s: %s", i.Endpoint, when(i.Since), i.Reason))
	}
	load := ""
	if m.State == shoal.MachineReady && !reflect.ValueOf(m.Load).IsZero() {
		load = fmt.Sprintf("%d%% CPU, %s memory, %s", m.Load.CPUPercent, m.Load.Memory, Many(m.Load.Processes, "process"))
		load = strings.Replace(load, "processs", "processes", 1)
		if m.Load.GPUs > 0 {
			load += fmt.Sprintf("\n%s, %d%% busy, %s of their memory", Many(m.Load.GPUs, "GPU"), m.Load.GPUPercent, m.Load.GPUMemory)
		}
		load += Only(m.Load.GPUNote != "", "\n"+m.Load.GPUNote)
	}
	return []term.Field{{"ID", string(m.ID)}, {"Pool", string(m.Pool)}, {"State", m.Shown() + ", " + Ago(m.ShownSince())}, {"Reason", m.Reason}, {"Endpoints", strings.Join(ill, "\n")},
		{"Kept clear", strings.Join(cordons, "\n")}, {"Outdated", m.Outdated},
		{"Health", health},
		{"Wanted", wanted}, {"Size", resources(m.Resources)}, {"Load", load}, {"Image", m.Image},
		{"Provider", strings.TrimSpace(m.Provider + " " + m.ProviderID)}, {"Address", m.Address}, {"Reached", m.Reached}, {"Host key", m.HostKey},
		{"Idle since", when(m.IdleAt)}, {"Created", when(m.Created)}, {"Started", when(m.Started)}, {"Ready", when(m.ReadyAt)}, {"Stopped", when(m.Stopped)}}
}
