package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/shoal-pool/shoal/internal/gateway/webfront"
	"github.com/shoal-pool/shoal/internal/gateway/webfront/chp"
	"github.com/shoal-pool/shoal/internal/gateway/webfront/routes"
)

// options are the original's, with its defaults.
type options struct {
	ip, apiIP, defaultTarget, errorTarget, key, cert, level string
	port, apiPort                                           int
	hosts                                                   bool
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var o options
	flag.StringVar(&o.ip, "ip", "", "address of the data port")
	flag.IntVar(&o.port, "port", 8000, "data port")
	flag.StringVar(&o.apiIP, "api-ip", "localhost", "address of the API")
	flag.IntVar(&o.apiPort, "api-port", 0, "port of the API; the data port's next by default")
	flag.StringVar(&o.defaultTarget, "default-target", "", "target of the route /")
	flag.StringVar(&o.errorTarget, "error-target", "", "server that is asked for error pages")
	flag.StringVar(&o.key, "ssl-key", "", "key of the data port")
	flag.StringVar(&o.cert, "ssl-cert", "", "certificate of the data port")
	flag.StringVar(&o.level, "log-level", "info", "what is logged")
	flag.BoolVar(&o.hosts, "host-routing", false, "the first segment of a route is a host")
	flag.Parse()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "standin:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) error {
	var level slog.Level
	if err := level.UnmarshalText([]byte(o.level)); err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	table := routes.New()
	api, err := chp.New(chp.Config{Routes: table, Token: os.Getenv("CONFIGPROXY_AUTH_TOKEN"), Hosts: o.hosts, Log: log})
	if err != nil {
		return err
	}
	if o.defaultTarget != "" {
		target := []byte(strconv.Quote(o.defaultTarget))
		if err := table.Put("/", map[string]json.RawMessage{"target": target}, false, time.Now()); err != nil {
			return err
		}
	}
	cfg := webfront.Config{Routes: table, HostRouting: o.hosts, Log: log}
	if o.errorTarget != "" {
		if cfg.ErrorTarget, err = url.Parse(o.errorTarget); err != nil {
			return err
		}
	}
	if o.cert != "" {
		pair, err := tls.LoadX509KeyPair(o.cert, o.key)
		if err != nil {
			return err
		}
		cfg.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	}
	data, err := listen(o.ip, o.port)
	if err != nil {
		return err
	}
	if o.apiPort == 0 {
		o.apiPort = o.port + 1
	}
	door, err := listen(o.apiIP, o.apiPort)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return webfront.New(cfg).Serve(ctx, data) })
	g.Go(func() error { return serveAPI(ctx, door, api) })
	return g.Wait()
}

func listen(ip string, port int) (net.Listener, error) {
	return net.Listen("tcp", net.JoinHostPort(ip, strconv.Itoa(port)))
}

func serveAPI(ctx context.Context, l net.Listener, h http.Handler) error {
	s := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}
	defer context.AfterFunc(ctx, func() { _ = s.Close() })() // it is told by Serve
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
