package spec

import (
	"fmt"
	"strings"
	"time"

	"github.com/shoal-pool/shoal"
)

// The bounds of endpoints. Web apps listen from firstAppPort on, and machines let the gateway in to them from firstDoor
// on: who were led there by another endpoint would get in to anybody's.
const (
	maxEndpoints = 32
	maxAppEnv    = 64 << 10
	sshPort      = 22
	firstAppPort = 61000
	lastAppPort  = 64999
	firstDoor    = 600
	lastDoor     = 1019
	minIdleEnd   = time.Minute
	maxIdleEnd   = 366 * 24 * time.Hour
)

// endpoints checks all front ends of a pool.
func (c *checks) endpoints(all []shoal.Endpoint) {
	if len(all) > maxEndpoints {
		c.wrong("endpoints", "", "%d endpoints are more than %d", len(all), maxEndpoints)
		return
	}
	names, listens, desktops := map[string]bool{}, map[int]bool{}, 0
	for i, e := range all {
		at := fmt.Sprintf("endpoints[%d]", i)
		switch {
		case !objectName.MatchString(e.Name):
			c.wrong(at+".name", "use a-z, 0-9 and -, at most 32, beginning with a letter", "%q cannot be the name of an endpoint", clip(e.Name))
		case e.Name == "ssh":
			c.wrong(at+".name", "leave it out: it is there by itself", "the endpoint ssh cannot be declared")
		case names[e.Name]:
			c.wrong(at+".name", "", "there are two endpoints %q", e.Name)
		}
		names[e.Name] = true
		c.oneOf(at+".protocol", e.Protocol, shoal.ProtocolHTTP, shoal.ProtocolRDP, shoal.ProtocolTCP)
		c.oneOf(at+".affinity", e.Affinity, shoal.AffinityUser, shoal.AffinitySource)
		if d := time.Duration(e.IdleEnd); d != 0 && (d < minIdleEnd || d > maxIdleEnd) {
			c.wrong(at+".idleEnd", "leave it out, and what keeps a machine is never ended", "%s is not between %s and %s", e.IdleEnd, shoal.Duration(minIdleEnd), shoal.Duration(maxIdleEnd))
		}
		switch e.Protocol {
		case shoal.ProtocolHTTP:
			c.httpEndpoint(at, e)
		case shoal.ProtocolRDP, shoal.ProtocolTCP:
			c.portEndpoint(at, e)
			if listens[e.Listen] {
				c.wrong(at+".listen", "", "two endpoints listen on port %d of the gateway", e.Listen)
			}
			listens[e.Listen] = true
			if e.Protocol != shoal.ProtocolRDP {
				break
			}
			if desktops++; desktops == 2 {
				c.wrong(at+".protocol", "leave one of them out", "a pool has one endpoint of protocol rdp at most: its machines give desktops at one port")
			}
		}
	}
}

// httpEndpoint checks a web app.
func (c *checks) httpEndpoint(at string, e shoal.Endpoint) {
	if e.Affinity == shoal.AffinitySource {
		c.wrong(at+".affinity", "leave it out", "an http endpoint knows its users, and leads them by who they are")
	}
	if e.Name == shoal.EndpointJupyter {
		// Its port is that of a notebook server in older documents, and means nothing: each server has its own.
		c.within(at+".port", e.Port, 0, 65535)
		if e.StripPrefix && e.Command == "" {
			c.wrong(at+".stripPrefix", "leave it out", "notebook servers know the path below which they are reached")
		}
	} else {
		if strings.TrimSpace(e.Command) == "" {
			c.wrong(at+".command", "write the command that starts it, listening on 127.0.0.1:$SHOAL_PORT", "the endpoint has no command")
		}
		if e.Port != 0 {
			c.wrong(at+".port", "leave it out, and let the command listen on 127.0.0.1:$SHOAL_PORT", "a web app is told its port")
		}
	}
	if e.Listen != 0 {
		c.wrong(at+".listen", "leave it out", "web apps are all reached at the gateway's one https address")
	}
	c.text(at+".command", e.Command, maxCommand)
	c.appVariables(at+".env", e.Env)
	if e.Share != "private" {
		c.wrong(at+".share", "write private", "%q is not possible here: only the user herself reaches her app", clip(e.Share))
	}
	if e.Ready != nil {
		c.probe(at+".ready", *e.Ready)
	}
}

// portEndpoint checks a port of the machine that the gateway leads to.
func (c *checks) portEndpoint(at string, e shoal.Endpoint) {
	for _, f := range []struct {
		path string
		used bool
	}{{".command", e.Command != ""}, {".env", len(e.Env) > 0}, {".ready.path", e.Ready != nil && e.Ready.Path != ""}, {".stripPrefix", e.StripPrefix}} {
		if f.used {
			c.wrong(at+f.path, "leave it out", "only http endpoints have it")
		}
	}
	if e.Share != "private" {
		c.wrong(at+".share", "write private", "%q is not possible here", clip(e.Share))
	}
	if e.Ready != nil {
		c.probe(at+".ready", *e.Ready)
	}
	if e.IdleEnd != 0 && e.Protocol == shoal.ProtocolTCP {
		c.wrong(at+".idleEnd", "leave it out", "what listens at a port of tcp is no user's, and nothing of it is ended")
	}
	c.within(at+".port", e.Port, 1, 65535)
	c.within(at+".listen", e.Listen, 0, 65535)
	switch {
	case e.Port == sshPort:
		c.wrong(at+".port", "use ssh", "port 22 is that of ssh, which is reached by the gateway alone")
	case e.Port >= firstAppPort && e.Port <= lastAppPort, e.Port >= firstDoor && e.Port <= lastDoor:
		c.wrong(at+".port", "", "ports %d to %d and %d to %d are those of web apps", firstDoor, lastDoor, firstAppPort, lastAppPort)
	}
}

func (c *checks) probe(at string, p shoal.Probe) {
	if c.line(at+".path", p.Path, 1024) && p.Path != "" && (!strings.HasPrefix(p.Path, "/") || strings.ContainsAny(p.Path, " #")) {
		c.wrong(at+".path", "begin it with /, for example /healthz", "%q is not a path", clip(p.Path))
	}
	for _, f := range []struct {
		path      string
		d         shoal.Duration
		low, high time.Duration
	}{{".interval", p.Interval, time.Second, time.Hour}, {".timeout", p.Timeout, time.Second, time.Hour}} {
		if d := time.Duration(f.d); d < f.low || d > f.high {
			c.wrong(at+f.path, "", "%s is not between %s and %s", f.d, shoal.Duration(f.low), shoal.Duration(f.high))
		}
	}
	c.within(at+".threshold", p.Threshold, 1, 1000)
}

// appVariables checks what an app is given. They travel with each order, so all together are bounded too.
func (c *checks) appVariables(at string, env map[string]string) {
	c.variables(at, env)
	size := 0
	for name, value := range env {
		size += len(name) + len(value)
	}
	if size > maxAppEnv {
		c.wrong(at, "", "%d bytes of variables are more than %d", size, maxAppEnv)
	}
}

// CheckApp returns what is wrong with what a hub asks for: the command, variables and probe of an app.
func CheckApp(command string, env map[string]string, ready *shoal.Probe) []shoal.Mistake {
	var c checks
	c.text("command", command, maxCommand)
	c.appVariables("env", env)
	if ready != nil {
		c.probe("ready", *ready)
	}
	return c.mistakes
}
