package postgres

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/store"
	"github.com/shoal-pool/shoal/internal/store/commit"
)

const (
	// lease is after what silence the database ends the connection of who leads.
	lease = 5 * time.Second
	// poll is how often a server that waits asks whether it may lead.
	poll = 500 * time.Millisecond
	// dial is how long one attempt to connect may take.
	dial = 5 * time.Second
	// lock is the number of the advisory lock: "shoal" in ASCII.
	lock = 0x73686f616c
	// timeout is the parameter by which the database ends a silent connection. PostgreSQL has it since version 14.
	timeout = "idle_session_timeout"
)

// database is a commit.Database.
type database struct {
	config *pgx.ConnConfig
	epoch  atomic.Int64 // taken when it was opened; 0 until then
}

// Options say how to open a database.
type Options struct {
	// Standby, if not nil, is called once when another server leads; Open then waits until it may. nil: Open returns
	// KindConflict.
	Standby func()
}

// Open opens the store in a database, makes its tables if there are none, and brings them to the newest schema. It
// waits until no other server leads, or ctx ends.
func Open(ctx context.Context, address string, opts Options) (*store.DB, error) {
	config, err := Parse(address)
	if err != nil {
		return nil, err
	}
	d := &database{config: config}
	s, err := d.open(ctx, opts)
	if err != nil {
		return nil, d.refused(err)
	}
	return store.New(s), nil
}

// refused says why a store could not be opened.
func (d *database) refused(err error) error {
	err = explain(err)
	hint := shoal.HintOf(err)
	if hint == goesOn { // nothing does that has not begun
		hint = "is PostgreSQL running? Does it listen at that address?"
	}
	return shoal.Errorf(shoal.KindOf(err), "cannot open the store in %s: %w", d.name(), err).WithHint("%s", hint)
}

// Version is of which schema the store in a database is, without a change to it; 0: there is none.
func Version(ctx context.Context, address string) (int, error) {
	config, err := Parse(address)
	if err != nil {
		return 0, err
	}
	d := &database{config: config}
	c, err := d.connect(ctx, patience, map[string]string{"default_transaction_read_only": "on"})
	if err != nil {
		return 0, d.refused(err)
	}
	defer c.Discard()
	have, err := schema(c)
	if err != nil {
		return 0, d.refused(err)
	}
	return have, nil
}

// Peek opens the store in a database to be read only, while a server uses it perhaps. Updates of it fail.
func Peek(ctx context.Context, address string) (*store.DB, error) {
	config, err := Parse(address)
	if err != nil {
		return nil, err
	}
	d := &database{config: config}
	c, err := d.connect(ctx, patience, map[string]string{"default_transaction_read_only": "on"})
	if err != nil {
		return nil, d.refused(err)
	}
	var s *commit.Store
	if err = newest(c); err == nil {
		s, err = commit.Open(reader{d}, c)
	}
	if err != nil {
		c.Discard()
		return nil, d.refused(err)
	}
	return store.New(s), nil
}

// reader is a database that is only read: nothing has to be told to keep a lead.
type reader struct{ *database }

// Lease is for ever.
func (reader) Lease() time.Duration { return 0 }

// Parse reads the address of a database, such as postgres://shoal@db.example.org/shoal.
func Parse(address string) (*pgx.ConnConfig, error) {
	u, err := url.Parse(address)
	if err != nil || !Is(address) {
		return nil, shoal.Errorf(shoal.KindInvalid, "cannot use the database %q", Redact(address)).
			WithHint("write postgres://USER@HOST/DATABASE, or postgres:///DATABASE?host=/var/run/postgresql for a socket")
	}
	if _, has := u.User.Password(); has || u.Query().Has("password") {
		return nil, shoal.Errorf(shoal.KindInvalid, "cannot use a database address with a password in it: every user of this host can read it").
			WithHint("write HOST:PORT:DATABASE:USER:PASSWORD into a file that only root reads, and add ?passfile=FILE to the address")
	}
	if path := u.Query().Get("passfile"); path != "" {
		if err := private(path); err != nil {
			return nil, err
		}
	}
	config, err := pgx.ParseConfig(address)
	if err != nil {
		return nil, shoal.Errorf(shoal.KindInvalid, "cannot use the database %q: %w", Redact(address), err)
	}
	if config.Database == "" {
		return nil, shoal.Errorf(shoal.KindInvalid, "cannot use %q: it names no database", Redact(address)).WithHint("write postgres://USER@HOST/DATABASE")
	}
	config.ConnectTimeout = dial
	for key, value := range map[string]string{"application_name": "shoal", "client_encoding": "UTF8", "jit": "off", "synchronous_commit": "on", "TimeZone": "UTC"} {
		config.RuntimeParams[key] = value
	}
	return config, nil
}

// Is reports whether an address is one of PostgreSQL's.
func Is(address string) bool {
	return strings.HasPrefix(address, "postgres://") || strings.HasPrefix(address, "postgresql://")
}

// Redact is an address without what may be secret.
func Redact(address string) string {
	u, err := url.Parse(address)
	if err != nil || u.Scheme == "" && strings.Contains(address, "=") {
		return "(not shown)"
	}
	u.RawQuery, u.Fragment = "", ""
	return u.Redacted()
}

// private refuses a file of passwords that is not there, or that others can read; the driver would pass over the one and use the other.
func private(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return shoal.Errorf(shoal.KindNotFound, "cannot read the database's password: %w", err).WithHint("?passfile=FILE of the address names the file")
	}
	most := fs.FileMode(0o700)
	if own, ok := info.Sys().(*syscall.Stat_t); ok && own.Uid == 0 {
		most = 0o740 // as a pod has it from a secret: root's, for the group of who serves
	}
	if info.Mode().Perm()&^most != 0 {
		return shoal.Errorf(shoal.KindInvalid, "cannot use the database's password in %s: others than its owner may read it", path).WithHint("chmod 600 %s", path)
	}
	return nil
}

// name is what people are told the database is.
func (d *database) name() string {
	return fmt.Sprintf("database %q on %s", d.config.Database, net.JoinHostPort(d.config.Host, strconv.Itoa(int(d.config.Port))))
}

func (d *database) connect(ctx context.Context, limit time.Duration, params map[string]string) (*conn, error) {
	config := d.config.Copy()
	for key, value := range params {
		config.RuntimeParams[key] = value
	}
	config.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := (&net.Dialer{KeepAlive: 10 * time.Second}).DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return patient{c, limit}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, dial)
	defer cancel()
	pg, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	return &conn{pg: pg, texts: map[string]string{}, queued: &pgx.Batch{}}, nil
}

// Reader is of commit.Database, as those that follow.
func (d *database) Reader(ctx context.Context) (commit.Conn, error) {
	c, err := d.connect(ctx, patience, map[string]string{"default_transaction_read_only": "on"})
	if err != nil {
		return nil, err
	}
	return c, nil
}

// Writer makes the connection of who leads, if this process still does: nobody has taken an epoch since.
func (d *database) Writer(ctx context.Context) (commit.Conn, error) {
	c, err := d.lead(ctx)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// lead connects and takes the lock. errHeld: it is another's.
func (d *database) lead(ctx context.Context) (*conn, error) {
	silence := strconv.FormatInt(lease.Milliseconds(), 10)
	c, err := d.connect(ctx, 2*lease, map[string]string{timeout: silence, "idle_in_transaction_session_timeout": silence})
	if err != nil {
		return nil, err
	}
	if err := d.lock(c); err != nil {
		c.Discard()
		return nil, err
	}
	return c, nil
}

func (d *database) lock(c *conn) error {
	got := false
	if err := c.Query(func(r commit.Rows) error { return r.Scan(&got) }, "SELECT pg_try_advisory_lock(?)", int64(lock)); err != nil {
		return err
	}
	if mine := d.epoch.Load(); mine != 0 {
		if now, err := commit.Epoch(c); err != nil {
			return err
		} else if now != mine {
			return commit.ErrLost
		}
	}
	if !got {
		// Whoever could not lead this database is no standby.
		_, err := missing(c)
		return cmp.Or(err, errHeld)
	}
	return nil
}

var errHeld = errors.New("another connection holds the lead")

// lingers is for how long a process that has ended may hold the lead: until the database notices.
const lingers = 2 * time.Second

func (d *database) open(ctx context.Context, opts Options) (*commit.Store, error) {
	began := time.Now()
	c, err := d.lead(ctx)
	for waits := false; errors.Is(err, errHeld) || waits && unreachable(err); c, err = d.lead(ctx) {
		if opts.Standby == nil && time.Since(began) > lingers {
			return nil, shoal.Errorf(shoal.KindConflict, "another server leads").WithHint("is `shoal serve` running on this database? Stop it first")
		}
		if opts.Standby != nil && !waits {
			waits = true
			opts.Standby()
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(poll):
		}
	}
	if err != nil {
		return nil, err
	}
	s, err := d.start(ctx, c)
	if err != nil {
		c.Discard()
	}
	return s, err
}

// start brings the tables to the newest schema and takes the next epoch.
func (d *database) start(ctx context.Context, c *conn) (*commit.Store, error) {
	if err := d.migrate(ctx, c); err != nil {
		return nil, err
	}
	epoch, err := commit.NextEpoch(c)
	if err != nil {
		return nil, err
	}
	d.epoch.Store(epoch)
	return commit.Open(d, c)
}

// Broken is true of any error of the database's: after one, PostgreSQL takes nothing more in a transaction.
func (*database) Broken(err error) bool {
	_, ok := errors.AsType[*pgconn.PgError](err)
	return ok || !local(err)
}

// Explain says what can be done.
func (*database) Explain(err error) error { return explain(err) }

// Lease is after what silence another server may lead.
func (*database) Lease() time.Duration { return lease }

// Epoch is that of this server.
func (d *database) Epoch() int64 { return d.epoch.Load() }

// Columns are what PostgreSQL knows of them.
func (*database) Columns() string {
	return `SELECT table_name::text, column_name::text FROM information_schema.columns JOIN information_schema.tables USING (table_schema, table_name)
		WHERE table_schema = current_schema() AND table_type = 'BASE TABLE' AND table_name <> 'schema_version' ORDER BY table_name, ordinal_position`
}

// Close has nothing left to close.
func (*database) Close() error { return nil }

// unreachable reports whether a database may answer later.
func unreachable(err error) bool {
	return err != nil && shoal.KindOf(explain(err)) == shoal.KindUnavailable
}

const goesOn = "is PostgreSQL running? Work goes on by itself once it answers; sessions and tasks do not need it"

// explain gives an error of the database a kind and, where something can be done, a hint.
func explain(err error) error { return commit.Explain(err, says) }

// says is explain for what PostgreSQL says, or the way to it.
func says(err error) error {
	if errors.Is(err, commit.ErrLost) {
		return shoal.Errorf(shoal.KindUnavailable, "cannot use the store: %w", err).WithHint("ask the server that leads now")
	}
	if errors.Is(err, errHeld) {
		return shoal.Errorf(shoal.KindUnavailable, "cannot change the store: %w", err).
			WithHint("the database has not ended this server's former connection yet, or another server is taking over")
	}
	if errors.Is(err, context.Canceled) {
		return shoal.Errorf(shoal.KindCancelled, "cannot use the store: %w", err)
	}
	e, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		if local(err) {
			return err
		}
		return shoal.Errorf(shoal.KindUnavailable, "cannot reach the database: %w", brief(err)).WithHint("%s", goesOn)
	}
	err = brief(err)
	switch e.Code {
	case "22021", "22P05": // a character that texts cannot hold
		return shoal.Errorf(shoal.KindInvalid, "cannot store a text with a NUL character in it: %w", err)
	case "42704":
		if strings.Contains(e.Message, timeout) {
			return shoal.Errorf(shoal.KindInvalid, "cannot use the store: PostgreSQL is too old: %w", err).WithHint("it must be of version 14 or later")
		}
	case "08P01":
		if strings.Contains(e.Message, "startup parameter") {
			return shoal.Errorf(shoal.KindInvalid, "cannot use the store: it is no PostgreSQL that answers, but a pooler: %w", err).
				WithHint("give the address of PostgreSQL itself: who leads is told by its connection, which a pooler shares among clients")
		}
	case "53100":
		return shoal.Errorf(shoal.KindUnavailable, "cannot write to the database: its disk is full: %w", err).
			WithHint("free some space where PostgreSQL keeps its data; nothing stored is lost and work goes on by itself")
	case "42P07": // ours that is not there yet
		return shoal.Errorf(shoal.KindConflict, "cannot make the store's tables: others have one of that name in this database: %w", err).
			WithHint("give Shoal a database of its own: createdb --owner USER NAME, as PostgreSQL's administrator")
	case "3D000":
		return shoal.Errorf(shoal.KindNotFound, "cannot use the store: %w", err).WithHint("make it: createdb --owner USER NAME, as PostgreSQL's administrator")
	case "42501", "28000", "28P01":
		return shoal.Errorf(shoal.KindDenied, "cannot use the store: %w", err).
			WithHint("the user must be able to connect and to make tables; passwords are read from the file that ?passfile= of the address names")
	case "25006":
		return shoal.Errorf(shoal.KindUnavailable, "cannot write to the database: it is read-only: %w", err).
			WithHint("a replica is: give the address of the primary, or of all with ?target_session_attrs=read-write. Else make it writable: ALTER DATABASE … RESET default_transaction_read_only")
	}
	switch e.Code[:min(2, len(e.Code))] {
	case "08", "53", "55", "57", "58", "40":
		return shoal.Errorf(shoal.KindUnavailable, "cannot use the database just now: %w", err).WithHint("%s", goesOn)
	}
	return shoal.Errorf(shoal.KindInternal, "cannot use the store: %w", err)
}

// brief says in one line what was tried in vain to connect: the driver tells it of each address with and without TLS, in lines.
func brief(err error) error {
	c, ok := errors.AsType[*pgconn.ConnectError](err)
	if !ok {
		return err
	}
	var told []string
	for line := range strings.Lines(c.Error()) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "failed to connect to") && !strings.Contains(line, "server refused TLS") && !slices.Contains(told, line) {
			told = append(told, line)
		}
	}
	if told == nil {
		return err
	}
	return briefly{strings.Join(told, "; "), err}
}

// briefly is an error in other words.
type briefly struct {
	text string
	error
}

// Error is of error.
func (b briefly) Error() string { return b.text }

// Unwrap returns what it stands for.
func (b briefly) Unwrap() error { return b.error }

// local reports whether an error has nothing to do with the connection.
func local(err error) bool {
	_, network := errors.AsType[net.Error](err)
	_, connecting := errors.AsType[*pgconn.ConnectError](err)
	return !network && !connecting && !errors.Is(err, commit.ErrUnsure) && !closed(err)
}
