package shoaltest

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/provider"
)

// Machine is a fake machine: an agent and an sshd in one. Its shell knows few words, separated by ";":
//
//	echo WORDS     writes them and a newline
//	sleep SECONDS  takes fake time
//	exit N         ends with a status
//	who            writes the user's name and the machine
//
// It stands for Linux, not for an agent: what agents do to machines is tested on real ones.
type Machine struct {
	w       *World
	spec    provider.MachineSpec
	address string
	hostKey ssh.Signer
	http    *http.Client
	token   string

	mu       sync.Mutex
	accounts api.Accounts
	looked   string // which look was asked for
	running  map[shoal.AttemptRef]context.CancelCauseFunc
	held     map[shoal.AttemptRef]bool       // ready to begin
	done     map[shoal.AttemptRef]api.Report // what is to be told of ended tasks until it is acknowledged
	present  map[shoal.UserName]int          // ssh connections
	apps     map[shoal.AppID]*webApp
	news     chan struct{}
}

// boot is a machine's life, from running to the end of ctx.
func (w *World) boot(ctx context.Context, spec provider.MachineSpec) {
	m := &Machine{w: w, spec: spec, address: w.Provider.Address(spec.ID), running: map[shoal.AttemptRef]context.CancelCauseFunc{}, held: map[shoal.AttemptRef]bool{},
		done: map[shoal.AttemptRef]api.Report{}, present: map[shoal.UserName]int{}, apps: map[shoal.AppID]*webApp{}, news: make(chan struct{}, 1)}
	m.http = &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return w.net.dial(ctx, "tcp", agentDoor)
	}}}
	defer m.http.CloseIdleConnections()
	_, private, err := ed25519.GenerateKey(nil)
	if err == nil {
		m.hostKey, err = ssh.NewSignerFromKey(private)
	}
	if err != nil {
		w.t.Errorf("machine %s has no host key: %v", spec.ID, err)
		return
	}
	var parts sync.WaitGroup
	defer parts.Wait()
	if err := m.join(ctx); err != nil {
		if ctx.Err() == nil {
			w.t.Errorf("machine %s: %v", spec.ID, err)
		}
		return
	}
	parts.Go(func() { m.serveSSH(ctx) })
	parts.Go(func() { m.follow(ctx, &parts) })
	m.report(ctx)
}

// join asks until it is answered: a server that restarts is no reason to die.
func (m *Machine) join(ctx context.Context) error {
	ask := api.AgentJoin{Machine: m.spec.ID, Token: m.spec.Join.Token, Epoch: m.spec.Join.Epoch, Version: "fake",
		HostKey: strings.TrimSpace(string(ssh.MarshalAuthorizedKey(m.hostKey.PublicKey())))}
	for {
		var answer api.AgentJoined
		err := m.post(ctx, "/agent/v1/join", ask, &answer)
		if err == nil {
			m.token = answer.Token
			return m.certify(answer.HostCertificate)
		}
		if errors.Is(err, errRefused) {
			return err
		}
		if !pause(ctx, time.Second) {
			return ctx.Err()
		}
	}
}

func (m *Machine) certify(line string) error {
	key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(line))
	if err != nil {
		return fmt.Errorf("the host certificate cannot be read: %w", err)
	}
	cert, ok := key.(*ssh.Certificate)
	if !ok {
		return errors.New("the host certificate is none")
	}
	m.hostKey, err = ssh.NewCertSigner(cert, m.hostKey)
	return err
}

var errRefused = errors.New("refused")

func (m *Machine) post(ctx context.Context, path string, body, answer any) error {
	b, err := json.Marshal(body)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://agent"+path, bytes.NewReader(b))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+m.token)
	resp, err := m.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1000)) // only for the message
		err := fmt.Errorf("%s answered %s: %s", path, resp.Status, text)
		if resp.StatusCode < 500 {
			err = fmt.Errorf("%w: %w", errRefused, err)
		}
		return err
	}
	return json.NewDecoder(resp.Body).Decode(answer)
}

// follow reads the stream of desired state, again and again.
func (m *Machine) follow(ctx context.Context, parts *sync.WaitGroup) {
	for ctx.Err() == nil {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://agent/agent/v1/stream", nil)
		if err != nil {
			m.w.t.Error(err)
			return
		}
		req.Header.Set("Authorization", "Bearer "+m.token)
		if resp, err := m.http.Do(req); err == nil {
			lines := json.NewDecoder(resp.Body)
			for {
				var r api.Record
				if lines.Decode(&r) != nil {
					break
				}
				m.take(ctx, r, parts)
			}
			resp.Body.Close()
		}
		pause(ctx, time.Second)
	}
}

// take puts a record into effect.
func (m *Machine) take(ctx context.Context, r api.Record, parts *sync.WaitGroup) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case r.Snapshot != nil:
		m.accounts = r.Snapshot.Accounts
		for _, o := range r.Snapshot.Tasks {
			m.start(ctx, o, parts)
		}
		for ref, end := range m.running {
			if !slices.ContainsFunc(r.Snapshot.Tasks, func(o api.TaskOrder) bool { return o.Ref == ref }) {
				end(stopped(shoal.JobCancelled))
			}
		}
		for ref := range m.held {
			if !slices.ContainsFunc(r.Snapshot.Tasks, func(o api.TaskOrder) bool { return o.Ref == ref }) {
				m.drop(ref, shoal.JobCancelled)
			}
		}
		m.takeApps(ctx, r.Snapshot.Apps, parts)
	case r.App != nil:
		m.startApp(ctx, *r.App, parts)
	case r.StopApp != nil:
		m.stopApp(r.StopApp.ID)
	case r.Accounts != nil:
		m.accounts = *r.Accounts
	case r.Run != nil:
		m.start(ctx, *r.Run, parts)
	case r.Stop != nil:
		if end := m.running[r.Stop.Ref]; end != nil {
			end(stopped(r.Stop.State))
		} else if _, known := m.done[r.Stop.Ref]; !known {
			m.drop(r.Stop.Ref, r.Stop.State)
		}
	case r.Look != "":
		m.looked = r.Look
	case r.Forget != nil:
		for _, ref := range r.Forget.Refs {
			delete(m.done, ref)
		}
	}
	m.tell()
}

// stopped is why a task was ended from outside.
type stopped shoal.JobState

func (s stopped) Error() string { return string(s) }

// start runs a task unless it runs or ran. The caller holds the lock.
func (m *Machine) start(ctx context.Context, o api.TaskOrder, parts *sync.WaitGroup) {
	if _, known := m.running[o.Ref]; known {
		return
	}
	if _, known := m.done[o.Ref]; known {
		return
	}
	if o.Hold {
		m.held[o.Ref] = true
		return
	}
	delete(m.held, o.Ref)
	if o.Idle {
		o.Command = "sleep 1000000"
	}
	ctx, end := context.WithCancelCause(ctx)
	m.running[o.Ref] = end
	parts.Go(func() {
		defer end(nil)
		started := time.Now()
		var out bytes.Buffer
		limited, stop := ctx, func() {}
		if o.TimeLimit > 0 {
			limited, stop = context.WithTimeoutCause(ctx, time.Duration(o.TimeLimit), stopped(shoal.JobTimedOut))
		}
		code, err := m.shell(limited, o.User, o.Command, &out)
		stop()
		if ctx.Err() != nil && context.Cause(ctx) == context.Canceled {
			return // the machine itself ends: nobody is told
		}
		t := api.TaskReport{Ref: o.Ref, State: shoal.JobSucceeded, Cause: shoal.CauseExit, ExitCode: code, Started: started, Ended: time.Now(), StdoutBytes: int64(out.Len())}
		var why stopped
		switch {
		case errors.As(err, &why) && shoal.JobState(why) == shoal.JobTimedOut:
			t.State, t.Cause, t.ExitCode = shoal.JobTimedOut, shoal.CauseTimeLimit, 143
		case errors.As(err, &why):
			t.State, t.Cause, t.ExitCode = shoal.JobState(why), shoal.CauseCancelled, 143
		case code != 0:
			t.State = shoal.JobFailed
		}
		r := api.Report{Tasks: []api.TaskReport{t}}
		if out.Len() > 0 {
			r.Output = []api.Output{{Ref: o.Ref, Stream: "stdout", Data: out.Bytes()}}
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.running, o.Ref)
		m.done[o.Ref] = r
		m.tell()
	})
}

// drop ends a task that has not begun. The caller holds the lock.
func (m *Machine) drop(ref shoal.AttemptRef, state shoal.JobState) {
	delete(m.held, ref)
	m.done[ref] = api.Report{Tasks: []api.TaskReport{{Ref: ref, State: state, Cause: shoal.CauseCancelled}}}
}

// shell understands a command.
func (m *Machine) shell(ctx context.Context, user shoal.UserName, command string, out io.Writer) (code int, err error) {
	for word := range strings.SplitSeq(command, ";") {
		verb, rest, _ := strings.Cut(strings.TrimSpace(word), " ")
		switch verb {
		case "echo":
			fmt.Fprintln(out, rest)
		case "who":
			fmt.Fprintln(out, user, m.spec.ID)
		case "sleep":
			d, err := strconv.ParseFloat(rest, 64)
			if err != nil {
				return 2, nil
			}
			if !pause(ctx, time.Duration(d*float64(time.Second))) {
				return 143, context.Cause(ctx)
			}
		case "exit":
			n, err := strconv.Atoi(rest)
			if err != nil {
				return 2, nil
			}
			return n, nil
		default:
			return 127, nil
		}
	}
	return 0, nil
}

func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (m *Machine) tell() {
	select {
	case m.news <- struct{}{}:
	default:
	}
}

// report tells the control plane what there is to tell, at once and else every half a minute.
func (m *Machine) report(ctx context.Context) {
	ready := false
	for ctx.Err() == nil {
		r, refs := m.gather()
		if !ready {
			r.Boot = &api.BootReport{Ready: true}
		}
		var answer api.ReportAnswer
		if err := m.post(ctx, "/agent/v1/report", r, &answer); err != nil {
			pause(ctx, time.Second)
			continue
		}
		ready = true
		m.mu.Lock()
		for _, ref := range refs { // told; kept until it may be forgotten
			m.done[ref] = api.Report{}
		}
		m.appsTold(r.Apps)
		m.mu.Unlock()
		select {
		case <-m.news:
		case <-time.After(30 * time.Second):
		case <-ctx.Done():
		}
	}
}

func (m *Machine) gather() (r api.Report, refs []shoal.AttemptRef) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r.Accounts = m.accounts.Rev
	r.Looked, m.looked = m.looked, "" // if that is lost, it is asked again
	for ref, d := range m.done {
		if len(d.Tasks) > 0 {
			r.Tasks, r.Output = append(r.Tasks, d.Tasks...), append(r.Output, d.Output...)
			refs = append(refs, ref)
		}
	}
	for ref := range m.running {
		r.Tasks = append(r.Tasks, api.TaskReport{Ref: ref, State: shoal.JobRunning, Started: time.Now()})
	}
	for ref := range m.held {
		r.Tasks = append(r.Tasks, api.TaskReport{Ref: ref, State: shoal.JobStarting})
	}
	r.Apps = m.appNews()
	r.Activity = &api.Activity{Users: []api.UserActivity{}}
	for user, n := range m.present {
		if n > 0 {
			r.Activity.Users = append(r.Activity.Users, api.UserActivity{User: user, Connections: n})
		}
	}
	return r, refs
}
