package proxy

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/coder/websocket"

	"github.com/shoal-pool/shoal/internal/rig"
)

// Token is what the API of the proxies here wants to see.
const Token = "correct-horse-battery-staple"

// Debian's package lies where a Node that is not Debian's does not look.
const nodePath = "NODE_PATH=/usr/share/nodejs"

// Proxy is a process with the command line of configurable-http-proxy.
type Proxy struct {
	Addr string // of the data port
	API  string // URL of its API, /api/routes included
	Cmd  *exec.Cmd
	log  string
	done chan error
}

// Original finds configurable-http-proxy.
func Original() (string, error) {
	p, err := exec.LookPath("configurable-http-proxy")
	if err != nil {
		return "", fmt.Errorf("configurable-http-proxy is missing: install node-configurable-http-proxy, or run scripts/setup bench: %w", err)
	}
	return p, nil
}

// StandIn builds our own front with the same command line, of the module at root, into a directory.
func StandIn(root, dir string) (string, error) {
	to := filepath.Join(dir, "configurable-http-proxy")
	return to, rig.Build(root, to, "./internal/standin")
}

// Start starts a proxy on free ports and waits until both answer. Its output goes to a file in dir.
func Start(ctx context.Context, program, dir string, args ...string) (*Proxy, error) {
	port, err := rig.FreePort()
	if err != nil {
		return nil, err
	}
	apiPort, err := rig.FreePort()
	if err != nil {
		return nil, err
	}
	p := &Proxy{Addr: "127.0.0.1:" + port, API: "http://127.0.0.1:" + apiPort + "/api/routes", done: make(chan error, 1)}
	log, err := os.CreateTemp(dir, "proxy-*.log")
	if err != nil {
		return nil, err
	}
	defer log.Close()
	p.log = log.Name()
	p.Cmd = exec.Command(program, append([]string{"--ip", "127.0.0.1", "--port", port, "--api-ip", "127.0.0.1", "--api-port", apiPort, "--log-level", "warn"}, args...)...)
	p.Cmd.Env = append(os.Environ(), "CONFIGPROXY_AUTH_TOKEN="+Token, nodePath)
	p.Cmd.Stdout, p.Cmd.Stderr = log, log
	if err := p.Cmd.Start(); err != nil {
		return nil, err
	}
	go func() { p.done <- p.Cmd.Wait() }()
	if err := p.answers(ctx); err != nil {
		text, _ := os.ReadFile(p.log) // without a log there is nothing to show
		return nil, errors.Join(fmt.Errorf("%s: %w\n%s", program, err, text), p.Close())
	}
	return p, nil
}

func (p *Proxy) answers(ctx context.Context) error {
	for deadline := time.Now().Add(time.Minute); ; {
		if _, err := p.Routes(ctx); err == nil {
			c, err := net.Dial("tcp", p.Addr)
			if err == nil {
				return c.Close()
			}
		}
		select {
		case err := <-p.done:
			p.done <- err
			return fmt.Errorf("it ended: %w", err)
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			return errors.New("it does not answer")
		}
	}
}

// Close ends the process.
func (p *Proxy) Close() error {
	if err := p.Cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-p.done: // the original ends with status 2, which is its way
	case <-time.After(20 * time.Second):
		return errors.Join(errors.New("the proxy did not stop"), p.Cmd.Process.Kill())
	}
	return nil
}

// Log is what the process wrote.
func (p *Proxy) Log() string {
	text, _ := os.ReadFile(p.log) // without a log there is nothing to show
	return string(text)
}

// Call calls the API: path is what follows /api/routes, escaped. A body that is a string is sent as it is, others as JSON.
func (p *Proxy) Call(ctx context.Context, method, path string, body any) (*http.Response, []byte, error) {
	return p.CallAs(ctx, "token "+Token, method, path, body)
}

// CallAs calls the API with an Authorization header, or none.
func (p *Proxy) CallAs(ctx context.Context, authorization, method, path string, body any) (*http.Response, []byte, error) {
	var send io.Reader
	switch b := body.(type) {
	case nil:
	case string:
		send = strings.NewReader(b)
	default:
		text, err := json.Marshal(b)
		if err != nil {
			return nil, nil, err
		}
		send = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, p.API+path, send)
	if err != nil {
		return nil, nil, err
	}
	if authorization != "" {
		req.Header.Set("Authorization", authorization)
	}
	r, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	return r, text, err
}

// Routes reads the whole table.
func (p *Proxy) Routes(ctx context.Context) (map[string]map[string]any, error) {
	r, text, err := p.Call(ctx, http.MethodGet, "", nil)
	if err != nil {
		return nil, err
	}
	if r.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the table of routes: %s", r.Status)
	}
	var all map[string]map[string]any
	return all, json.Unmarshal(text, &all)
}

// Add adds a route to a target.
func (p *Proxy) Add(ctx context.Context, path, target string) error {
	r, text, err := p.Call(ctx, http.MethodPost, path, map[string]any{"target": target})
	if err != nil {
		return err
	}
	if r.StatusCode != http.StatusCreated {
		return fmt.Errorf("route %s: %s: %s", path, r.Status, text)
	}
	return nil
}

// Websocket opens a websocket through an address.
func Websocket(ctx context.Context, addr, path string, o *websocket.DialOptions) (*websocket.Conn, *http.Response, error) {
	c, r, err := websocket.Dial(ctx, "ws://"+addr+path, o)
	if err == nil {
		c.SetReadLimit(64 << 20)
	}
	return c, r, err
}
