// Package gate is `shoal gateway`, and finds the ssh gateway of a server.
package gate

import (
	"context"
	"net"
	"net/url"
	"strings"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/client"
)

// defaultGateway is where the gateway listens when the server does not say.
const defaultGateway = "127.0.0.1:2222"

// Of finds the gateway: as told, or where the server says it listens. A listener on all
// addresses, and one that says nothing, is at the address by which the server was reached.
func Of(ctx context.Context, c *client.Client, server, told string) (host, port string, err error) {
	if told == "" {
		told = defaultGateway
		if v, err := c.Version(ctx); err == nil && v.SSH != "" {
			told = v.SSH
		}
		host, port, err = net.SplitHostPort(told)
		u, urlErr := url.Parse(server)
		if ip := net.ParseIP(host); err == nil && urlErr == nil && u.Hostname() != "" && (host == "" || ip != nil && (ip.IsUnspecified() || ip.IsLoopback())) {
			return u.Hostname(), port, nil
		}
	} else if host, port, err = net.SplitHostPort(told); err == nil && host == "" {
		host = "127.0.0.1"
	}
	if err != nil || strings.HasPrefix(host, "-") {
		return "", "", shoal.Errorf(shoal.KindInvalid, "cannot use %q as the gateway", told).WithHint("write HOST:PORT")
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return host, port, nil
}
