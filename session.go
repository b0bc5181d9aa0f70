package shoal

import "time"

// SessionState is the state of a user's presence on a machine.
type SessionState string

// The states of a session.
const (
	SessionWaiting      SessionState = "waiting"
	SessionActive       SessionState = "active"
	SessionDisconnected SessionState = "disconnected"
	SessionEnded        SessionState = "ended"
)

// Session is the presence of one user on one machine. It takes one seat, however many
// connections (parts) it has.
type Session struct {
	ID        SessionID    `json:"id"`
	User      UserName     `json:"user"`
	Pool      PoolName     `json:"pool"`
	Machine   MachineID    `json:"machine,omitempty"` // empty while waiting
	State     SessionState `json:"state"`
	Reason    string       `json:"reason,omitempty"`
	Since     time.Time    `json:"since"` // of State
	Parts     []Part       `json:"parts,omitempty"`
	Pins      []Pin        `json:"pins,omitempty"` // what lives there without a connection
	Started   time.Time    `json:"started,omitzero"`
	Ended     time.Time    `json:"ended,omitzero"`
	KeepUntil time.Time    `json:"keepUntil,omitzero"` // keep-awake
	LastInput time.Time    `json:"lastInput,omitzero"`
	// LeftDesktop is since when nobody has been connected to her desktop, which is there.
	LeftDesktop time.Time `json:"leftDesktop,omitzero"`
	// Ends is when something of hers on the machine is ended unless it is used before, and Ending says what.
	Ends   time.Time `json:"ends,omitzero"`
	Ending string    `json:"ending,omitempty"`
	// Found: it is on record by the word of the machine's agent alone. Nobody has logged in to it, so the
	// machine may not speak for the user.
	Found bool `json:"found,omitempty"`
	Meta
}

// Live reports whether the session holds or wants a seat.
func (s Session) Live() bool { return s.State != SessionEnded }

// Part is one connection of a session: an SSH connection, a notebook server, a desktop.
type Part struct {
	ID     string    `json:"id"`
	Kind   string    `json:"kind"` // ssh, rdp, or the name of the endpoint: jupyter
	Source string    `json:"source,omitempty"`
	Since  time.Time `json:"since"`
}

// Pin is something of a user's that lives on a machine and keeps her there.
type Pin struct {
	Kind  string `json:"kind"` // tmux, shell, process, task, kernel, desktop, connection
	Count int    `json:"count"`
}
