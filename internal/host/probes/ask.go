package probes

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"syscall"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
)

// Asker asks where the gateway would: at the machine's own address, so that what listens at the loopback alone does not count.
// desktop asks one address as a client of desktops does first.
func Asker(desktop func(ctx context.Context, address string) error) Ask {
	return func(ctx context.Context, p api.EndpointProbe) error {
		address := net.JoinHostPort(Own(), strconv.Itoa(p.Port))
		var err error
		if p.Protocol == shoal.ProtocolRDP {
			err = desktop(ctx, address)
		} else {
			err = connect(ctx, address)
		}
		switch {
		case err == nil:
			return nil
		case errors.Is(err, syscall.ECONNREFUSED):
			return fmt.Errorf("nothing listens at port %d of the machine's address", p.Port)
		case ctx.Err() != nil:
			return fmt.Errorf("port %d does not answer within %s", p.Port, shoal.Duration(askTime))
		}
		return fmt.Errorf("port %d: %w", p.Port, err)
	}
}

func connect(ctx context.Context, address string) error {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	return c.Close()
}

// Own is an address of this machine that others reach; where it has none, the loopback.
func Own() string {
	all, err := net.InterfaceAddrs()
	if err == nil {
		for _, a := range all {
			if n, ok := a.(*net.IPNet); ok && n.IP.IsGlobalUnicast() && n.IP.To4() != nil {
				return n.IP.String()
			}
		}
	}
	return "127.0.0.1"
}
