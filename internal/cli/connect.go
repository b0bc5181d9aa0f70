package cli

import (
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/client"
	"github.com/shoal-pool/shoal/internal/cli/call"
	"github.com/shoal-pool/shoal/internal/cli/login"
	"github.com/shoal-pool/shoal/internal/cli/show"
)

// defaultServer is where a server of this host listens unless told otherwise.
const defaultServer = "http://127.0.0.1:7420"

// target is a server and what opens it. Socket or server is set.
type target struct {
	server string
	token  string
	socket string
}

// patience is how long a server that restarts is waited for, where a command waits or follows.
const patience = 5 * time.Minute

// connect returns a client of the server that this command line means.
func (p *program) connect() (*client.Client, error) {
	t, err := p.target()
	if err != nil {
		return nil, err
	}
	return client.New(client.Options{Server: t.server, Token: t.token, Socket: t.socket, As: shoal.UserName(p.as), Patience: patience})
}

// calls is a command that does something with the server.
func (p *program) calls(do func(*cobra.Command, *client.Client, []string) error) func(*cobra.Command, []string) error {
	return call.Connect(p.connect).Run(do)
}

// target finds the server: what was said on the command line, then in the environment, then the
// machine's own socket, then the stored login, then the server of this host.
func (p *program) target() (target, error) {
	token, err := p.token()
	if err != nil {
		return target{}, err
	}
	if server := p.serverGiven(); server != "" {
		server, err := serverURL(server)
		if err != nil {
			return target{}, err
		}
		if token == "" {
			token, err = p.storedToken(server)
		}
		return target{server: server, token: token}, err
	}
	if dir := p.Getenv("SHOAL_DATA"); dir != "" {
		if token != "" { // root's socket would take no notice of whose it is
			return target{}, shoal.Errorf(shoal.KindInvalid, "cannot use a token with SHOAL_DATA, whose socket takes none").
				WithHint("say which server the token is for, with --server URL or SHOAL_SERVER, or leave the token out")
		}
		return socketTarget(filepath.Join(dir, "shoal.sock"))
	}
	if token == "" && exists(p.MachineSocket) {
		if p.as != "" {
			return target{}, shoal.Errorf(shoal.KindDenied, "cannot act as %s from inside a machine: there everybody is who she is", p.as).
				WithHint("leave --as out, or give it where you are logged in as an admin")
		}
		return target{socket: p.MachineSocket}, nil
	}
	stored, err := login.Read(p.Getenv)
	if err != nil {
		return target{}, err
	}
	switch socket := filepath.Join(p.DataDir, "shoal.sock"); {
	case stored.Current != "":
		if token == "" {
			token, err = p.storedToken(stored.Current)
		}
		return target{server: stored.Current, token: token}, err
	case token != "":
		return target{server: defaultServer, token: token}, nil
	case exists(socket):
		return socketTarget(socket)
	}
	return target{}, shoal.Errorf(shoal.KindUnavailable, "cannot tell where the server is: none runs here and no login is stored").
		WithHint("log in with `shoal login URL`, or set SHOAL_SERVER and SHOAL_TOKEN; for a server of this host set SHOAL_DATA=DIR")
}

func (p *program) serverGiven() string {
	if p.server != "" {
		return p.server
	}
	return p.Getenv("SHOAL_SERVER")
}

// socketTarget is a server of this host, which opens its socket for root only.
func socketTarget(socket string) (target, error) {
	if unix.Access(socket, unix.W_OK) == unix.EACCES {
		return target{}, shoal.Errorf(shoal.KindDenied, "cannot open %s: it is for root", socket).
			WithHint("use sudo, or log in as yourself with `shoal login %s`", defaultServer)
	}
	return target{socket: socket}, nil
}

// token is the one that was given, if one was.
func (p *program) token() (string, error) {
	if p.tokenFile == "" {
		return strings.TrimSpace(p.Getenv("SHOAL_TOKEN")), nil
	}
	data, err := os.ReadFile(p.tokenFile)
	if err != nil {
		return "", shoal.Errorf(shoal.KindInvalid, "cannot read the token: %w", err)
	}
	token := strings.TrimSpace(string(data))
	if token == "" || strings.ContainsAny(token, " \t\r\n") {
		return "", shoal.Errorf(shoal.KindInvalid, "cannot use %s: it holds no token", p.tokenFile).
			WithHint("a token is one word; the server's own is in DIR/admin.token")
	}
	return token, nil
}

// storedToken is what login stored for a server, empty if nothing.
func (p *program) storedToken(server string) (string, error) {
	stored, err := login.Read(p.Getenv)
	if err != nil {
		return "", err
	}
	l, ok := stored.Servers[server]
	if ok && !l.Expires.IsZero() && time.Now().After(l.Expires) {
		return "", shoal.Errorf(shoal.KindUnauthenticated, "cannot use the login at %s: it expired %s", server, show.Ago(l.Expires)).
			WithHint("log in again with `shoal login %s`", server)
	}
	return l.Token, nil
}

// serverURL brings what people write for a server into one form.
func serverURL(s string) (string, error) {
	if !strings.Contains(s, "://") {
		s = "http://" + s
	}
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.RawQuery != "" || u.User != nil {
		return "", shoal.Errorf(shoal.KindInvalid, "cannot use %q as a server", s).WithHint("write a URL such as %s", defaultServer)
	}
	if u.Port() == "" && u.Scheme == "http" {
		u.Host = net.JoinHostPort(u.Hostname(), "7420")
	}
	return u.Scheme + "://" + u.Host + strings.TrimRight(u.Path, "/"), nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
