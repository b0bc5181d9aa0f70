// Package provider is the seam behind which machines are made: a local host, a
// cluster, a cloud, or anybody's executable.
//
// The contract is level-triggered. No method waits for an outcome: Create
// returns once the provider has accepted, and a later Observe shows what became
// of it. Every method is idempotent under the same machine id and token, so it
// can be repeated after a crash; deleting what is absent succeeds. Absence in an
// Observation means something only if the Observation says it is Complete.
package provider

import (
	"context"
	"fmt"
	"time"

	"github.com/shoal-pool/shoal"
)

// Provider makes and unmakes machines. All methods may be called concurrently,
// for one machine at a time.
type Provider interface {
	// Capabilities says what the provider can do. It is constant and does no I/O.
	Capabilities() Capabilities
	// Observe lists every machine that carries this installation's tag.
	Observe(ctx context.Context) (Observation, error)
	// Create accepts a machine. A repeated Create with the same ID and Token changes nothing
	// and succeeds; while a former machine of that ID is being deleted it fails for now. A machine whose Create failed half-way leaves nothing that Delete does not remove.
	Create(ctx context.Context, spec MachineSpec) error
	// Start starts a stopped machine, with new Join data; starting a running one succeeds.
	Start(ctx context.Context, spec MachineSpec) error
	// Stop ends what runs and keeps the disk; stopping a stopped one succeeds.
	Stop(ctx context.Context, id shoal.MachineID) error
	// Delete removes the machine with its disk; deleting an absent one succeeds.
	Delete(ctx context.Context, id shoal.MachineID) error
}

// Checker is a provider that can tell before anything is made whether a pool can work on it:
// its image exists, its settings are valid, its shares can be mounted.
type Checker interface {
	Check(ctx context.Context, pool shoal.Pool, shares []shoal.Share) error
}

// UserChecker is a provider on which a user may clash with what is already there, such as an
// account of the host with the same name or uid.
type UserChecker interface {
	CheckUser(ctx context.Context, user shoal.User) error
}

// HomeMounter is a provider that can give users of a running machine their directories on a share without owners
// (shoal.Share.Owned), each with that user's rights.
type HomeMounter interface {
	// MountHomes makes the list all there is of such directories in a machine, now and whenever it starts again. It returns
	// when they can be used, so that their users may log in, and changes nothing that is as it should be. A
	// directory that is not on the share yet is made. Its error joins those of the homes that failed; the others are there.
	MountHomes(ctx context.Context, id shoal.MachineID, homes []HomeMount) error
}

// HomeMount is the directory of one user. Path of its Mount is where it appears in the machine: usually the directory itself
// as seen through the share's own mount, which it covers. Whatever else lies beside it there is hidden.
type HomeMount struct {
	Mount
	Sub string // the directory on the share, relative to its root: "home/alice"; two elements at least
	UID int
	GID int
}

// Notifier is a provider that tells when Observe would show something else, so that it need not be asked often.
type Notifier interface {
	// Changed returns a channel that gets a value after each change; values that nobody awaits are dropped.
	Changed() <-chan struct{}
}

// Capabilities are data, so that a new one needs no method.
type Capabilities struct {
	Mounts     MountSide // who mounts shares
	UserSlices bool      // the agent may make a cgroup per user
	Stop       bool      // machines can be stopped and kept
	Windows    bool
	// Machine is the largest machine there can be; zero fields mean not known.
	Machine shoal.Resources
	// Parallel bounds how many Creates and Starts are useful at once; zero means no bound.
	Parallel int
}

// MountSide is who mounts shares into a machine.
type MountSide string

// The sides.
const (
	MountsByProvider MountSide = "provider"
	MountsByAgent    MountSide = "agent"
)

// MachineSpec is all a provider needs to make one machine.
type MachineSpec struct {
	ID        shoal.MachineID
	Pool      shoal.PoolName
	Token     string // of this Create; the same on a repetition
	Image     string
	OS        string // windows; empty: linux
	Resources shoal.Resources
	Mounts    []Mount
	Config    map[string]any // the pool's providerConfig
	Setuid    bool           // setuid programs keep their effect
	Private   bool           // nobody logs in: GPUs are root's until the agent gives them to tasks
	// Grace is how long the machine may take to end by itself when it is stopped or deleted, because it has something
	// to bring to safety. Zero: the provider's own.
	Grace time.Duration
	Join  Join
}

// Mount is a share to be mounted, resolved to its source.
type Mount struct {
	Share    shoal.Share
	Path     string // in the machine
	ReadOnly bool
}

// Join is what a new machine's agent needs to reach the control plane. It is handed over in a
// file that only root in the machine can read, never in arguments or the environment.
type Join struct {
	Machine shoal.MachineID `json:"machine"`
	Pool    shoal.PoolName  `json:"pool"`
	Token   string          `json:"token"` // one-time
	// Control is where the agent dials: "unix:///run/shoal/control/agent.sock" or "https://host:port".
	Control string `json:"control"`
	// CA is whom the agent trusts about an https:// address, in PEM. Empty: whom the machine trusts.
	CA string `json:"ca,omitempty"`
	// Epoch counts the starts of this machine.
	Epoch int `json:"epoch"`
}

// Observation is what a provider sees.
type Observation struct {
	Machines []Observed
	Complete bool // false: a machine that is not listed may still exist
	At       time.Time
}

// Observed is one machine as its provider sees it.
type Observed struct {
	ID         shoal.MachineID
	Pool       shoal.PoolName
	ProviderID string
	Phase      Phase
	Reason     string // for failed, and for anything that waits
	Address    string // host:port of sshd, once known
	Outdated   string // why another is to take its place once nobody is on it: its image is no longer current, its host is to be freed; else empty
	// Trouble is what keeps a running machine from taking anybody new, in a sentence: a share of it that
	// does not answer. It goes when what it tells of is mended.
	Trouble string
}

// Phase is where a machine stands with its provider. Ready is not among them: that is for the agent to say.
type Phase string

// The phases.
const (
	PhaseCreating Phase = "creating"
	PhaseRunning  Phase = "running"
	PhaseStopping Phase = "stopping"
	PhaseStopped  Phase = "stopped"
	PhaseFailed   Phase = "failed" // it will not become running; Delete is what remains
	// PhaseUnknown is that of a machine whose host does not answer its provider: what runs there may run on.
	PhaseUnknown Phase = "unknown"
)

// Code classifies a provider's error.
type Code string

// The codes.
const (
	NotFound   Code = "notFound"
	NoCapacity Code = "noCapacity"
	Quota      Code = "quota"
	Denied     Code = "denied"
	Transient  Code = "transient"
	Invalid    Code = "invalid"
)

// Error is a provider's typed error. An error without one counts as transient.
type Error struct {
	Code Code
	Msg  string
	// Until is when trying again makes sense; zero if not known.
	Until time.Time
	Err   error
}

// Errorf makes a typed error; a %w in format is kept.
func Errorf(code Code, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	e := &Error{Code: code, Msg: err.Error()}
	if u, ok := err.(interface{ Unwrap() error }); ok {
		e.Err = u.Unwrap()
	}
	return e
}

func (e *Error) Error() string { return e.Msg }

func (e *Error) Unwrap() error { return e.Err }
