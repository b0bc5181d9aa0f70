package gateway

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"
)

// AcceptEach serves each connection on a goroutine of its own, until the listener is closed or ctx ends; then it waits for them.
func AcceptEach(ctx context.Context, ln net.Listener, serve func(net.Conn)) error {
	var all sync.WaitGroup
	defer all.Wait()
	for {
		conn, err := Accept(ctx, ln)
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return nil
			}
			return err
		}
		all.Go(func() { serve(conn) })
	}
}

// Accept takes a connection, and waits out what passes by itself, such as too many open files.
func Accept(ctx context.Context, ln net.Listener) (net.Conn, error) {
	for pause := 5 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		conn, err := ln.Accept()
		if err == nil || ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
			return conn, err
		}
		var temporary interface{ Temporary() bool }
		if !errors.As(err, &temporary) || !temporary.Temporary() {
			return nil, err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
