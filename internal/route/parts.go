package route

import (
	"strings"
	"time"

	"github.com/shoal-pool/shoal"
)

// PartOf names a part of a gateway that is a process of its own: it carries the gateway's name, and so outlives the server.
func PartOf(gateway, id string) string { return gateway + "/" + id }

// GatewayOf is the gateway that a part's name carries; empty: it is one of the server's own.
func GatewayOf(part string) string {
	gateway, _, found := strings.Cut(part, "/")
	if !found {
		return ""
	}
	return gateway
}

// Held is a part that a gateway says it has.
type Held struct {
	Part    string // with the gateway's name
	Session shoal.SessionID
	Machine shoal.MachineID
	Source  string
	Since   time.Time
}

// Watch is how the session of a part goes on.
type Watch struct {
	Done <-chan struct{} // closed when it ends
	Used func()          // tells that something goes through its parts
}
