package httpapi

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/access"
	"github.com/shoal-pool/shoal/internal/gatehub"
	"github.com/shoal-pool/shoal/internal/httpapi/rest"
)

func (a *API) gatewayTable() []endpoint {
	return []endpoint{
		{"GET", "/gateways", may(access.View, access.ObjectGateway), "", "List the gateways that are processes of their own", rest.Read(a.gateways)},
		{"POST", "/gateways", may(access.Apply, access.ObjectGateway), "", "Make a token with which a gateway enrols, once, under a name", rest.Take(http.StatusCreated, a.addGateway)},
		{"DELETE", "/gateways/{name}", may(access.Delete, access.ObjectGateway), "", "Forget a gateway: machines do not trust its key any more", rest.Act(http.StatusNoContent, a.removeGateway)},
	}
}

// hubOfGateways is where gateways call, if there is such a place.
func (a *API) hubOfGateways() (*gatehub.Hub, error) {
	if a.cfg.Gateways == nil {
		return nil, shoal.Errorf(shoal.KindNotFound, "this server has no gateways but its own")
	}
	return a.cfg.Gateways, nil
}

func (a *API) gateways(c *call) (p api.List[api.Gateway], err error) {
	h, err := a.hubOfGateways()
	if err != nil {
		return p, err
	}
	all, err := h.List(c.Ctx, c.By)
	return listed(all, "", 0), err
}

func (a *API) addGateway(c *call, req api.AddGateway) (api.GatewayToken, error) {
	h, err := a.hubOfGateways()
	if err != nil {
		return api.GatewayToken{}, err
	}
	return h.Add(c.Ctx, c.By, req)
}

func (a *API) removeGateway(c *call) error {
	h, err := a.hubOfGateways()
	if err != nil {
		return err
	}
	return h.Remove(c.Ctx, c.By, api.GatewayName(c.Name("name")))
}

// GatewayPrefix begins the paths of the face for gateways.
const GatewayPrefix = "/gateway/v1"

// Gateway is the face for gateways that are processes of their own. All but enrolling is the table's one line about them: a gateway
// lets people in through itself.
func (a *API) Gateway() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("POST "+GatewayPrefix+"/enrol", a.desk.Guard(a.enrolGateway))
	mux.Handle("GET "+GatewayPrefix+"/stream", a.fromGateway(a.gatewayStream))
	mux.Handle("POST "+GatewayPrefix+"/login", a.fromGateway(a.gatewayLogin))
	mux.Handle("POST "+GatewayPrefix+"/report", told(a, func(ctx context.Context, h *gatehub.Hub, name api.GatewayName, r api.GatewayReport) (struct{}, error) {
		return struct{}{}, h.Report(ctx, name, r)
	}))
	mux.Handle("POST "+GatewayPrefix+"/password", told(a, func(ctx context.Context, h *gatehub.Hub, _ api.GatewayName, p api.GatewayPassword) (struct{}, error) {
		return struct{}{}, h.Password(ctx, p)
	}))
	mux.Handle("POST "+GatewayPrefix+"/environ", told(a, func(ctx context.Context, h *gatehub.Hub, name api.GatewayName, at api.GatewayPlace) (api.GatewayEnviron, error) {
		return h.Environ(ctx, name, at)
	}))
	mux.Handle("GET "+GatewayPrefix+"/dial", a.fromGateway(a.gatewayDial))
	return rest.Fallback(mux, prefix+"/openapi.json")
}

func (a *API) enrolGateway(w http.ResponseWriter, r *http.Request) error {
	h, err := a.hubOfGateways()
	if err != nil {
		return err
	}
	e, err := rest.ReadLenient[api.GatewayEnrol](a.desk, w, r)
	if err != nil {
		return err
	}
	enrolled, err := h.Enrol(r.Context(), e)
	if err != nil {
		return err
	}
	return (&call{W: w}).Answer(http.StatusOK, enrolled)
}

// fromGateway makes a handler of what is done for a gateway that has shown its token.
func (a *API) fromGateway(do func(http.ResponseWriter, *http.Request, *gatehub.Hub, api.GatewayName) error) http.Handler {
	return a.desk.Guard(func(w http.ResponseWriter, r *http.Request) error {
		h, err := a.hubOfGateways()
		if err != nil {
			return err
		}
		token, err := bearer(r)
		if err != nil {
			return shoal.Errorf(shoal.KindUnauthenticated, "the request carries no gateway's token")
		}
		by, err := h.Caller(r.Context(), token)
		if err == nil {
			err = access.Check(by, access.Carry, access.Object{Kind: access.ObjectGateway, Name: by.Gateway})
		}
		if err != nil {
			return err
		}
		return do(w, r, h, api.GatewayName(by.Gateway))
	})
}

// told makes a handler of what is done with something that a gateway sends.
func told[In, Out any](a *API, do func(context.Context, *gatehub.Hub, api.GatewayName, In) (Out, error)) http.Handler {
	return a.fromGateway(func(w http.ResponseWriter, r *http.Request, h *gatehub.Hub, name api.GatewayName) error {
		in, err := rest.ReadLenient[In](a.desk, w, r)
		if err != nil {
			return err
		}
		out, err := do(r.Context(), h, name, in)
		if err != nil {
			return err
		}
		return (&call{W: w}).Answer(http.StatusOK, out)
	})
}

func (a *API) gatewayStream(w http.ResponseWriter, r *http.Request, h *gatehub.Hub, name api.GatewayName) error {
	out := lines[api.GatewayRecord]{w: w}
	defer out.end()
	err := h.Stream(r.Context(), name, r.Header.Get(api.StreamHeader), out.send)
	if out.begun {
		return rest.Ended(err)
	}
	return err
}

func (a *API) gatewayLogin(w http.ResponseWriter, r *http.Request, h *gatehub.Hub, name api.GatewayName) error {
	req, err := rest.ReadLenient[api.GatewayLogin](a.desk, w, r)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	out := lines[api.GatewayAnswer]{w: w}
	defer out.end()
	say := func(answer api.GatewayAnswer) error {
		err := out.send(answer)
		if err != nil {
			cancel()
		}
		return err
	}
	var beats sync.WaitGroup
	over := make(chan struct{})
	beats.Go(func() {
		for beat := time.NewTicker(api.GatewayBeat); ; {
			select {
			case <-beat.C:
				_ = say(api.GatewayAnswer{})
			case <-over:
				beat.Stop()
				return
			}
		}
	})
	err = h.Login(ctx, name, req, say)
	close(over)
	beats.Wait()
	if err == nil || !out.begun {
		return err
	}
	p := rest.ProblemOf(err)
	_ = say(api.GatewayAnswer{Problem: &p})
	return nil
}

// gatewayDial connects a gateway to the sshd of a machine that it does not reach itself.
func (a *API) gatewayDial(w http.ResponseWriter, r *http.Request, h *gatehub.Hub, name api.GatewayName) error {
	if !strings.EqualFold(r.Header.Get("Upgrade"), api.ReachProtocol) {
		return shoal.Errorf(shoal.KindInvalid, "the connection is for nothing that is known here")
	}
	machine, err := h.Dialed(r.Context(), name, shoal.MachineID(r.Header.Get(api.MachineHeader)))
	if err != nil {
		return err
	}
	defer machine.Close()
	conn, err := switched(w, api.ReachProtocol)
	if err != nil {
		return rest.Ended(err)
	}
	defer conn.Close()
	defer context.AfterFunc(r.Context(), func() { conn.Close(); machine.Close() })()
	var other sync.WaitGroup
	other.Go(func() { pump(conn, machine) })
	pump(machine, conn)
	other.Wait()
	return nil
}

// pump hands bytes on one way. Their end is handed on; an error ends both ways.
func pump(to, from net.Conn) {
	_, err := io.Copy(to, from)
	if err == nil {
		if w, ok := to.(interface{ CloseWrite() error }); ok && w.CloseWrite() == nil {
			return
		}
	}
	_ = to.Close()
	_ = from.Close()
}
