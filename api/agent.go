package api

import (
	"fmt"
	"time"

	"github.com/shoal-pool/shoal"
)

// The agent protocol. The agent of a machine dials out:
//
//	POST /agent/v1/join    AgentJoin → AgentJoined       once per start of the machine, with the one-time token
//	GET  /agent/v1/stream  → newline-delimited Record     desired state; first a Snapshot, then what changes
//	POST /agent/v1/report  Report → ReportAnswer          observations, in batches
//	POST /agent/v1/password PasswordCheck → {}            somebody wants a desktop; 401 if it is not her password
//	POST /agent/v1/secrets SessionSecretsRequest → SessionSecrets   somebody has come, and her pool gives secrets
//	GET  /agent/v1/reach   → bytes of one stream          the gateway wants to come to a port of the machine; see ReachOrder
//	POST /agent/v1/reach   Unreached → {}                 there is no connection for it
//	*    /agent/v1/user/…  a user's own API request, relayed from /run/shoal.sock; see UserHeader.
//	                       The rest of the path is the one that was asked for: /agent/v1/user/api/v1/jobs
//
// All but join carry "Authorization: Bearer <machine token>". A stream that breaks is opened again
// and starts with a Snapshot, so a lost record costs time and never correctness.

// UserHeader names the user in whose name a relayed request is made. The control plane believes it
// from a machine for users with a session or a task on that machine, and gives it a member's rights.
const UserHeader = "Shoal-User"

// LeadHeader has the epoch of the server that leads, in the answers to agents where several servers share a database. An
// agent refuses answers with a lower one than it has seen, and tells in its requests the highest.
const LeadHeader = "Shoal-Lead"

// AgentJoin asks for the machine's durable token.
type AgentJoin struct {
	Machine shoal.MachineID `json:"machine"`
	Token   string          `json:"token"`
	Epoch   int             `json:"epoch"`
	HostKey string          `json:"hostKey"` // sshd's public key, authorized_keys form
	Version string          `json:"version"`
}

// AgentJoined is the answer. Repeating a join with the same token and host key gives the same answer.
type AgentJoined struct {
	Token           string `json:"token"`
	HostCertificate string `json:"hostCertificate"` // authorized_keys form, for HostCertificate
}

// Record is one line of the stream. Exactly one field is set; a Record with none is a heartbeat.
type Record struct {
	Snapshot *Snapshot   `json:"snapshot,omitempty"`
	Accounts *Accounts   `json:"accounts,omitempty"` // replaces the former
	Run      *TaskOrder  `json:"run,omitempty"`
	Stop     *StopOrder  `json:"stop,omitempty"`
	Forget   *ForgetTask `json:"forget,omitempty"` // the result is stored: the agent may drop its files
	Message  *Message    `json:"message,omitempty"`
	App      *AppOrder   `json:"app,omitempty"`
	StopApp  *StopApp    `json:"stopApp,omitempty"`
	// EndDesktop ends the remote desktop of a user, with all that runs in it.
	EndDesktop *EndDesktop `json:"endDesktop,omitempty"`
	// EndUnused ends what a user has on the machine beside tasks, web apps and desktops, if the agent finds, looking once
	// more, that she has not used it for so long.
	EndUnused *EndUnused `json:"endUnused,omitempty"`
	// Look has the agent look at once who is there, and ask the pool's probe; the report of that is answered by Looked.
	Look string `json:"look,omitempty"`
	// Reach has the agent come for the gateway, which cannot come to the machine.
	Reach *ReachOrder `json:"reach,omitempty"`
}

// EndUnused says whose is to end, and for how long at least it has not been used.
type EndUnused struct {
	User   shoal.UserName `json:"user"`
	Unused shoal.Duration `json:"unused"`
	Always bool           `json:"always,omitempty"` // also what is in use
}

// EndDesktop names whose desktop is to end.
type EndDesktop struct {
	User shoal.UserName `json:"user"`
}

// Snapshot is all that a machine should be.
type Snapshot struct {
	Machine  shoal.MachineID `json:"machine"`
	Pool     shoal.PoolName  `json:"pool"`
	Accounts Accounts        `json:"accounts"`
	Mounts   []AgentMount    `json:"mounts"`
	Setup    *shoal.Setup    `json:"setup,omitempty"`
	// UserSlices: the agent may and must make a cgroup per user.
	UserSlices bool            `json:"userSlices"`
	Resources  shoal.Resources `json:"resources"`
	// Tasks are all attempts that should be running here. The agent starts those it does not have,
	// and ends those it has that are not listed, reporting each.
	Tasks []TaskOrder `json:"tasks"`
	// Heartbeat is how often the agent reports when it has nothing to say.
	Heartbeat shoal.Duration `json:"heartbeat"`
	// Beat is how often something comes by the stream at least, if that is promised: a server that is silent for
	// several times as long is given up.
	Beat shoal.Duration `json:"beat,omitempty"`
	// Lease is for how long tasks may run without an answer from the control plane, by the agent's own
	// clock and counted from when it sent what was answered. After it the agent kills them, and tells
	// when it can; those of idempotent jobs go on. Zero: no lease.
	Lease shoal.Duration `json:"lease,omitempty"`
	// Apps are all apps that should run here, like Tasks.
	Apps []AppOrder `json:"apps,omitempty"`
	// Doors are the addresses from which the gateway comes: from elsewhere nobody gets in to apps.
	Doors []string `json:"doors,omitempty"`
	// Desktop is set where people get remote desktops.
	Desktop *DesktopOrder `json:"desktop,omitempty"`
	// IdleProbe is the pool's own command that tells whether something is in use (shoal.Idle.Probe).
	IdleProbe string `json:"idleProbe,omitempty"`
	// Notice is what people read when they log in to a terminal.
	Notice string `json:"notice,omitempty"`
	// Probes are the endpoints that the agent asks whether they answer.
	Probes []EndpointProbe `json:"probes,omitempty"`
}

// EndpointProbe says how an endpoint of the machine is asked.
type EndpointProbe struct {
	Name      string         `json:"name"`
	Protocol  string         `json:"protocol"` // rdp, tcp
	Port      int            `json:"port"`
	Interval  shoal.Duration `json:"interval"`
	Timeout   shoal.Duration `json:"timeout"`   // from when it is asked first, in which it need not answer
	Threshold int            `json:"threshold"` // so many failures in a row make it ill
}

// Accounts are the users and groups of a machine, whole each time.
type Accounts struct {
	Rev    shoal.Rev `json:"rev"`
	Users  []Account `json:"users"`
	Groups []Group   `json:"groups"`
	// CAKeys are the gateways' signing keys, authorized_keys form; sshd trusts any of them.
	CAKeys []string `json:"caKeys"`
	// Secrets are the variables that sessions get from secrets, in order.
	Secrets []string `json:"secrets,omitempty"`
}

// Account is one user. A disabled user keeps the uid, may not log in, and her processes are ended.
type Account struct {
	Name     shoal.UserName `json:"name"`
	UID      int            `json:"uid"`
	GID      int            `json:"gid"` // a group of the same name and number as the uid
	Home     string         `json:"home"`
	Shell    string         `json:"shell"`
	Disabled bool           `json:"disabled,omitempty"`
	// Principal is what a certificate for this account here must name: "alice@lab".
	Principal string `json:"principal"`
}

// Group is one group with all its members.
type Group struct {
	Name    shoal.GroupName  `json:"name"`
	GID     int              `json:"gid"`
	Members []shoal.UserName `json:"members"`
}

// AgentMount is a place that must be mounted and writable before the machine is ready.
type AgentMount struct {
	Path      string           `json:"path"`
	ReadOnly  bool             `json:"readOnly,omitempty"`
	GroupDirs []shoal.GroupDir `json:"groupDirs,omitempty"`
	// Homes: users' homes are below this mount.
	Homes bool `json:"homes,omitempty"`
	// Links: homes are local and link to this mount, by its Share's name, and to notebooks/USER on it (shoal.LayoutDSVM).
	Links bool            `json:"links,omitempty"`
	Share shoal.ShareName `json:"share,omitempty"`
	// Unowned: files here have no owners of their own (shoal.Share.Owned). Directories of users are mounted one by one,
	// by whoever mounts the share, and are waited for.
	Unowned bool `json:"unowned,omitempty"`
}

// TaskOrder is an attempt to be run.
type TaskOrder struct {
	Ref       shoal.AttemptRef  `json:"ref"`
	User      shoal.UserName    `json:"user"`
	Command   string            `json:"command"`
	Env       map[string]string `json:"env,omitempty"` // SHOAL_* included
	Workdir   string            `json:"workdir,omitempty"`
	Prepare   string            `json:"prepare,omitempty"`
	Outputs   []string          `json:"outputs,omitempty"` // directories to make, as the user
	Resources shoal.Resources   `json:"resources"`
	TimeLimit shoal.Duration    `json:"timeLimit,omitempty"`
	Grace     shoal.Duration    `json:"grace,omitempty"` // between SIGTERM and SIGKILL; default 10 s

	Rank int `json:"rank,omitempty"` // among the nodes of the attempt
	// Hold: get ready (directories, Prepare) and report the state starting, but begin the command only
	// when the same order comes without Hold.
	Hold bool `json:"hold,omitempty"`
	// Idle: this node only keeps its place for the ranks that the first one's command starts here by
	// ssh. It runs nothing, and ends by a Stop.
	Idle        bool              `json:"idle,omitempty"`
	GPUs        []int             `json:"gpus,omitempty"`  // numbers of the machine's GPUs that are the task's own
	Files       map[string]string `json:"files,omitempty"` // written to TaskDir before anything runs; name → content
	SSH         *TaskSSH          `json:"ssh,omitempty"`
	Container   *shoal.Container  `json:"container,omitempty"`
	Stdout      string            `json:"stdout,omitempty"` // a file that gets a copy, opened as the user
	Stderr      string            `json:"stderr,omitempty"`
	Signal      string            `json:"signal,omitempty"` // "USR1": sent SignalAhead before the time limit
	SignalAhead shoal.Duration    `json:"signalAhead,omitempty"`
	Idempotent  bool              `json:"idempotent,omitempty"`
	Refused     string            `json:"refused,omitempty"` // why it cannot start: it fails with that
	After       *shoal.AttemptRef `json:"after,omitempty"`   // begin when that one, if it is here, has ended
	Release     bool              `json:"release,omitempty"` // Command is the job's release command; the job's local scratch goes with its end
}

// TaskSSH lets the nodes of one attempt, and nobody else, log in to each other as the attempt's user.
type TaskSSH struct {
	Key        string      `json:"key"`        // private, OpenSSH's PEM form; it dies with the attempt
	Authorized string      `json:"authorized"` // the public half, authorized_keys form
	Nodes      []NodeReach `json:"nodes"`      // all, by rank
}

// NodeReach is how a node of an attempt is reached from the others.
type NodeReach struct {
	Name    shoal.MachineID `json:"name"`
	Address string          `json:"address"` // host:port of its sshd
	HostKey string          `json:"hostKey"` // authorized_keys form
}

// TaskDir is the directory on a machine that holds an attempt's Files; it is there while the attempt runs
// and belongs to its user.
func TaskDir(ref shoal.AttemptRef) string {
	return fmt.Sprintf("/run/shoal/tasks/%s.%d.%d", ref.Job, ref.Index, ref.Attempt)
}

// ScratchDir is an attempt's own directory for temporary files on a machine, SHOAL_SCRATCH: it is there while the
// attempt runs. The machine may give it another, which the variable then names.
func ScratchDir(ref shoal.AttemptRef) string {
	return fmt.Sprintf("/var/lib/shoal-scratch/%s.%d.%d", ref.Job, ref.Index, ref.Attempt)
}

// JobScratchDir is a job's own directory for temporary files on a machine, SHOAL_JOB_TEMP: for its Prepare and all its
// tasks there, until its end.
func JobScratchDir(job shoal.JobID) string { return "/var/lib/shoal-scratch/job-" + string(job) }

// StopOrder ends an attempt, as cancelled or preempted.
type StopOrder struct {
	Ref   shoal.AttemptRef `json:"ref"`
	State shoal.JobState   `json:"state"`
	// Waiting: only if it still waits for the one that it comes after.
	Waiting bool `json:"waiting,omitempty"`
}

// ForgetTask lets the agent drop what it keeps of ended attempts and jobs.
type ForgetTask struct {
	Refs []shoal.AttemptRef `json:"refs,omitempty"`
	// Jobs have ended, and nothing of theirs comes here any more: what the machine keeps for them (JobScratchDir,
	// that they are prepared) goes. Without it that goes an hour after their last task here.
	Jobs []shoal.JobID `json:"jobs,omitempty"`
}

// Message is written to the terminals of a user, or of all.
type Message struct {
	User shoal.UserName `json:"user,omitempty"`
	Text string         `json:"text"`
}

// Report is what an agent saw. Every field is optional.
type Report struct {
	// Boot is sent until it succeeded: Ready is true once the probe login worked and wrote to each
	// mount; before, Progress says what is being done; Error means that this boot has failed.
	Boot     *BootReport  `json:"boot,omitempty"`
	Accounts shoal.Rev    `json:"accounts,omitempty"` // the newest Accounts.Rev that is in effect
	Tasks    []TaskReport `json:"tasks,omitempty"`
	Output   []Output     `json:"output,omitempty"`
	Activity *Activity    `json:"activity,omitempty"`
	Load     *shoal.Load  `json:"load,omitempty"`
	Looked   string       `json:"looked,omitempty"` // Activity and Load are of after this Look
	Apps     []AppReport  `json:"apps,omitempty"`
	// Endpoints are those of which there is news, or all after a Snapshot.
	Endpoints []EndpointReport `json:"endpoints,omitempty"`
}

// EndpointReport is whether an endpoint of the machine answers.
type EndpointReport struct {
	Name  string    `json:"name"`
	Ill   string    `json:"ill,omitempty"` // why it does not; empty: it does
	Since time.Time `json:"since"`
}

// BootReport is how far the machine has come.
type BootReport struct {
	Ready    bool   `json:"ready"`
	Progress string `json:"progress,omitempty"`
	Error    string `json:"error,omitempty"`
	Log      string `json:"log,omitempty"` // last lines of a failed setup
}

// TaskReport is news of one attempt, or of a machine's node of it. State is starting (an order with Hold is ready to
// begin), running, or an ended one with the rest filled in.
type TaskReport struct {
	Ref         shoal.AttemptRef `json:"ref"`
	State       shoal.JobState   `json:"state"`
	Cause       shoal.Cause      `json:"cause,omitempty"`
	Reason      string           `json:"reason,omitempty"`
	ExitCode    int              `json:"exitCode,omitempty"`
	Signal      int              `json:"signal,omitempty"`
	Started     time.Time        `json:"started,omitzero"`
	Ended       time.Time        `json:"ended,omitzero"`
	StdoutBytes int64            `json:"stdoutBytes,omitempty"`
	StderrBytes int64            `json:"stderrBytes,omitempty"`
	MaxMemory   shoal.Bytes      `json:"maxMemory,omitempty"`
	CPUTime     shoal.Duration   `json:"cpuTime,omitempty"`
}

// Output is a piece of an attempt's output. Pieces may arrive again; the offset decides.
// All output of an attempt is sent before, or in the same Report as, its ended TaskReport.
type Output struct {
	Ref    shoal.AttemptRef `json:"ref"`
	Stream string           `json:"stream"` // stdout or stderr
	Offset int64            `json:"offset"`
	Data   []byte           `json:"data"`
}

// Activity is who has what on the machine. A Report with Activity lists everybody.
type Activity struct {
	Users []UserActivity `json:"users"`
}

// UserActivity is one user's presence. Pins leave out leftovers (ssh-agent, dbus, editor servers
// without a client for 10 minutes) and, of sshd's own children, those that serve a live connection.
type UserActivity struct {
	User        shoal.UserName `json:"user"`
	Connections int            `json:"connections,omitempty"` // ssh connections
	Pins        []shoal.Pin    `json:"pins,omitempty"`
	LastInput   time.Time      `json:"lastInput,omitzero"` // newest input on a terminal of hers
	CPUPercent  int            `json:"cpuPercent,omitempty"`
	// InUse says what of hers is in use by itself, tasks, web apps and desktops left out: "python3 runs". Empty: all that
	// she has waits for her, and Unused is for how long she has not used it. Both zero: it is not known.
	InUse  string         `json:"inUse,omitempty"`
	Unused shoal.Duration `json:"unused,omitempty"`
}

// ReportAnswer acknowledges a Report: everything in it is stored.
type ReportAnswer struct {
	// Offsets of streams that the control plane holds less of than the agent thinks.
	Resend []Resend `json:"resend,omitempty"`
}

// Resend asks for output from an offset on.
type Resend struct {
	Ref    shoal.AttemptRef `json:"ref"`
	Stream string           `json:"stream"`
	Offset int64            `json:"offset"`
}
