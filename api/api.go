// Package api holds what the wire adds to the vocabulary of package shoal: lists,
// problem documents, requests that are not objects, and the records that the
// control plane and the agents of machines exchange (agent.go).
package api

import (
	"time"

	"github.com/shoal-pool/shoal"
)

// Headers of the API beside HTTP's own.
const (
	// IdempotencyHeader carries a key of the client's choice with a creation: the same request with
	// the same key creates once, however often it is sent.
	IdempotencyHeader = "Idempotency-Key"
	// AsHeader names the user an admin acts as. The request then has that user's rights.
	AsHeader = "Shoal-As"
)

// Problem is an error on the wire (RFC 9457, application/problem+json).
type Problem struct {
	Type   string     `json:"type"` // "about:blank"
	Title  string     `json:"title"`
	Status int        `json:"status"`
	Detail string     `json:"detail"`
	Kind   shoal.Kind `json:"kind"`
	Hint   string     `json:"hint,omitempty"`
	// Mistakes lists all that is wrong with a document, each with its place.
	Mistakes []Mistake `json:"mistakes,omitempty"`
}

// Mistake is one thing wrong in a document.
type Mistake = shoal.Mistake

// List is a page of objects. Next is the cursor of the following page, empty on the last.
type List[T any] struct {
	Items []T       `json:"items"`
	Next  string    `json:"next,omitempty"`
	Rev   shoal.Rev `json:"rev"`
}

// ApplyRequest is a set of objects to create or change together.
type ApplyRequest struct {
	DryRun bool          `json:"dryRun,omitempty"`
	Shares []shoal.Share `json:"shares,omitempty"`
	Groups []shoal.Group `json:"groups,omitempty"`
	Users  []shoal.User  `json:"users,omitempty"`
	Pools  []shoal.Pool  `json:"pools,omitempty"`
}

// ApplyResult says what became of each object, in the order given.
type ApplyResult struct {
	Changes []Change `json:"changes"`
}

// Change is the fate of one object: created, changed (with the fields) or unchanged.
type Change struct {
	Kind   shoal.ObjectKind `json:"kind"`
	Name   string           `json:"name"`
	Action string           `json:"action"`
	Diff   []string         `json:"diff,omitempty"` // "size.max: 4 → 8"
}

// ScaleRequest sets a pool's size by hand, or with Auto gives it back to the autoscaler.
type ScaleRequest struct {
	Size int            `json:"size"`
	For  shoal.Duration `json:"for,omitempty"`
	Auto bool           `json:"auto,omitempty"`
}

// DrainRequest is an operator's cordon.
type DrainRequest struct {
	Deadline shoal.Duration `json:"deadline,omitempty"`
	Reason   string         `json:"reason,omitempty"`
}

// PasswordRequest sets a password.
type PasswordRequest struct {
	Password string `json:"password"`
}

// NewUser is a user to be added, with a password unless that is empty.
type NewUser struct {
	shoal.User
	Password string `json:"password,omitempty"`
}

// Version says what answers.
type Version struct {
	Version string `json:"version"`
	Go      string `json:"go,omitempty"`
	SSH     string `json:"ssh,omitempty"` // host:port where the gateway listens
}

// Image is an image that a provider keeps, by the name that a pool writes.
type Image struct {
	Name    string    `json:"name"`
	Kind    string    `json:"kind,omitempty"` // what it was made from: a snapshot of the host, an archive
	Created time.Time `json:"created,omitzero"`
}

// SnapshotRequest freezes the image host under a name.
type SnapshotRequest struct {
	Name string `json:"name"`
}

// KeepAwakeRequest keeps a session's machine awake.
type KeepAwakeRequest struct {
	For shoal.Duration `json:"for"`
}

// LoginRequest is one step of `shoal login`. With Password it answers with a token at once.
// With Key (an authorized_keys line) and no Signature it answers with a Challenge; repeated with the
// challenge and a Signature over it (ssh-keygen -Y sign, namespace "shoal-login") it answers with a token.
type LoginRequest struct {
	User      shoal.UserName `json:"user"`
	Password  string         `json:"password,omitempty"`
	Key       string         `json:"key,omitempty"`
	Challenge string         `json:"challenge,omitempty"`
	Signature string         `json:"signature,omitempty"`
}

// LoginResponse answers a LoginRequest.
type LoginResponse struct {
	Challenge string    `json:"challenge,omitempty"`
	Token     string    `json:"token,omitempty"`
	Expires   time.Time `json:"expires,omitzero"`
}

// Whoami says who the caller is.
type Whoami struct {
	User    shoal.UserName  `json:"user"`
	Role    shoal.Role      `json:"role"`
	Machine shoal.MachineID `json:"machine,omitempty"`
	Pool    shoal.PoolName  `json:"pool,omitempty"` // the pool of the machine
}

// Why is the answer to `shoal why`.
type Why struct {
	Subject  string         `json:"subject"`
	Sentence string         `json:"sentence"`
	Reasons  []shoal.Reason `json:"reasons,omitempty"`
	Since    time.Time      `json:"since,omitzero"`
	Events   []shoal.Event  `json:"events,omitempty"` // the latest that bear on it
	// Scalings are the autoscaler's latest decisions about a pool, the newest first.
	Scalings []Scaling `json:"scalings,omitempty"`
}

// UsageRow is one line of the bill.
type UsageRow struct {
	Key            string  `json:"key"` // the user, group, pool, job or machine
	MachineSeconds float64 `json:"machineSeconds"`
	SessionSeconds float64 `json:"sessionSeconds"`
	TaskSeconds    float64 `json:"taskSeconds"`
	IdleSeconds    float64 `json:"idleSeconds"`
	Cost           float64 `json:"cost"`
	Currency       string  `json:"currency,omitempty"`
}

// Usage is the bill from Since to Until.
type Usage struct {
	By    string     `json:"by"`
	Since time.Time  `json:"since"`
	Until time.Time  `json:"until"`
	Rows  []UsageRow `json:"rows"`
	Total UsageRow   `json:"total"`
	// Budgets are those the caller may see, as they stand this month.
	Budgets []BudgetStanding `json:"budgets,omitempty"`
}

// BudgetStanding is how a budget stands: of a user, of a group's members, or of a pool.
type BudgetStanding struct {
	Kind     shoal.ObjectKind `json:"kind"`
	Name     string           `json:"name"`
	Spent    float64          `json:"spent"`
	Limit    float64          `json:"limit"`
	Currency string           `json:"currency"`
	Stop     bool             `json:"stop,omitempty"`   // nothing new begins once it is spent
	Warned   bool             `json:"warned,omitempty"` // most of it is spent
	Over     bool             `json:"over,omitempty"`   // all of it is
	Until    time.Time        `json:"until"`
	Sentence string           `json:"sentence"`
}

// Wait is a job's outcome as `shoal job wait` needs it.
type Wait struct {
	Job shoal.Job `json:"job"`
	// ExitCode is that of the lowest failing index, 128+n for signal n, 0 if all succeeded.
	ExitCode int `json:"exitCode"`
}
