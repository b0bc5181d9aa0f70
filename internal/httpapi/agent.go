package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/access"
	"github.com/shoal-pool/shoal/internal/agenthub"
	"github.com/shoal-pool/shoal/internal/httpapi/rest"
)

const (
	agentPrefix = "/agent/v1"
	relayPrefix = agentPrefix + "/user"
)

// Agent is the face for machines: the agent protocol, and the requests of users that agents relay.
func (a *API) Agent() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("POST "+agentPrefix+"/join", a.desk.Guard(a.agentJoin))
	mux.Handle("GET "+agentPrefix+"/stream", a.desk.Guard(a.agentStream))
	mux.Handle("POST "+agentPrefix+"/report", fromAgent(a, a.agentReport))
	mux.Handle("POST "+agentPrefix+"/password", fromAgent(a, a.agentPassword))
	mux.Handle("POST "+agentPrefix+"/secrets", fromAgent(a, a.agentSecrets))
	mux.Handle("GET "+agentPrefix+"/reach", a.desk.Guard(a.agentReach))
	mux.Handle(api.HubPrefix+"/", a.desk.Guard(a.agentHub))
	mux.Handle("POST "+agentPrefix+"/reach", fromAgent(a, a.agentUnreached))
	mux.Handle(relayPrefix+"/", http.StripPrefix(relayPrefix, a.face(a.relayed, true)))
	return rest.Fallback(mux, prefix+"/openapi.json")
}

// agent says which machine's agent calls.
func (a *API) agent(r *http.Request) (agenthub.Caller, error) {
	token, err := bearer(r)
	if err != nil {
		return agenthub.Caller{}, shoal.Errorf(shoal.KindUnauthenticated, "the request carries no machine's token")
	}
	return a.cfg.Hub.Machine(r.Context(), token)
}

// relayed says who a user is whose request a machine relays.
func (a *API) relayed(r *http.Request) (access.Subject, error) {
	c, err := a.agent(r)
	if err != nil {
		return access.Subject{}, err
	}
	if r.Header.Get(api.AsHeader) != "" {
		return access.Subject{}, shoal.Errorf(shoal.KindDenied, "nobody may act as somebody else through a machine")
	}
	return a.cfg.Hub.Relay(r.Context(), c.Machine, shoal.UserName(r.Header.Get(api.UserHeader)))
}

func (a *API) agentJoin(w http.ResponseWriter, r *http.Request) error {
	j, err := rest.ReadLenient[api.AgentJoin](a.desk, w, r)
	if err != nil {
		return err
	}
	joined, err := a.cfg.Hub.Join(r.Context(), j)
	if err != nil {
		return err
	}
	return (&call{W: w}).Answer(http.StatusOK, joined)
}

// fromAgent makes a handler of what is done with something that a machine's agent sends. Another thing for agents to
// send is a line in Agent and a function for this.
func fromAgent[In, Out any](a *API, do func(context.Context, agenthub.Caller, In) (Out, error)) http.Handler {
	return a.desk.Guard(func(w http.ResponseWriter, r *http.Request) error {
		c, err := a.agent(r)
		if err != nil {
			return err
		}
		in, err := rest.ReadLenient[In](a.desk, w, r)
		if err != nil {
			return err
		}
		out, err := do(r.Context(), c, in)
		if err != nil {
			return err
		}
		return (&call{W: w}).Answer(http.StatusOK, out)
	})
}

func (a *API) agentReport(ctx context.Context, c agenthub.Caller, r api.Report) (api.ReportAnswer, error) {
	return a.cfg.Hub.Report(ctx, c, r)
}

// recordTime is how long an agent may take for one record. One that takes longer is not there any more,
// or will be better off with a new Snapshot.
const recordTime = 30 * time.Second

// lines is an answer of JSON values, one a line, each sent at once. Its methods may be called from any goroutine.
type lines[T any] struct {
	w     http.ResponseWriter
	mu    sync.Mutex
	begun bool
}

func (l *lines[T]) send(values ...T) error {
	var text bytes.Buffer
	to := json.NewEncoder(&text)
	for _, v := range values {
		if err := to.Encode(v); err != nil {
			return err
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	rc := http.NewResponseController(l.w)
	_ = rc.SetWriteDeadline(time.Now().Add(recordTime))
	if !l.begun {
		l.begun = true
		l.w.Header().Set("Content-Type", "application/x-ndjson")
		l.w.Header().Set("Cache-Control", "no-store")
	}
	if _, err := l.w.Write(text.Bytes()); err != nil {
		return rest.Ended(err)
	}
	return rest.Ended(rc.Flush())
}

func (l *lines[T]) end() { _ = http.NewResponseController(l.w).SetWriteDeadline(time.Time{}) }

func (a *API) agentStream(w http.ResponseWriter, r *http.Request) error {
	c, err := a.agent(r)
	if err != nil {
		return err
	}
	out := lines[api.Record]{w: w}
	defer out.end()
	err = a.cfg.Hub.Stream(r.Context(), c, out.send)
	switch shoal.KindOf(err) {
	case shoal.KindCancelled, shoal.KindConflict:
		if out.begun { // the agent went, or came again: nobody is to be told
			return rest.Ended(err)
		}
	}
	return err
}

// switchTime bounds the answer to an agent that brings a connection.
const switchTime = 10 * time.Second

// agentReach takes the connection that an agent was asked for.
func (a *API) agentReach(w http.ResponseWriter, r *http.Request) error {
	c, err := a.agent(r)
	if err != nil {
		return err
	}
	protocol := r.Header.Get("Upgrade")
	bare := protocol == api.BareProtocol
	if a.cfg.Reach == nil || protocol != api.ReachProtocol && !bare {
		return shoal.Errorf(shoal.KindInvalid, "the connection is for nothing that is known here")
	}
	deliver, err := a.cfg.Reach.Claim(c.Machine, r.Header.Get(api.StreamHeader), bare)
	if err != nil {
		return err
	}
	conn, err := switched(w, protocol)
	if err != nil {
		deliver(nil, err)
		return rest.Ended(err)
	}
	deliver(conn, nil)
	return nil
}

// switched switches the connection of a request to the bytes of one stream.
func switched(w http.ResponseWriter, protocol string) (net.Conn, error) {
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil, err
	}
	if buffered.Reader.Buffered() > 0 {
		err = errors.New("whoever asked speaks before being answered")
	}
	if err == nil {
		err = conn.SetDeadline(time.Now().Add(switchTime))
	}
	if err == nil {
		_, err = fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", protocol)
	}
	if err == nil {
		err = conn.SetDeadline(time.Time{})
	}
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

// agentUnreached takes an agent's word that it cannot bring one.
func (a *API) agentUnreached(_ context.Context, c agenthub.Caller, u api.Unreached) (struct{}, error) {
	if a.cfg.Reach == nil {
		return struct{}{}, shoal.Errorf(shoal.KindNotFound, "nobody waits for this stream of machine %s", c.Machine)
	}
	return struct{}{}, a.cfg.Reach.Failed(c.Machine, u)
}

// agentHub asks JupyterHub's API in the name of a machine's notebook servers.
func (a *API) agentHub(w http.ResponseWriter, r *http.Request) error {
	c, err := a.agent(r)
	if err != nil {
		return err
	}
	if a.cfg.HubAPI == nil {
		return shoal.Errorf(shoal.KindNotFound, "there is no JupyterHub here")
	}
	in := r.Clone(r.Context())
	in.RemoteAddr = net.JoinHostPort(string(c.Machine), "0")
	in.Header.Del("Authorization")
	if own := r.Header.Get(api.HubAuthorizationHeader); own != "" {
		in.Header.Set("Authorization", own)
	}
	in.Header.Del(api.HubAuthorizationHeader)
	rc := http.NewResponseController(w)
	defer func() { // what bounds this request bounds no other of the connection
		_ = rc.SetReadDeadline(time.Time{})
		_ = rc.SetWriteDeadline(time.Time{})
	}()
	http.StripPrefix(api.HubPrefix, a.cfg.HubAPI).ServeHTTP(w, in)
	return nil
}
