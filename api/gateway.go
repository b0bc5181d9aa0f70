package api

import (
	"time"

	"github.com/shoal-pool/shoal"
)

// The protocol of gateways that are processes of their own. A gateway dials out:
//
//	POST /gateway/v1/enrol     GatewayEnrol → GatewayEnrolled        with the token of `shoal gateway add`
//	GET  /gateway/v1/stream    → newline-delimited GatewayRecord      who may come in, and where people are
//	POST /gateway/v1/login     GatewayLogin → newline-delimited GatewayAnswer   its end withdraws the login
//	POST /gateway/v1/report    GatewayReport → {}                     which connections it has; a lease on them
//	POST /gateway/v1/password  GatewayPassword → {}                   401 if it is not hers
//	POST /gateway/v1/environ   GatewayPlace → GatewayEnviron          what a login finds in a pool
//	GET  /gateway/v1/dial      → bytes of one stream                  to the sshd of a machine it cannot dial; see MachineHeader
//
// All but enrol carry "Authorization: Bearer <gateway's token>". A stream that breaks is opened again and begins with
// everything, and a report follows with all connections, so that what was lost costs time and never correctness.

const (
	// GatewayBeat is how often the stream and the answers to logins say something, so that one that does not is found out soon.
	GatewayBeat = 2 * time.Second
	// GatewayReportEvery is how often a gateway reports at least.
	GatewayReportEvery = 10 * time.Second
)

// MachineHeader names the machine to whose sshd a gateway wants to come.
const MachineHeader = "Shoal-Machine"

// GatewayName is what an administrator calls a gateway.
type GatewayName string

// Gateway is one that is a process of its own.
type Gateway struct {
	shoal.Meta
	Name     GatewayName `json:"name"`
	Key      string      `json:"key,omitempty"` // signs the certificates with which it logs in to machines, authorized_keys form
	Until    time.Time   `json:"until"`         // when its enrolment token ends
	Enrolled time.Time   `json:"enrolled,omitzero"`
	// State, Connections and Heard are not stored: awaited, connected or silent.
	State       string    `json:"state,omitempty"`
	Connections int       `json:"connections,omitempty"`
	Heard       time.Time `json:"heard,omitzero"`
}

// AddGateway makes an enrolment token.
type AddGateway struct {
	Name GatewayName    `json:"name"`
	For  shoal.Duration `json:"for,omitempty"` // default an hour
}

// GatewayToken is what a gateway enrols with: one line, and behind it the certificate of the authority by which it knows the
// control plane, if that has one of its own.
type GatewayToken struct {
	Token string    `json:"token"`
	Until time.Time `json:"until"`
}

// GatewayEnrol binds a name to a key. The same request, repeated, gets the same answer.
type GatewayEnrol struct {
	Token string `json:"token"`
	Key   string `json:"key"`
}

// GatewayEnrolled is the answer.
type GatewayEnrolled struct {
	Name    GatewayName `json:"name"`
	Token   string      `json:"token"`
	HostKey string      `json:"hostKey"` // what ssh clients know all gateways by: a private key in OpenSSH's form
	HostCA  string      `json:"hostCA"`  // signs machines' host certificates, authorized_keys form
}

// GatewayRecord is one line of the stream. The first ones begin with Reset: all that was told before is void; Whole is the
// end of them. A record with nothing in it is a beat.
type GatewayRecord struct {
	Reset    bool              `json:"reset,omitempty"`
	Users    []GatewayUser     `json:"users,omitempty"` // new or changed
	NoUsers  []shoal.UserName  `json:"noUsers,omitempty"`
	Pools    []GatewayPool     `json:"pools,omitempty"` // all of them
	Routes   []GatewayRoute    `json:"routes,omitempty"`
	NoRoutes []shoal.SessionID `json:"noRoutes,omitempty"`
	Ended    []shoal.SessionID `json:"ended,omitempty"` // sessions whose connections are to be closed
	Gone     []shoal.MachineID `json:"gone,omitempty"`  // machines that exist no more
	Whole    bool              `json:"whole,omitempty"`
}

// GatewayUser is somebody who may come in.
type GatewayUser struct {
	Name   shoal.UserName    `json:"name"`
	UID    int               `json:"uid"`
	Shell  string            `json:"shell,omitempty"`
	Groups []shoal.GroupName `json:"groups,omitempty"`
	Keys   []string          `json:"keys,omitempty"`
}

// GatewayPool is what a gateway knows of a pool.
type GatewayPool struct {
	Name    shoal.PoolName `json:"name"`
	Default bool           `json:"default,omitempty"`
	Secrets bool           `json:"secrets,omitempty"` // its logins find secrets
}

// GatewayRoute is a session on a machine that runs.
type GatewayRoute struct {
	Session shoal.SessionID `json:"session"`
	User    shoal.UserName  `json:"user"`
	Pool    shoal.PoolName  `json:"pool"`
	Machine shoal.MachineID `json:"machine"`
	Address string          `json:"address"`
}

// GatewayLogin is a login of somebody who has proved to the gateway who she is.
type GatewayLogin struct {
	Part    string          `json:"part"` // names the connection, once and for all
	User    shoal.UserName  `json:"user"`
	Pool    shoal.PoolName  `json:"pool,omitempty"`
	New     bool            `json:"new,omitempty"`
	Machine shoal.MachineID `json:"machine,omitempty"`
	Avoid   shoal.MachineID `json:"avoid,omitempty"`
	Source  string          `json:"source,omitempty"`
	Arrived time.Time       `json:"arrived"`
}

// GatewayAnswer is one line of the answer to a login. The last one has a Route, a Refused or a Problem; one with nothing in it
// is a beat.
type GatewayAnswer struct {
	Progress string        `json:"progress,omitempty"`
	Route    *GatewayRoute `json:"route,omitempty"`
	Refused  *shoal.Reason `json:"refused,omitempty"`
	Problem  *Problem      `json:"problem,omitempty"`
}

// GatewayPart is a connection that a gateway has.
type GatewayPart struct {
	Part    string          `json:"part"`
	Session shoal.SessionID `json:"session,omitempty"` // empty: a login under way
	Machine shoal.MachineID `json:"machine,omitempty"`
	Source  string          `json:"source,omitempty"`
	Since   time.Time       `json:"since,omitzero"`
}

// GatewayReport says what has changed at a gateway. With All, Parts are all connections it has.
type GatewayReport struct {
	All     bool              `json:"all,omitempty"`
	Parts   []GatewayPart     `json:"parts,omitempty"`
	Closed  []GatewayPart     `json:"closed,omitempty"` // without a session: a login that was given up
	Used    []shoal.SessionID `json:"used,omitempty"`   // much has gone through their connections
	Suspect []shoal.MachineID `json:"suspect,omitempty"`
}

// GatewayPassword asks whether a password is a user's. Source is where the client came from.
type GatewayPassword struct {
	User     shoal.UserName `json:"user"`
	Password string         `json:"password"`
	Source   string         `json:"source,omitempty"`
}

// GatewayPlace is a user in a pool, where the gateway has a connection of hers.
type GatewayPlace struct {
	User shoal.UserName `json:"user"`
	Pool shoal.PoolName `json:"pool"`
}

// GatewayEnviron is what a login finds there beside what its machine gives it.
type GatewayEnviron struct {
	Vars  map[string]string `json:"vars,omitempty"`
	Notes []string          `json:"notes,omitempty"`
}
