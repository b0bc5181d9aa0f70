package httpapi_test

import (
	"bufio"
	"context"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/client"
	"github.com/shoal-pool/shoal/internal/store"
	"github.com/shoal-pool/shoal/internal/store/storetest"
)

// TestClient goes through all that the client can do, as an admin at the host's socket.
func TestClient(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	socket := filepath.Join(w.dir, "shoal.sock")
	serve(t, listen(t, "unix", socket), w.api.Local())
	c, err := client.New(client.Options{Socket: socket})
	mustf(t, err, "client")
	defer c.Close()
	ctx := t.Context()
	check := func(what string, ok bool, err error) {
		t.Helper()
		if err != nil || !ok {
			t.Errorf("%s: %t, %v", what, ok, err)
		}
	}
	v, err := c.Version(ctx)
	check("version", v.Version == "test" && v.SSH == "127.0.0.1:2222", err)
	me, err := c.Whoami(ctx)
	check("whoami", me.Role == shoal.RoleAdmin && me.User == "", err)
	res, err := c.Apply(ctx, api.ApplyRequest{Groups: []shoal.Group{{Name: "late"}}, Pools: []shoal.Pool{{Name: "second", Provider: "local", Size: shoal.Size{Max: 1}}}})
	check("apply", len(res.Changes) == 2 && res.Changes[0].Action == "created", err)
	pools, err := c.Pools(ctx)
	check("pools", len(pools) == 2, err)
	p, err := c.ScalePool(ctx, "lab", api.ScaleRequest{Size: 1})
	check("scale", p.Fixed != nil && p.Fixed.Size == 1, err)
	p, err = c.Pool(ctx, "lab")
	check("pool", p.Machine.Memory == 4<<30 && p.Machine.CPUs == 4000, err)
	check("delete pool", true, c.DeletePool(ctx, "second"))
	shares, err := c.Shares(ctx)
	check("shares", len(shares) == 2, err)
	s, err := c.Share(ctx, "team")
	check("share", s.Source == "/srv/team", err)
	wantKind(t, c.DeleteShare(ctx, "team"), shoal.KindConflict)
	check("delete share", true, c.DeleteShare(ctx, "spare"))
	groups, err := c.Groups(ctx)
	check("groups", len(groups) == 2, err)
	g, err := c.Group(ctx, "late")
	check("group", g.GID >= shoal.FirstID, err)
	check("delete group", true, c.DeleteGroup(ctx, "late"))

	u, err := c.AddUser(ctx, shoal.User{Name: "dora", Role: shoal.RoleOperator}, "long enough")
	check("add user", u.UID >= shoal.FirstID && u.HasPassword, err)
	_, err = c.AddUser(ctx, shoal.User{Name: "dora"}, "")
	wantKind(t, err, shoal.KindConflict)
	check("password", true, c.SetPassword(ctx, "dora", ""))
	u, err = c.User(ctx, "dora")
	check("user", u.Role == shoal.RoleOperator && !u.HasPassword, err)
	u, err = c.DisableUser(ctx, "dora")
	check("disable", u.Disabled, err)
	u, err = c.EnableUser(ctx, "dora")
	check("enable", !u.Disabled, err)
	ch, err := c.RemoveUser(ctx, "dora")
	check("remove", ch.Action == "removed", err)
	users, err := c.Users(ctx)
	check("users", len(users) == 5, err)

	m, err := c.Drain(ctx, "m-1", api.DrainRequest{Reason: "test"})
	check("drain", m.Shown() == "draining", err)
	m, err = c.Undrain(ctx, "m-1")
	check("undrain", m.Shown() == "ready", err)
	machines, err := c.Machines(ctx, client.MachineQuery{Pool: "lab", State: shoal.MachineReady})
	check("machines", len(machines) == 1, err)
	m, err = c.Machine(ctx, "m-1")
	check("machine", m.Address == "10.0.0.1:22", err)
	wantKind(t, c.DeleteMachine(ctx, "m-1", false), shoal.KindConflict)

	session, err := c.KeepAwake(ctx, "s-alice", time.Hour)
	check("keep awake", time.Until(session.KeepUntil) > 59*time.Minute, err)
	check("end session", true, c.EndSession(ctx, "s-alice"))
	session, err = c.Session(ctx, "s-alice")
	check("session", session.State == shoal.SessionEnded, err)
	sessions, err := c.Sessions(ctx, client.SessionQuery{Pool: "lab"})
	check("sessions", len(sessions) == 1 && sessions[0].ID == "s-bob", err)
	sessions, err = c.Sessions(ctx, client.SessionQuery{User: "alice", Ended: true, Limit: 5})
	check("ended sessions", len(sessions) == 1, err)
	for _, about := range [][3]string{{"pool", "lab"}, {"machine", "m-1"}, {"session", "s-alice"}, {"login", "bob", "lab"}} {
		why, err := c.Why(ctx, about[0], about[1], about[2])
		check("why "+about[0], why.Sentence != "", err)
	}
	image, err := c.Snapshot(ctx, "frozen")
	check("snapshot", image.Name == "frozen", err)
	all, err := c.Images(ctx)
	check("images", len(all) == 1, err)
	check("remove image", true, c.RemoveImage(ctx, "frozen"))
	check("delete machine", true, c.DeleteMachine(ctx, "m-1", true))
	_, err = c.Submit(ctx, shoal.JobSpec{Pool: "lab", Command: "true"}, "")
	wantKind(t, err, shoal.KindDenied)
	if !strings.Contains(shoal.HintOf(err), "--as") {
		t.Errorf("hint %q", shoal.HintOf(err))
	}
	_, err = c.Pool(ctx, "a/b c%?")
	wantKind(t, err, shoal.KindNotFound)
}

// TestClientJobs goes through what a user does with jobs.
func TestClientJobs(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.client(w.tokens["alice"])
	ctx := t.Context()
	spec := shoal.JobSpec{Pool: "lab", Command: "true", Name: "once"}
	first, err := c.Submit(ctx, spec, "key-1")
	mustf(t, err, "submit")
	again, err := c.Submit(ctx, spec, "key-1")
	if err != nil || again.ID != first.ID {
		t.Errorf("the same key made job %s and job %s, %v", first.ID, again.ID, err)
	}
	_, err = c.CancelJob(ctx, first.ID)
	mustf(t, err, "cancel")
	id := w.job("", true)
	jobs, err := c.Jobs(ctx, client.JobQuery{Limit: 1})
	if err != nil || len(jobs) != 1 || jobs[0].ID != id {
		t.Errorf("%v, %v", jobs, err)
	}
	if jobs, err := c.Jobs(ctx, client.JobQuery{Name: "once", User: "alice", Pool: "lab"}); err != nil || len(jobs) != 1 {
		t.Errorf("%v, %v", jobs, err)
	}
	tasks, err := c.Tasks(ctx, id, 0, 0)
	if err != nil || len(tasks) != 1 || tasks[0].State != shoal.JobSucceeded {
		t.Errorf("%v, %v", tasks, err)
	}
	wait, err := c.WaitJob(ctx, id)
	if err != nil || wait.ExitCode != 0 || wait.Job.State != shoal.JobSucceeded {
		t.Errorf("%+v, %v", wait, err)
	}
	for offset, want := range map[int64]string{0: "SECRET-OUTPUT\n", 7: "OUTPUT\n", 14: "", 99: ""} {
		r, err := c.Output(ctx, shoal.TaskRef{Job: id, Index: -1}, client.OutputQuery{Offset: offset, Follow: offset == 0})
		mustf(t, err, "output")
		if got, err := io.ReadAll(r); err != nil || string(got) != want {
			t.Errorf("from %d: %q, %v", offset, got, err)
		}
		mustf(t, r.Close(), "close")
	}
	_, err = c.Output(ctx, shoal.TaskRef{Job: id, Index: 7}, client.OutputQuery{Follow: true})
	wantKind(t, err, shoal.KindNotFound)
	if why, err := c.Why(ctx, "job", string(id), ""); err != nil || why.Sentence == "" {
		t.Errorf("%+v, %v", why, err)
	}
	// A hundred tasks over several pages.
	many, err := c.Submit(ctx, shoal.JobSpec{Pool: "lab", Command: "true", Array: "0-2499"}, "")
	mustf(t, err, "submit")
	if tasks, err := c.Tasks(ctx, many.ID, 10, 0); err != nil || len(tasks) != 2490 || tasks[2489].Index != 2499 {
		t.Errorf("%d tasks, %v", len(tasks), err)
	}
	if tasks, err := c.Tasks(ctx, many.ID, 0, 1500); err != nil || len(tasks) != 1500 {
		t.Errorf("%d tasks, %v", len(tasks), err)
	}
}

// TestFollow: output and events come when they happen, and output ends where the task does.
func TestFollow(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.client(w.tokens["alice"])
	id := w.job("", false)
	ref := shoal.AttemptRef{TaskRef: shoal.TaskRef{Job: id}, Attempt: 1}
	r, err := c.Output(t.Context(), ref.TaskRef, client.OutputQuery{Follow: true})
	mustf(t, err, "output")
	defer r.Close()
	silent, err := c.Output(t.Context(), ref.TaskRef, client.OutputQuery{Stream: "stderr", Follow: true}) // opens although there is nothing yet
	mustf(t, err, "output")
	lines := bufio.NewReader(r)
	if line, err := lines.ReadString('\n'); err != nil || line != "SECRET-OUTPUT\n" {
		t.Fatalf("%q, %v", line, err)
	}
	_, err = w.batch.Report(t.Context(), "m-1", nil, []api.Output{{Ref: ref, Stream: "stdout", Offset: 14, Data: []byte("more\n")}})
	mustf(t, err, "report")
	if line, err := lines.ReadString('\n'); err != nil || line != "more\n" {
		t.Fatalf("%q, %v", line, err)
	}
	w.end(ref, 19)
	if rest, err := io.ReadAll(lines); err != nil || len(rest) != 0 {
		t.Errorf("%q, %v", rest, err)
	}
	if rest, err := io.ReadAll(silent); err != nil || len(rest) != 0 {
		t.Errorf("%q, %v", rest, err)
	}
	// Closing ends a Read that waits.
	id = w.job("", false)
	r, err = c.Output(t.Context(), shoal.TaskRef{Job: id}, client.OutputQuery{Stream: "stderr", Follow: true})
	mustf(t, err, "output")
	read := make(chan error, 1)
	go func() { _, err := r.Read(make([]byte, 1)); read <- err }()
	mustf(t, r.Close(), "close")
	wantKind(t, <-read, shoal.KindCancelled)

	ctx, cancel := context.WithCancel(t.Context())
	var codes []string
	for e, err := range c.Events(ctx, time.Time{}, true) {
		if err != nil {
			wantKind(t, err, shoal.KindCancelled)
			break
		}
		codes = append(codes, e.Code)
		switch {
		case e.Code == "marker":
			cancel()
		case len(codes) == 3:
			storetest.Update(t, w.db, func(tx *store.Tx) error {
				tx.Event(shoal.Event{Kind: shoal.ObjectUser, Name: "bob", User: "bob", Code: "bobs"})
				tx.Event(shoal.Event{Kind: shoal.ObjectPool, Name: "lab", Pool: "lab", Code: "marker"})
				return nil
			})
		}
	}
	if !slices.Contains(codes, "marker") || slices.Contains(codes, "bobs") || !slices.Contains(codes, "sessionStarted") {
		t.Errorf("%v", codes)
	}
	var last time.Time
	for e, err := range c.Events(t.Context(), time.Time{}, false) {
		mustf(t, err, "events")
		last = e.Time
	}
	n := 0
	for range c.Events(t.Context(), last, false) {
		n++
	}
	if n != 1 {
		t.Errorf("%d events since the last one", n)
	}
	cancel()
}

// TestRestart: following, waiting and events go on where they were when the server comes back.
func TestRestart(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	socket := filepath.Join(w.dir, "shoal.sock")
	stop := serve(t, listen(t, "unix", socket), w.api.Local())
	c, err := client.New(client.Options{Socket: socket, As: "alice"})
	mustf(t, err, "client")
	defer c.Close()
	restart := func() {
		stop()
		time.Sleep(200 * time.Millisecond) // nobody is there for a moment
		stop = serve(t, listen(t, "unix", socket), w.api.Local())
	}
	id := w.job("", false)
	ref := shoal.AttemptRef{TaskRef: shoal.TaskRef{Job: id}, Attempt: 1}
	r, err := c.Output(t.Context(), ref.TaskRef, client.OutputQuery{Follow: true})
	mustf(t, err, "output")
	defer r.Close()
	lines := bufio.NewReader(r)
	waited := make(chan error, 1)
	go func() {
		wait, err := c.WaitJob(t.Context(), id)
		if err == nil && wait.Job.State != shoal.JobSucceeded {
			err = fmt.Errorf("it is %s", wait.Job.State)
		}
		waited <- err
	}()
	events := make(chan string, 100)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		defer close(events)
		for e, err := range c.Events(ctx, time.Time{}, true) {
			if err != nil {
				return
			}
			events <- e.Code + " " + e.Name
		}
	}()
	size := int64(14)
	for i := range 3 {
		line, err := lines.ReadString('\n')
		mustf(t, err, "read")
		if want := fmt.Sprintf("line %d\n", i-1); i > 0 && line != want {
			t.Errorf("%q, want %q", line, want)
		}
		restart()
		next := fmt.Appendf(nil, "line %d\n", i)
		_, err = w.batch.Report(t.Context(), "m-1", nil, []api.Output{{Ref: ref, Stream: "stdout", Offset: size, Data: next}})
		mustf(t, err, "report")
		size += int64(len(next))
	}
	w.end(ref, size)
	if rest, err := io.ReadAll(lines); err != nil || string(rest) != "line 2\n" {
		t.Errorf("%q, %v", rest, err)
	}
	if err := <-waited; err != nil {
		t.Errorf("wait: %v", err)
	}
	seen := map[string]int{}
	for code := range events {
		if seen[code]++; seen[code] > 1 {
			t.Errorf("event %s came twice", code)
		}
		if code == "jobEnded "+string(id) {
			cancel()
		}
	}
	if seen["poolCreated lab"] != 1 {
		t.Errorf("%v", seen)
	}
	cancel()
}

// TestLogin: with a password, and by a signature over a challenge.
func TestLogin(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.client("")
	ctx := t.Context()
	key := newSigner(t)
	storetest.Update(t, w.db, func(tx *store.Tx) error {
		u, err := tx.Users().Get("bob")
		u.Keys = []string{string(ssh.MarshalAuthorizedKey(key.PublicKey()))}
		if err != nil {
			return err
		}
		return put(tx.Users().Put, u)
	})
	mustf(t, w.people.SetPassword(ctx, "bob", "correct horse"), "set password")
	signedIn := func(r api.LoginResponse, err error) {
		t.Helper()
		if err != nil || r.Token == "" || time.Until(r.Expires) < 24*time.Hour {
			t.Errorf("%+v, %v", r, err)
			return
		}
		if me, err := w.client(r.Token).Whoami(ctx); err != nil || me.User != "bob" {
			t.Errorf("%+v, %v", me, err)
		}
	}
	signedIn(c.Login(ctx, api.LoginRequest{User: "bob", Password: "correct horse"}))
	challenge := func(user shoal.UserName) string {
		t.Helper()
		r, err := c.Login(ctx, api.LoginRequest{User: user, Key: string(ssh.MarshalAuthorizedKey(key.PublicKey()))})
		if err != nil || r.Challenge == "" || r.Token != "" {
			t.Fatalf("%+v, %v", r, err)
		}
		return r.Challenge
	}
	challenge("nobody") // as for anybody
	text := challenge("bob")
	proof := api.LoginRequest{User: "bob", Challenge: text, Signature: signature(t, key, text)}
	signedIn(c.Login(ctx, proof))
	for name, req := range map[string]api.LoginRequest{
		"again": proof, "another's": {User: "alice", Challenge: text, Signature: proof.Signature},
		"another key": {User: "bob", Challenge: text, Signature: signature(t, newSigner(t), text)},
		"password":    {User: "bob", Password: "wrong"},
	} {
		_, err := c.Login(ctx, req)
		if err == nil || shoal.KindOf(err) != shoal.KindUnauthenticated {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, req := range []api.LoginRequest{{}, {User: "bob"}, {User: "bob", Password: "x", Key: "y"}} {
		_, err := c.Login(ctx, req)
		wantKind(t, err, shoal.KindInvalid)
	}
	// Whoever fails too often from one place has to wait, whatever is tried.
	kind := shoal.KindUnauthenticated
	for i := 0; kind == shoal.KindUnauthenticated && i < 100; i++ {
		_, err := c.Login(ctx, api.LoginRequest{User: "bob", Challenge: text, Signature: proof.Signature})
		kind = shoal.KindOf(err)
	}
	if kind != shoal.KindExhausted {
		t.Errorf("guessing ends with %s", kind)
	}
}

// signature is what ssh-keygen -Y sign -n shoal-login writes (OpenSSH's PROTOCOL.sshsig).
func signature(t *testing.T, key ssh.Signer, text string) string {
	t.Helper()
	sum := sha512.Sum512([]byte(text))
	signed := append([]byte("SSHSIG"), ssh.Marshal(struct{ Namespace, Reserved, Hash, Sum string }{"shoal-login", "", "sha512", string(sum[:])})...)
	sig, err := key.Sign(nil, signed)
	mustf(t, err, "sign")
	blob := append([]byte("SSHSIG"), ssh.Marshal(struct {
		Version                   uint32
		Key                       []byte
		Namespace, Reserved, Hash string
		Signature                 []byte
	}{1, key.PublicKey().Marshal(), "shoal-login", "", "sha512", ssh.Marshal(sig)})...)
	return "-----BEGIN SSH SIGNATURE-----\n" + base64.StdEncoding.EncodeToString(blob) + "\n-----END SSH SIGNATURE-----\n"
}

// TestAgentProtocol: a machine joins, follows and reports over HTTP.
func TestAgentProtocol(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	base := start(t, w.api.Agent())
	storetest.Update(t, w.db, func(tx *store.Tx) error {
		return put(tx.Machines().Put, shoal.Machine{ID: "m-2", Pool: "lab", State: shoal.MachineBooting, Wanted: shoal.WantRun, Epoch: 1, Address: "10.0.0.2:22"})
	})
	ask := api.AgentJoin{Machine: "m-2", Epoch: 1, Token: w.hub.JoinToken("m-2", 1), HostKey: string(ssh.MarshalAuthorizedKey(newSigner(t).PublicKey()))}
	body, err := json.Marshal(ask)
	mustf(t, err, "marshal")
	a := do(t, base, request{method: "POST", path: "/agent/v1/join", body: strings.Replace(string(body), "{", `{"future":true,`, 1)})
	var joined api.AgentJoined
	mustf(t, json.Unmarshal([]byte(a.body), &joined), "join: %d %s", a.status, a.body)
	for path, method := range map[string]string{"/agent/v1/stream": "GET", "/agent/v1/report": "POST", "/agent/v1/user/api/v1/pools": "GET"} {
		for _, token := range []string{"", "x", w.tokens["ada"], adminToken, w.hub.JoinToken("m-2", 1)} {
			if a := do(t, base, request{method: method, path: path, body: "{}", header: bearer(token)}); a.status != 401 {
				t.Errorf("%s with %q: %d %s", path, token, a.status, a.body)
			}
		}
	}
	req, err := http.NewRequestWithContext(t.Context(), "GET", base+"/agent/v1/stream", nil)
	mustf(t, err, "request")
	req.Header.Set("Authorization", "Bearer "+joined.Token)
	resp, err := http.DefaultTransport.RoundTrip(req)
	mustf(t, err, "stream")
	defer resp.Body.Close()
	r := bufio.NewReader(resp.Body)
	next := func() (rec api.Record) {
		t.Helper()
		line, err := r.ReadBytes('\n')
		mustf(t, err, "stream")
		mustf(t, json.Unmarshal(line, &rec), "%s", line)
		return rec
	}
	if rec := next(); rec.Snapshot == nil || rec.Snapshot.Machine != "m-2" || len(rec.Snapshot.Accounts.Users) != 5 {
		t.Errorf("%+v", rec)
	}
	a = do(t, base, request{method: "POST", path: "/agent/v1/report", body: `{"boot":{"ready":true},"accounts":1}`, header: bearer(joined.Token)})
	if a.status != 200 || strings.TrimSpace(a.body) != "{}" {
		t.Errorf("%d %s", a.status, a.body)
	}
	c := w.client(adminToken)
	if m, err := c.Machine(t.Context(), "m-2"); err != nil || m.State != shoal.MachineReady {
		t.Errorf("%+v, %v", m, err)
	}
	_, err = c.AddUser(t.Context(), shoal.User{Name: "dora"}, "")
	mustf(t, err, "add user")
	if rec := next(); rec.Accounts == nil || len(rec.Accounts.Users) != 6 {
		t.Errorf("%+v", rec)
	}
}
