package api

import (
	"time"

	"github.com/shoal-pool/shoal"
)

// DesktopOrder asks a machine's agent for remote desktops at a port of the machine.
type DesktopOrder struct {
	Port int `json:"port"`
	// Certificate and Key are those of the pool, PEM: clients know its desktops by them.
	Certificate string `json:"certificate"`
	Key         string `json:"key"`
}

// PasswordCheck is what a machine asks before it opens a desktop (POST /agent/v1/password): is this her password? It
// is answered for users whom the gateway has led to that machine, and who are waited for there.
type PasswordCheck struct {
	User     shoal.UserName `json:"user"`
	Password string         `json:"password"`
}

// DesktopRequest asks for the way to a desktop.
type DesktopRequest struct {
	Pool     shoal.PoolName `json:"pool,omitempty"`     // empty: the default pool
	Endpoint string         `json:"endpoint,omitempty"` // empty: the pool's only one of protocol rdp
	// From is the address from which the client will come; empty: that of the request.
	From string `json:"from,omitempty"`
}

// DesktopTicket is the way to a desktop. Until it expires a connection from the address may start a machine, and the
// password is good for one login there.
type DesktopTicket struct {
	User     shoal.UserName `json:"user"`
	Pool     shoal.PoolName `json:"pool"`
	Endpoint string         `json:"endpoint"`
	Address  string         `json:"address"` // host:port of the gateway
	From     string         `json:"from"`
	Password string         `json:"password"`
	// Fingerprint is the SHA-256 of the desktops' certificate, as clients show it: aa:bb:…
	Fingerprint string    `json:"fingerprint"`
	Expires     time.Time `json:"expires"`
}

// FreeRDP is the command that opens the desktop. The password does not belong into it: everybody on the host sees it there.
func (t DesktopTicket) FreeRDP() string {
	// An empty domain and force: else it reads the password as something else, or asks for none.
	return "xfreerdp /v:" + t.Address + " /u:" + string(t.User) + " /d: /sec:tls /cert:fingerprint:sha256:" + t.Fingerprint + " /bpp:32 /from-stdin:force"
}
