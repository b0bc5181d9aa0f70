package shoal

import "time"

// MachineState is a machine's place in its life. See Transitions.
type MachineState string

// The states of a machine.
const (
	MachineRequested MachineState = "requested" // wanted and recorded, perhaps not yet asked for
	MachineBooting   MachineState = "booting"   // the provider has it; the agent has not said ready
	MachineReady     MachineState = "ready"     // a probe login worked and wrote to each mount
	MachineStopping  MachineState = "stopping"
	MachineStopped   MachineState = "stopped"
	MachineFailed    MachineState = "failed"
	MachineGone      MachineState = "gone"
)

// Health is what is heard from a machine's agent.
type Health string

// The healths. Unknown is not down: a probe that fails changes nothing until grace is over.
const (
	HealthUp      Health = "up"
	HealthUnknown Health = "unknown"
	HealthDown    Health = "down"
)

// CordonOwner is who put a cordon on a machine; only the owner takes it away.
type CordonOwner string

// The owners of cordons.
const (
	CordonOperator   CordonOwner = "operator"
	CordonAutoscaler CordonOwner = "autoscaler"
	CordonHealth     CordonOwner = "health"
	CordonRollout    CordonOwner = "rollout"
	CordonProvider   CordonOwner = "provider" // its provider tells of trouble: a share that does not answer, a node that is closed
)

// UnmarshalText reads an owner. The provider's trouble was once on record as that of a share.
func (o *CordonOwner) UnmarshalText(text []byte) error {
	if *o = CordonOwner(text); *o == "share" {
		*o = CordonProvider
	}
	return nil
}

// Cordon keeps new users and tasks off a machine. A ready machine with any is shown as draining.
type Cordon struct {
	Owner    CordonOwner `json:"owner"`
	Reason   string      `json:"reason,omitempty"`
	Since    time.Time   `json:"since"`
	Deadline time.Time   `json:"deadline,omitzero"`
}

// Machine is one machine of a pool as the control plane knows it.
type Machine struct {
	ID       MachineID    `json:"id"`
	Pool     PoolName     `json:"pool"`
	State    MachineState `json:"state"`
	Reason   string       `json:"reason,omitempty"`
	Since    time.Time    `json:"since"` // of State
	Health   Health       `json:"health,omitempty"`
	LastSeen time.Time    `json:"lastSeen,omitzero"` // last report of its agent; on record, of a machine that is up, up to ten minutes old
	Cordons  []Cordon     `json:"cordons,omitempty"`

	// Wanted is desired state, written by the engine: run, stop or delete.
	Wanted MachineWanted `json:"wanted"`

	Provider   string    `json:"provider"`
	ProviderID string    `json:"providerId,omitempty"`
	Address    string    `json:"address,omitempty"` // host:port of sshd
	HostKey    string    `json:"hostKey,omitempty"` // its own ssh host key, authorized_keys form
	Image      string    `json:"image"`
	Spec       string    `json:"spec,omitempty"`     // digest of the pool's machine-shaping fields
	Outdated   string    `json:"outdated,omitempty"` // its image is not that of the pool any more, as its provider says
	Resources  Resources `json:"resources"`

	Started time.Time `json:"started,omitzero"` // billing starts: the provider accepted
	ReadyAt time.Time `json:"readyAt,omitzero"`
	Stopped time.Time `json:"stopped,omitzero"` // billing ends
	IdleAt  time.Time `json:"idleAt,omitzero"`  // since when nothing lives there; zero while busy
	Epoch   int       `json:"epoch,omitempty"`  // counts the starts of this machine
	// OldSince is since when the machine is not as its pool or its image is. EndsAt is when a rollout's deadline ends it.
	OldSince time.Time `json:"oldSince,omitzero"`
	EndsAt   time.Time `json:"endsAt,omitzero"`

	Load Load `json:"load,omitzero"`
	// Reached is how the gateway comes to a machine that is not on its host: direct, or agent. It is looked up when the machine is
	// shown, and empty while nobody has wanted to come to it.
	Reached string `json:"reached,omitempty"`
	// Ill are endpoints of the pool at which the machine does not answer, as its agent has found by asking.
	Ill []Ill `json:"ill,omitempty"`
	Meta
}

// Ill is an endpoint that does not answer, and why.
type Ill struct {
	Endpoint string    `json:"endpoint"`
	Reason   string    `json:"reason"`
	Since    time.Time `json:"since"`
}

// IllAt returns what is wrong with an endpoint on the machine, if anything is.
func (m Machine) IllAt(endpoint string) (Ill, bool) {
	for _, i := range m.Ill {
		if i.Endpoint == endpoint {
			return i, true
		}
	}
	return Ill{}, false
}

// MachineWanted is what should become of a machine.
type MachineWanted string

// What can be wanted of a machine.
const (
	WantRun    MachineWanted = "run"
	WantStop   MachineWanted = "stop"
	WantDelete MachineWanted = "delete"
)

// Load is what the agent measured last.
type Load struct {
	CPUPercent int   `json:"cpuPercent,omitempty"` // of the machine's own processors
	Memory     Bytes `json:"memory,omitempty"`
	Processes  int   `json:"processes,omitempty"`

	GPUs       int    `json:"gpus,omitempty"`       // that its agent sees
	GPUPercent int    `json:"gpuPercent,omitempty"` // busy, on average of all
	GPUMemory  Bytes  `json:"gpuMemory,omitempty"`  // used, of all together
	GPUNote    string `json:"gpuNote,omitempty"`    // what is not known of them, or not done for them, and why

	// Held says why the machine is in use though perhaps nobody is on it, by the pool's probe.
	Held  string              `json:"held,omitempty"`
	Homes map[UserName]string `json:"homes,omitempty"` // that cannot be made or archived, and why; of groups: nobody's
}

// Shown is the state a person reads: a ready machine with a cordon is draining.
func (m Machine) Shown() string {
	if m.State == MachineReady && len(m.Cordons) > 0 {
		return "draining"
	}
	return string(m.State)
}

// ShownSince is since when the machine is what Shown says. Its first cordon is the oldest.
func (m Machine) ShownSince() time.Time {
	if m.Shown() == "draining" {
		return m.Cordons[0].Since
	}
	return m.Since
}

// Alive reports whether the machine exists or is about to: it counts against the pool's size.
func (m Machine) Alive() bool {
	return m.State == MachineRequested || m.State == MachineBooting || m.State == MachineReady || m.State == MachineStopping
}

// Accepts reports whether a new user or task may be put on the machine.
func (m Machine) Accepts() bool {
	return m.State == MachineReady && len(m.Cordons) == 0 && m.Health != HealthDown && m.Wanted == WantRun
}

// Reason is why something is as it is: a code for programs and a sentence for people.
type Reason struct {
	Code     string `json:"code"`
	Sentence string `json:"sentence"`
}
