package postgres_test

import (
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/store/postgres"
)

// Whoever gives an address that is of no use is told what is wrong with it, in one line, and what to do.
func TestRefused(t *testing.T) {
	a := address(t)
	admin, err := pgx.Connect(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close(t.Context())
	if _, err := admin.Exec(t.Context(), "CREATE ROLE guarded LOGIN PASSWORD 'right'; CREATE ROLE guest LOGIN"); err != nil {
		t.Fatal(err)
	}
	as := func(user, database, more string) string {
		u, err := url.Parse(a)
		if err != nil {
			t.Fatal(err)
		}
		u.User = url.User(user)
		if database != "" {
			u.Path = "/" + database
		}
		return u.String() + more
	}
	wrong := filepath.Join(t.TempDir(), "pgpass")
	if err := os.WriteFile(wrong, []byte("*:*:*:*:wrong\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct {
		address    string
		kind       shoal.Kind
		says, hint string
	}{
		"a wrong password":   {as("guarded", "", "&passfile="+wrong), shoal.KindDenied, "password authentication failed", "passfile"},
		"no password":        {as("guarded", "", ""), shoal.KindDenied, "password", "passfile"},
		"no such user":       {as("nobody-there", "", ""), shoal.KindDenied, `role "nobody-there" does not exist`, "must be able to connect"},
		"no such database":   {as("shoal", "nowhere", ""), shoal.KindNotFound, `database "nowhere" does not exist`, "createdb"},
		"no rights":          {as("guest", "", ""), shoal.KindDenied, "permission denied for schema public", "to make tables"},
		"nobody listens":     {"postgres://shoal@127.0.0.1:1/shoal", shoal.KindUnavailable, "connection refused", "Does it listen at that address?"},
		"no socket":          {"postgres:///shoal?host=/nowhere", shoal.KindUnavailable, "no such file", "is PostgreSQL running?"},
		"a PostgreSQL of 13": {refusing(t, "42704", `unrecognized configuration parameter "idle_session_timeout"`), shoal.KindInvalid, "too old", "14 or later"},
		"a pooler":           {refusing(t, "08P01", "unsupported startup parameter: idle_session_timeout"), shoal.KindInvalid, "a pooler", "PostgreSQL itself"},
	} {
		t.Run(what, func(t *testing.T) {
			_, err := postgres.Open(t.Context(), c.address, postgres.Options{})
			if shoal.KindOf(err) != c.kind || !strings.Contains(fmt.Sprint(err), c.says) || !strings.Contains(shoal.HintOf(err), c.hint) {
				t.Errorf("%v (%s, hint %q), want %s with %q and %q", err, shoal.KindOf(err), shoal.HintOf(err), c.kind, c.says, c.hint)
			}
			if strings.Contains(fmt.Sprint(err), "\n") {
				t.Errorf("it is told in lines: %v", err)
			}
		})
	}
}

// refusing is the address of what takes connections for PostgreSQL's, and refuses each with a code and a message.
func refusing(t *testing.T, code, message string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			b := pgproto3.NewBackend(c, c)
			if _, err := b.ReceiveStartupMessage(); err == nil {
				b.Send(&pgproto3.ErrorResponse{Severity: "FATAL", SeverityUnlocalized: "FATAL", Code: code, Message: message})
				_ = b.Flush() // or the other side has gone
			}
			c.Close()
		}
	}()
	return "postgres://shoal@" + l.Addr().String() + "/shoal?sslmode=disable"
}
