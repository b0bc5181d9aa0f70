package shoal

import "time"

// ObjectKind is the kind word of an object.
type ObjectKind string

// The kinds of objects.
const (
	ObjectPool    ObjectKind = "Pool"
	ObjectShare   ObjectKind = "Share"
	ObjectUser    ObjectKind = "User"
	ObjectGroup   ObjectKind = "Group"
	ObjectJob     ObjectKind = "Job"
	ObjectMachine ObjectKind = "Machine"
	ObjectSession ObjectKind = "Session"
	ObjectTask    ObjectKind = "Task"
	ObjectApp     ObjectKind = "App"
	ObjectSecret  ObjectKind = "Secret"
)

// Event is something that happened, for users: stored in the transaction that made it
// happen, told in a sentence, never holding a secret.
type Event struct {
	Rev      Rev        `json:"rev"`
	Time     time.Time  `json:"time"`
	Kind     ObjectKind `json:"kind"`
	Name     string     `json:"name"`
	Pool     PoolName   `json:"pool,omitempty"`
	User     UserName   `json:"user,omitempty"` // whose it is; empty: operators only see it, unless it is a pool's
	Code     string     `json:"code"`           // "machineReady"
	Sentence string     `json:"sentence"`
}
