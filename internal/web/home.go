package web

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/store"
)

// homeBody is the body of the page of what is hers.
type homeBody struct {
	Done     string // what was just done
	Pools    []poolView
	Sessions []sessionView
}

// poolView is a pool with what can be opened in it.
type poolView struct {
	Name      shoal.PoolName
	Default   bool
	Sentence  string
	SSH       string // the command
	Endpoints []endpointView
}

// endpointView is one endpoint as it stands for her.
type endpointView struct {
	Name, Protocol string
	State          string // one word, empty: not started
	Class          string // of the word: good, busy, bad
	Sentence       string
	Open           string // where it is, if it can be opened
	Watch          string // where one sees how far it is
	Start          string // a path to POST to
	Password       string // another, which gives a password that is good once
	Stop           string // another
	Address        string // where a desktop or another client connects
}

// sessionView is a session with its parts and why it is there.
type sessionView struct {
	shoal.Session
	Sentence string
	Reasons  []string
	Class    string
}

func (w *Web) home(rw http.ResponseWriter, r *http.Request, v visitor) {
	b := homeBody{Done: map[string]string{"stopped": "It is being stopped.", "ended": "The session was ended."}[r.URL.Query().Get("done")]}
	apps, err := w.appsOf(r.Context(), v.Name)
	if err == nil {
		b.Sessions, err = w.sessionsOf(r.Context(), v.Name)
	}
	if err == nil {
		b.Pools, err = w.poolsFor(r.Context(), v, apps)
	}
	if err != nil {
		w.failed(rw, r, "Your pools cannot be shown now", err)
		return
	}
	w.show(rw, r, http.StatusOK, "home", v.page("Pools", b))
}

func (w *Web) appsOf(ctx context.Context, name shoal.UserName) ([]shoal.App, error) {
	if w.cfg.Apps == nil {
		return nil, nil
	}
	return w.cfg.Apps.Of(ctx, name)
}

// sessionsOf lists a user's live sessions, each with why it is as it is.
func (w *Web) sessionsOf(ctx context.Context, name shoal.UserName) ([]sessionView, error) {
	var sessions []shoal.Session
	err := w.cfg.Store.View(ctx, func(tx *store.Tx) (err error) {
		sessions, _, err = tx.SessionsPage(store.SessionFilter{User: name}, "", 100)
		return err
	})
	if err != nil {
		return nil, err
	}
	var all []sessionView
	for _, s := range sessions {
		why, err := w.cfg.Broker.WhySession(ctx, s.ID)
		if shoal.KindOf(err) == shoal.KindNotFound {
			continue // it ended meanwhile
		}
		if err != nil {
			return nil, err
		}
		sv := sessionView{Session: s, Sentence: strings.TrimSuffix(why.Sentence, ".") + "."}
		sv.Class = map[shoal.SessionState]string{shoal.SessionActive: "good", shoal.SessionWaiting: "busy"}[s.State]
		for _, x := range why.Reasons {
			if x.Sentence != why.Sentence {
				sv.Reasons = append(sv.Reasons, x.Sentence)
			}
		}
		all = append(all, sv)
	}
	return all, nil
}

// poolsFor lists the pools that people use directly.
func (w *Web) poolsFor(ctx context.Context, v visitor, apps []shoal.App) ([]poolView, error) {
	var pools []shoal.Pool
	var machines []shoal.Machine
	err := w.cfg.Store.View(ctx, func(tx *store.Tx) (err error) {
		if pools, err = tx.Pools().List(); err != nil {
			return err
		}
		machines, err = tx.LiveMachines()
		return err
	})
	if err != nil {
		return nil, err
	}
	var all []poolView
	for _, p := range pools {
		if p.Deleting || !p.Has(shoal.UseInteractive) {
			continue
		}
		pv := poolView{Name: p.Name, Default: p.Default, Sentence: asleep(p, machines), SSH: w.sshCommand(v.Name, p)}
		for _, e := range p.Endpoints {
			pv.Endpoints = append(pv.Endpoints, w.endpointFor(v.User, p.Name, e, apps))
		}
		all = append(all, pv)
	}
	slices.SortStableFunc(all, func(a, b poolView) int { // the default one first
		if a.Default != b.Default {
			return map[bool]int{true: -1, false: 1}[a.Default]
		}
		return cmp.Compare(a.Name, b.Name)
	})
	return all, nil
}

// asleep says what of a pool runs.
func asleep(p shoal.Pool, machines []shoal.Machine) string {
	ready, coming := 0, 0
	for _, m := range machines {
		switch {
		case m.Pool != p.Name:
		case m.State == shoal.MachineReady:
			ready++
		case m.State == shoal.MachineRequested || m.State == shoal.MachineBooting:
			coming++
		}
	}
	switch {
	case ready+coming == 0 && p.Size.Max == 0:
		return "No machine runs, and none may be started: the pool's size.max is 0."
	case ready+coming == 0:
		return "No machine runs. One starts when you need it."
	case coming == 0 && ready == 1:
		return "1 machine is ready."
	case coming == 0:
		return fmt.Sprintf("%d machines are ready.", ready)
	case ready == 0 && coming == 1:
		return "1 machine is starting."
	}
	return fmt.Sprintf("%d ready, %d starting.", ready, coming)
}

// sshCommand is how she gets to a pool by ssh.
func (w *Web) sshCommand(name shoal.UserName, p shoal.Pool) string {
	host, port := w.gateway()
	if host == "" {
		return ""
	}
	user := string(name)
	if !p.Default {
		user += "+" + string(p.Name)
	}
	if port == "22" {
		return "ssh " + user + "@" + host
	}
	return "ssh -p " + port + " " + user + "@" + host
}

// gateway is where the gateway is for people: its port, and its host or, where it listens everywhere, that of the pages.
func (w *Web) gateway() (host, port string) { return w.forPeople(w.cfg.SSH()) }

// forPeople is where people reach what listens at an address.
func (w *Web) forPeople(address string) (host, port string) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return "", ""
	}
	if ip := net.ParseIP(host); ip != nil && !ip.IsUnspecified() {
		return host, port
	} else if ip == nil && host != "" {
		return host, port
	}
	return w.ownHost(), port
}

// ownHost is the host of the pages' address.
func (w *Web) ownHost() string {
	_, rest, _ := strings.Cut(w.cfg.URL(), "://")
	rest, _, _ = strings.Cut(rest, "/")
	if host, _, err := net.SplitHostPort(rest); err == nil {
		return host
	}
	return rest
}

// endpointFor says how an endpoint stands for a user.
func (w *Web) endpointFor(user shoal.User, pool shoal.PoolName, e shoal.Endpoint, apps []shoal.App) endpointView {
	ev := endpointView{Name: e.Name, Protocol: e.Protocol}
	if e.Protocol != shoal.ProtocolHTTP {
		w.doorFor(user, pool, e, &ev)
		return ev
	}
	path := string(pool) + "/" + e.Name
	if e.Name == shoal.EndpointJupyter && e.Command == "" {
		ev.Open, ev.Sentence = w.cfg.Jupyter(pool, user.Name), "Notebooks, on the machine of your ssh session."
	} else {
		ev.Start, ev.Sentence = "/shoal/start/"+path, "Starts when you open it."
	}
	a, ok := appAt(apps, pool, e.Name)
	if !ok {
		return ev
	}
	ev.State = string(a.State)
	if a.Live() {
		ev.Stop, ev.Start = "/shoal/stop/"+string(a.ID), ""
	}
	switch {
	case a.Unknown:
		ev.State, ev.Class, ev.Sentence = "unknown", "busy", fmt.Sprintf("Machine %s does not answer now; nothing is known of it.", a.Machine)
	case a.Stopping:
		ev.State, ev.Class, ev.Sentence, ev.Stop = "stopping", "busy", sentence(cmp.Or(a.Reason, "it is being stopped")), ""
	case a.State == shoal.AppRunning:
		ev.Class, ev.Sentence = "good", fmt.Sprintf("Runs on machine %s.", a.Machine)
		if a.Ill != "" {
			ev.Class, ev.Sentence = "bad", "It runs but does not answer as it should: "+a.Ill
		}
	case a.Live():
		ev.Class, ev.Watch, ev.Sentence = "busy", "/shoal/start/"+path, sentence(cmp.Or(a.Progress, a.Reason, "waits for a machine"))
	case a.State == shoal.AppFailed:
		ev.Class, ev.Sentence = "bad", sentence(cmp.Or(a.Reason, "it failed"))
	default:
		ev.State, ev.Sentence = "", cmp.Or(sentence(a.Reason), ev.Sentence)
	}
	if a.State == shoal.AppRunning && !a.Stopping && ev.Open == "" {
		ev.Open = addressOf(a)
	}
	return ev
}

// doorFor says how an endpoint that the gateway listens for is reached, or why it is not: what else may listen there
// is not to get anybody's password.
func (w *Web) doorFor(user shoal.User, pool shoal.PoolName, e shoal.Endpoint, ev *endpointView) {
	address, why := net.JoinHostPort("", fmt.Sprint(e.Listen)), ""
	if w.cfg.Reached != nil {
		address, why = w.cfg.Reached(pool, e.Name)
	}
	switch {
	case why != "":
		ev.State, ev.Class, ev.Sentence = "closed", "bad", "It cannot be reached: "+why+"."
		return
	case address == "":
		ev.State, ev.Class, ev.Sentence = "opening", "busy", "The gateway does not listen for it yet."
		return
	}
	host, port := w.forPeople(address)
	ev.Address = net.JoinHostPort(host, port)
	switch {
	case e.Protocol != shoal.ProtocolRDP:
		ev.Sentence = "Connect to this address."
		return
	case user.HasPassword:
		ev.Sentence = "with your password."
	case w.cfg.Desktop != nil:
		ev.Sentence, ev.Password = "with a password that is good once, which the button gives.", "/shoal/desktop/"+string(pool)+"/"+e.Name
	default:
		ev.Sentence = "with a password that is good once, which “shoal desktop " + string(pool) + "” gives where you are logged in with “shoal login”."
	}
	ev.Sentence = "Remote desktop: connect to this address as " + string(user.Name) + " " + ev.Sentence
}

// desktop gives her a password that is good once, and says how it is used. Where she comes from is not hers to say here:
// machines are started for the browser's own address only, which her signing in has made known already. So a page of
// hers, or a program with her cookie, gets no further than by opening her notebooks.
func (w *Web) desktop(rw http.ResponseWriter, r *http.Request, v visitor) {
	if w.cfg.Desktop == nil {
		w.nothing(rw, r)
		return
	}
	req := api.DesktopRequest{Pool: shoal.PoolName(r.PathValue("pool")), Endpoint: r.PathValue("endpoint")}
	ticket, err := w.cfg.Desktop(r.Context(), v.Name, req, r.RemoteAddr)
	if err != nil {
		w.failed(rw, r, "There is no way to this desktop now", err)
		return
	}
	ticket.Address = net.JoinHostPort(w.forPeople(ticket.Address))
	w.show(rw, r, http.StatusOK, "desktop", v.page("Your desktop in pool "+string(ticket.Pool), ticket))
}

// appAt is a user's latest app of an endpoint, of those without a name.
func appAt(apps []shoal.App, pool shoal.PoolName, endpoint string) (shoal.App, bool) {
	for _, a := range apps {
		if a.Pool == pool && a.Endpoint == endpoint && a.Name == "" {
			return a, true
		}
	}
	return shoal.App{}, false
}

// addressOf is where a browser finds an app.
func addressOf(a shoal.App) string {
	if a.BaseURL != "" {
		return a.BaseURL
	}
	return "/shoal/app/" + string(a.Pool) + "/" + a.Endpoint + "/"
}

func (w *Web) stopApp(rw http.ResponseWriter, r *http.Request, v visitor) {
	apps, err := w.appsOf(r.Context(), v.Name)
	if err == nil {
		if !slices.ContainsFunc(apps, func(a shoal.App) bool { return string(a.ID) == r.PathValue("app") }) {
			w.Message(rw, r, http.StatusNotFound, "It is not there", "You have no app of that identifier; it may have ended long ago.", "")
			return
		}
		err = w.cfg.Apps.Stop(r.Context(), shoal.AppID(r.PathValue("app")), "you stopped it in a browser")
	}
	if err != nil {
		w.failed(rw, r, "It could not be stopped", err)
		return
	}
	redirect(rw, http.StatusSeeOther, home+"?done=stopped")
}

func (w *Web) endSession(rw http.ResponseWriter, r *http.Request, v visitor) {
	id := shoal.SessionID(r.PathValue("session"))
	var s shoal.Session
	err := w.cfg.Store.View(r.Context(), func(tx *store.Tx) (err error) {
		s, err = tx.Sessions().Get(id)
		return err
	})
	if shoal.KindOf(err) == shoal.KindNotFound || err == nil && s.User != v.Name {
		w.Message(rw, r, http.StatusNotFound, "It is not there", "You have no session of that identifier.", "")
		return
	}
	if err == nil {
		err = w.cfg.Broker.End(r.Context(), id)
	}
	if err != nil {
		w.failed(rw, r, "The session could not be ended", err)
		return
	}
	redirect(rw, http.StatusSeeOther, home+"?done=ended")
}
