package httpapi

import (
	"encoding/json"
	"net/http"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/access"
	"github.com/shoal-pool/shoal/internal/agenthub"
)

const (
	agentPrefix = "/agent/v1"
	relayPrefix = agentPrefix + "/user"
)

// Agent is the face for machines: the agent protocol, and the requests of users that agents relay.
func (a *API) Agent() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("POST "+agentPrefix+"/join", a.guard(a.agentJoin))
	mux.Handle("GET "+agentPrefix+"/stream", a.guard(a.agentStream))
	mux.Handle("POST "+agentPrefix+"/report", a.guard(a.agentReport))
	mux.Handle("POST "+agentPrefix+"/password", a.guard(a.agentPassword))
	mux.Handle(relayPrefix+"/", http.StripPrefix(relayPrefix, a.face(a.relayed, true)))
	return a.fallback(mux)
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
	body, err := a.readJSON(w, r)
	if err != nil {
		return err
	}
	j, err := lenient[api.AgentJoin](body)
	if err != nil {
		return err
	}
	joined, err := a.cfg.Hub.Join(r.Context(), j)
	if err != nil {
		return err
	}
	return (&call{w: w}).answer(http.StatusOK, joined)
}

func (a *API) agentReport(w http.ResponseWriter, r *http.Request) error {
	c, err := a.agent(r)
	if err != nil {
		return err
	}
	body, err := a.readJSON(w, r)
	if err != nil {
		return err
	}
	report, err := lenient[api.Report](body)
	if err != nil {
		return err
	}
	answer, err := a.cfg.Hub.Report(r.Context(), c, report)
	if err != nil {
		return err
	}
	return (&call{w: w}).answer(http.StatusOK, answer)
}

// lenient reads what an agent sends, which may be of another version and know more.
func lenient[T any](body []byte) (v T, err error) {
	if err := json.Unmarshal(body, &v); err != nil {
		return v, shoal.Errorf(shoal.KindInvalid, "cannot read the request: %w", err)
	}
	return v, nil
}

// recordTime is how long an agent may take for one record. One that takes longer is not there any more,
// or will be better off with a new Snapshot.
const recordTime = 30 * time.Second

func (a *API) agentStream(w http.ResponseWriter, r *http.Request) error {
	c, err := a.agent(r)
	if err != nil {
		return err
	}
	rc := http.NewResponseController(w)
	begun := false
	defer func() { _ = rc.SetWriteDeadline(time.Time{}) }()
	err = a.cfg.Hub.Stream(r.Context(), c, func(rec api.Record) error {
		line, err := json.Marshal(rec)
		if err != nil {
			return err
		}
		_ = rc.SetWriteDeadline(time.Now().Add(recordTime))
		if !begun {
			begun = true
			w.Header().Set("Content-Type", "application/x-ndjson")
			w.Header().Set("Cache-Control", "no-store")
		}
		if _, err := w.Write(append(line, '\n')); err != nil {
			return ended(err)
		}
		return ended(rc.Flush())
	})
	switch shoal.KindOf(err) {
	case shoal.KindCancelled, shoal.KindConflict:
		if begun { // the agent went, or came again: nobody is to be told
			return ended(err)
		}
	}
	return err
}
