package wire

import (
	"encoding/json"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/provider"
)

// Protocol is the version spoken here.
const Protocol = 1

// Mode is how a program wants to be run. It is also the program's only argument.
type Mode string

// The modes. A program is asked to describe itself in the first.
const (
	Once    Mode = "once"
	Session Mode = "session"
)

// The environment of a program, beside what the server's own holds.
const (
	EnvInstallation = "SHOAL_INSTALLATION" // the tag that every machine made for this server carries
	EnvDir          = "SHOAL_PROVIDER_DIR" // a directory of its own, also the working directory
	EnvControlDir   = "SHOAL_CONTROL_DIR"  // to be bound at /run/shoal/control in machines on the server's host
	EnvBinDir       = "SHOAL_BIN_DIR"      // where shoal-agent and shoal lie
)

// Op is what is asked for.
type Op string

// The operations. Check is asked only of who says that it can.
const (
	OpDescribe Op = "describe"
	OpObserve  Op = "observe"
	OpCreate   Op = "create"
	OpStart    Op = "start"
	OpStop     Op = "stop"
	OpDelete   Op = "delete"
	OpCheck    Op = "check"
)

// Request is one call.
type Request struct {
	Protocol int   `json:"protocol"`
	ID       int64 `json:"id,omitempty"` // in a session
	Op       Op    `json:"op"`
	// Machine is all of it for create and start, and its id for stop and delete. For check it is one that the pool would have, without
	// id, token and join.
	Machine *Machine `json:"machine,omitempty"`
}

// Machine is a provider.MachineSpec.
type Machine struct {
	ID           shoal.MachineID `json:"id,omitempty"`
	Pool         shoal.PoolName  `json:"pool,omitempty"`
	Token        string          `json:"token,omitempty"`
	Image        string          `json:"image,omitempty"`
	OS           string          `json:"os,omitempty"`
	CPUs         float64         `json:"cpus,omitempty"`
	MemoryBytes  int64           `json:"memoryBytes,omitempty"`
	GPUs         int             `json:"gpus,omitempty"`
	Mounts       []Mount         `json:"mounts,omitempty"`
	Config       map[string]any  `json:"config,omitempty"`
	Setuid       bool            `json:"setuid,omitempty"`
	Private      bool            `json:"private,omitempty"`
	GraceSeconds float64         `json:"graceSeconds,omitempty"`
	Join         *provider.Join  `json:"join,omitempty"`
}

// Mount is a share to be mounted. Values of secrets are never sent.
type Mount struct {
	Share    string            `json:"share"`
	Source   string            `json:"source"`
	Options  map[string]string `json:"options,omitempty"`
	Path     string            `json:"path"`
	ReadOnly bool              `json:"readOnly,omitempty"`
}

// Answer is what became of one call, or in a session a word that something has changed.
type Answer struct {
	ID          int64        `json:"id,omitempty"`
	Changed     bool         `json:"changed,omitempty"`
	Error       *Error       `json:"error,omitempty"`
	Description *Description `json:"description,omitempty"` // to describe
	// To observe: Machines are those that carry the installation's tag. Unless the list is Complete, one that is not in it may
	// still exist.
	Machines []Observed `json:"machines,omitempty"`
	Complete bool       `json:"complete,omitempty"`
}

// Error is a provider.Error. In mode once its code is the exit status's.
type Error struct {
	Code    provider.Code `json:"code,omitempty"`
	Message string        `json:"message"`
	Until   time.Time     `json:"until,omitzero"`
}

// Description is what a program says of itself.
type Description struct {
	Protocol     int          `json:"protocol"`
	Mode         Mode         `json:"mode"`
	Capabilities Capabilities `json:"capabilities"`
	// Settings is the JSON Schema of a pool's providerConfig.
	Settings json.RawMessage `json:"settings,omitempty"`
}

// Capabilities are provider.Capabilities.
type Capabilities struct {
	Mounts      provider.MountSide `json:"mounts"`
	UserSlices  bool               `json:"userSlices,omitempty"`
	Stop        bool               `json:"stop,omitempty"`
	Windows     bool               `json:"windows,omitempty"`
	Check       bool               `json:"check,omitempty"`
	CPUs        float64            `json:"cpus,omitempty"`
	MemoryBytes int64              `json:"memoryBytes,omitempty"`
	GPUs        int                `json:"gpus,omitempty"`
	Parallel    int                `json:"parallel,omitempty"`
}

// Observed is a provider.Observed with the tag that the machine carries.
type Observed struct {
	ID           shoal.MachineID `json:"id"`
	Installation string          `json:"installation"`
	Pool         shoal.PoolName  `json:"pool"`
	ProviderID   string          `json:"providerId"`
	Phase        provider.Phase  `json:"phase"`
	Reason       string          `json:"reason,omitempty"`
	Address      string          `json:"address,omitempty"`
	Outdated     string          `json:"outdated,omitempty"`
	Trouble      string          `json:"trouble,omitempty"`
}

// Exit returns the exit status that stands for a code in mode once. Those of programs that fail by accident are none of them.
func Exit(c provider.Code) int {
	for i, known := range codes() {
		if c == known {
			return firstExit + i
		}
	}
	return 1
}

// CodeOf is the code that an exit status stands for: Transient unless it is one of Exit's.
func CodeOf(status int) provider.Code {
	if i := status - firstExit; i >= 0 && i < len(codes()) {
		return codes()[i]
	}
	return provider.Transient
}

const firstExit = 10

func codes() []provider.Code {
	return []provider.Code{provider.NotFound, provider.NoCapacity, provider.Quota, provider.Denied, provider.Transient, provider.Invalid}
}

// MachineOf writes a machine down.
func MachineOf(s provider.MachineSpec) *Machine {
	m := &Machine{ID: s.ID, Pool: s.Pool, Token: s.Token, Image: s.Image, OS: s.OS, CPUs: float64(s.Resources.CPUs) / 1000,
		MemoryBytes: int64(s.Resources.Memory), GPUs: s.Resources.GPUs, Config: s.Config, Setuid: s.Setuid, Private: s.Private,
		GraceSeconds: s.Grace.Seconds()}
	if s.Join != (provider.Join{}) {
		m.Join = &s.Join
	}
	for _, x := range s.Mounts {
		m.Mounts = append(m.Mounts, Mount{Share: string(x.Share.Name), Source: x.Share.Source, Options: x.Share.Options, Path: x.Path, ReadOnly: x.ReadOnly})
	}
	return m
}

// Spec reads a machine.
func (m Machine) Spec() provider.MachineSpec {
	s := provider.MachineSpec{ID: m.ID, Pool: m.Pool, Token: m.Token, Image: m.Image, OS: m.OS,
		Resources: shoal.Resources{CPUs: milli(m.CPUs), Memory: shoal.Bytes(m.MemoryBytes), GPUs: m.GPUs},
		Config:    m.Config, Setuid: m.Setuid, Private: m.Private, Grace: time.Duration(m.GraceSeconds * float64(time.Second))}
	if m.Join != nil {
		s.Join = *m.Join
	}
	for _, x := range m.Mounts {
		s.Mounts = append(s.Mounts, provider.Mount{Share: shoal.Share{Name: shoal.ShareName(x.Share), Source: x.Source, Options: x.Options}, Path: x.Path, ReadOnly: x.ReadOnly})
	}
	return s
}

func milli(cpus float64) shoal.MilliCPU { return shoal.MilliCPU(cpus*1000 + 0.5) }

// Seam returns the capabilities as the seam has them.
func (c Capabilities) Seam() provider.Capabilities {
	return provider.Capabilities{Mounts: c.Mounts, UserSlices: c.UserSlices, Stop: c.Stop, Windows: c.Windows, Parallel: c.Parallel,
		Machine: shoal.Resources{CPUs: milli(c.CPUs), Memory: shoal.Bytes(c.MemoryBytes), GPUs: c.GPUs}}
}

// Seam returns an observed machine as the seam has it.
func (o Observed) Seam() provider.Observed {
	return provider.Observed{ID: o.ID, Pool: o.Pool, ProviderID: o.ProviderID, Phase: o.Phase, Reason: o.Reason, Address: o.Address,
		Outdated: o.Outdated, Trouble: o.Trouble}
}
