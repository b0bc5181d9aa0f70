package api

// ReachOrder asks a machine to connect a port of its own to the server, for one stream of bytes: the gateway cannot come to the
// machine itself. The agent connects to the port, then asks GET /agent/v1/reach to switch protocols, and from there on hands
// bytes on both ways, until both sides have said all or one breaks.
type ReachOrder struct {
	Stream string `json:"stream"`         // shown as StreamHeader: good once, and from this machine
	Port   int    `json:"port"`           // at the machine's own address; 0: its sshd's
	Bare   bool   `json:"bare,omitempty"` // the agent may ask for BareProtocol
}

// StreamHeader names the stream that a machine's connection is for.
const StreamHeader = "Shoal-Stream"

// ReachProtocol is what GET /agent/v1/reach switches to: the bytes of one stream.
const ReachProtocol = "shoal-stream"

// BareProtocol is what GET /agent/v1/reach switches to where what follows is ssh, which needs no TLS around it: the bytes of one stream,
// on the bare connection. Once the agent has read the answer it says BareMark, bare, and the server says nothing before it has read that;
// so neither of them takes for TLS what is not.
const (
	BareProtocol = "shoal-bare-stream"
	BareMark     = "shoal\n"
)

// Unreached says that there is no connection to be had for a stream (POST /agent/v1/reach), so that nobody waits for it.
type Unreached struct {
	Stream  string `json:"stream"`
	Refused bool   `json:"refused,omitempty"` // nobody listens at the port
	Error   string `json:"error"`
}

// HubPrefix stands before the paths of JupyterHub's API where a machine's agent asks in the name of its notebook servers, which find the
// API at HubPort of their machine's loopback. What they would say as Authorization goes as HubAuthorizationHeader.
const (
	HubPrefix              = "/agent/v1/hub"
	HubPort                = 599
	HubAuthorizationHeader = "Shoal-Hub-Authorization"
)
