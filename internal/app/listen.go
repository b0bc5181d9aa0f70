package app

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/shoal-pool/shoal"
)

// listen opens the doors that were not handed in.
func (a *App) listen() error {
	l := &a.sockets
	*l = a.opts.Listeners
	for _, door := range []struct {
		to   *net.Listener
		open func() (net.Listener, error)
	}{
		{&l.Control, func() (net.Listener, error) { return listenTCP(net.ListenConfig{}, a.opts.Listen, "--listen") }},
		{&l.SSH, a.listenIf(a.opts.Role == bothRoles, a.opts.SSHListen, "--ssh-listen")},
		{&l.Local, func() (net.Listener, error) { return listenUnix(a.opts.path("shoal.sock")) }},
		{&l.Agent, func() (net.Listener, error) { return listenUnix(a.opts.path("control", "agent.sock")) }},
		{&l.Agents, a.listenAgents()},
		{&l.HTTPS, a.listenIf(a.web.front != nil, a.opts.Web.HTTPSListen, "--https-listen")},
		{&l.HTTP, a.listenIf(a.web.front != nil && a.opts.Web.HTTPListen != "", a.opts.Web.HTTPListen, "--http-listen")},
		{&l.CHP, a.listenIf(a.web.chp != nil, a.opts.Web.CHPListen, "--chp-listen")},
	} {
		if *door.to == nil && door.open == nil {
			continue
		}
		if *door.to == nil {
			var err error
			if *door.to, err = door.open(); err != nil {
				return err
			}
		}
		open := *door.to
		a.onClose(func(context.Context) error {
			if err := open.Close(); !errors.Is(err, net.ErrClosed) {
				return err
			}
			return nil
		})
	}
	return nil
}

// listenIf opens one of the doors that not every server has, or returns nil.
func (a *App) listenIf(wanted bool, address, flag string) func() (net.Listener, error) {
	if !wanted {
		return nil
	}
	return func() (net.Listener, error) { return listenTCP(net.ListenConfig{}, address, flag) }
}

func makeDirs(dirs ...string) error {
	for _, d := range dirs {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return shoal.Errorf(shoal.KindUnavailable, "cannot make the data directory: %w", err)
		}
	}
	return nil
}

// listenUnix makes a socket that only its owner may open. A socket file that a dead process
// left is replaced; one on which somebody answers is not ours to take.
func listenUnix(path string) (net.Listener, error) {
	if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
		c.Close()
		return nil, shoal.Errorf(shoal.KindConflict, "cannot listen on %s: another server answers there", path).
			WithHint("stop it, or give this one a data directory of its own with --data")
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("cannot replace socket %s: %w", path, err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("cannot listen on %s: %w", path, err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, fmt.Errorf("cannot close socket %s to others: %w", path, err)
	}
	return l, nil
}

func listenTCP(lc net.ListenConfig, address, flag string) (net.Listener, error) {
	l, err := lc.Listen(context.Background(), "tcp", address)
	if err != nil {
		return nil, shoal.Errorf(shoal.KindConflict, "cannot listen on %s: %w", address, err).
			WithHint("another program may hold the port; choose one with %s HOST:PORT", flag)
	}
	return l, nil
}

// serveHTTP serves until ctx ends, then gives requests a moment to finish. Streams end with ctx.
func serveHTTP(ctx context.Context, l net.Listener, h http.Handler) error {
	s := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		if s.Shutdown(grace) != nil {
			s.Close()
		}
	})
	err := s.Serve(l)
	if !stop() {
		<-stopped
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}
