package web

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/store"
)

// startBody is the body of the page that shows how far an app is.
type startBody struct {
	api.AppStart
	Pool     shoal.PoolName
	Endpoint string
	Next     string
	Poll     string // where a script asks
	Usually  string // how long it takes as a rule, in words
	Start    string // a path to POST to
	Before   string // what became of the one in whose place this comes
}

// refreshEvery is how often a browser without scripts asks again.
const refreshEvery = 3

// startPage shows how far an app is, and leads on to it once it runs. A program gets 202 until then; with ?rev=N it
// is answered once there is news.
func (w *Web) startPage(rw http.ResponseWriter, r *http.Request, v visitor) {
	pool, endpoint, ok := w.endpointOf(rw, r)
	if !ok {
		return
	}
	apps, err := w.appsOf(r.Context(), v.Name)
	if err != nil {
		w.failed(rw, r, "It cannot be told how far it is", err)
		return
	}
	a, there := appAt(apps, pool.Name, endpoint.Name)
	if rev, err := strconv.ParseInt(r.URL.Query().Get("rev"), 10, 64); err == nil && there && a.Live() && a.State != shoal.AppRunning && shoal.Rev(rev) >= a.Rev {
		if a, err = w.cfg.Apps.Wait(r.Context(), a.ID, shoal.Rev(rev)); err != nil {
			w.failed(rw, r, "It cannot be told how far it is", err)
			return
		}
	}
	b := startBody{Pool: pool.Name, Endpoint: endpoint.Name, Start: "/shoal/start/" + string(pool.Name) + "/" + endpoint.Name}
	b.Next = w.after(r.URL.Query().Get("next"), pool.Name, endpoint.Name)
	if there {
		b.AppStart = w.howFar(r.Context(), a, cmp.Or(b.Next, addressOf(a)))
	}
	switch {
	case !wantsPage(r):
		answerStart(rw, r, b.AppStart, there)
	case there && a.State == shoal.AppRunning && !a.Unknown:
		redirect(rw, http.StatusSeeOther, b.Location)
	case there && a.Live():
		b.Poll, b.Before = r.URL.RequestURI(), before(apps, a)
		if b.Expected > 0 {
			b.Usually = inWords(time.Duration(b.Expected) * time.Second)
		}
		page := v.page("Starting "+endpoint.Name, b)
		page.Refresh = refreshEvery
		w.show(rw, r, http.StatusOK, "start", page)
	default:
		w.stopped(rw, r, v, a, there, b)
	}
}

// before says what became of the app that came before one, if that failed shortly before: whoever was at work in it
// is led here, and should know.
func before(apps []shoal.App, a shoal.App) string {
	const shortly = 10 * time.Minute
	i := slices.IndexFunc(apps, func(x shoal.App) bool { return x.ID == a.ID })
	former, ok := appAt(apps[i+1:], a.Pool, a.Endpoint)
	if !ok || former.State != shoal.AppFailed || a.Created.Sub(former.Ended) > shortly {
		return ""
	}
	why, _, _ := strings.Cut(former.Reason, ";")
	return sentence(why)
}

// stopped shows an app that does not run: that it never did, how it ended, or what happened to it.
func (w *Web) stopped(rw http.ResponseWriter, r *http.Request, v visitor, a shoal.App, there bool, b startBody) {
	title, n := b.Endpoint+" does not run", note{Text: "It has not been started in pool " + string(b.Pool) + " yet.", Again: b.Start, LinkText: "To my pools", Link: home}
	if there {
		n.Text = sentence(cmp.Or(a.Reason, "it ended"))
		if !a.Ended.IsZero() {
			n.Hint = "That was " + ago(a.Ended) + "."
		}
		n.Details = a.Log
		if a.State == shoal.AppFailed {
			title = b.Endpoint + " could not go on"
		}
	}
	if b.Next != "" {
		n.Again += "?next=" + url.QueryEscape(b.Next)
	}
	w.show(rw, r, http.StatusOK, "message", v.page(title, n))
}

// answerStart tells a program how far it is.
func answerStart(rw http.ResponseWriter, r *http.Request, s api.AppStart, there bool) {
	status := http.StatusAccepted
	switch {
	case !there:
		status, s = http.StatusNotFound, api.AppStart{State: shoal.AppEnded, Sentence: "it has not been started"}
	case s.State == shoal.AppRunning:
		status = http.StatusOK
	case s.State.Ended():
		status = http.StatusConflict
	default:
		rw.Header().Set("Retry-After", "1")
		rw.Header().Set("Location", r.URL.Path)
	}
	writeJSON(rw, status, "application/json", s)
}

// endpointOf is the web endpoint that a path names, or it answers that there is none.
func (w *Web) endpointOf(rw http.ResponseWriter, r *http.Request) (shoal.Pool, shoal.Endpoint, bool) {
	var p shoal.Pool
	err := w.cfg.Store.View(r.Context(), func(tx *store.Tx) (err error) {
		p, err = tx.Pools().Get(shoal.PoolName(r.PathValue("pool")))
		return err
	})
	e, ok := p.Endpoint(r.PathValue("endpoint"))
	switch {
	case err != nil && shoal.KindOf(err) != shoal.KindNotFound:
		w.failed(rw, r, "The pool cannot be looked at", err)
		return p, e, false
	case err != nil || !ok || e.Protocol != shoal.ProtocolHTTP || w.cfg.Apps == nil:
		w.Message(rw, r, http.StatusNotFound, "There is no such app", "No pool has a web app of that name, or not any more.", "Your pools and what they offer are on the first page.")
		return p, e, false
	}
	return p, e, true
}

// after is where to go once an app runs, if that was said and lies in the app.
func (w *Web) after(text string, pool shoal.PoolName, endpoint string) string {
	if base := "/shoal/app/" + string(pool) + "/" + endpoint + "/"; strings.HasPrefix(text, base) && localPath(text) {
		return text
	}
	if endpoint == shoal.EndpointJupyter && strings.HasPrefix(text, "/user/") && localPath(text) {
		return text
	}
	return ""
}

// howFar says how far an app is.
func (w *Web) howFar(ctx context.Context, a shoal.App, location string) api.AppStart {
	s := api.AppStart{App: a.ID, State: a.State, Rev: a.Rev, Sentence: cmp.Or(a.Progress, a.Reason)}
	switch {
	case a.Unknown:
		s.State = shoal.AppStarting
		s.Sentence = fmt.Sprintf("machine %s does not answer now; it is asked again and again", a.Machine)
	case a.State == shoal.AppRunning:
		s.Location, s.Sentence = location, cmp.Or(a.Ill, "it runs")
	case a.State == shoal.AppWaiting:
		s.Sentence = cmp.Or(s.Sentence, "it waits for a machine")
	case a.State == shoal.AppStarting:
		s.Sentence = cmp.Or(s.Sentence, fmt.Sprintf("it starts on machine %s", a.Machine))
	}
	if a.Live() && a.State != shoal.AppRunning {
		s.Elapsed = max(0, int(time.Since(a.Created)/time.Second))
		if d := w.typical(ctx, a.Pool); d > 0 {
			s.Expected = int(d/time.Second) + 1
		}
	}
	return s
}

// typical is how long machines of a pool took of late until they were ready, the middle one of some; 0: none is known.
func (w *Web) typical(ctx context.Context, pool shoal.PoolName) time.Duration {
	var machines []shoal.Machine
	err := w.cfg.Store.View(ctx, func(tx *store.Tx) (err error) {
		machines, _, err = tx.MachinesPage(store.MachineFilter{Pool: pool, Gone: true}, "", 20)
		return err
	})
	if err != nil {
		return 0
	}
	var took []time.Duration
	for _, m := range machines {
		if d := m.ReadyAt.Sub(m.Started); !m.ReadyAt.IsZero() && !m.Started.IsZero() && d > 0 {
			took = append(took, d)
		}
	}
	if len(took) == 0 {
		return 0
	}
	slices.Sort(took)
	return took[len(took)/2]
}

// start starts an app of hers, or finds the one that is there, and shows how far it is.
func (w *Web) start(rw http.ResponseWriter, r *http.Request, v visitor) {
	pool, endpoint, ok := w.endpointOf(rw, r)
	if !ok {
		return
	}
	if endpoint.Name == shoal.EndpointJupyter && endpoint.Command == "" { // its hub starts it
		redirect(rw, http.StatusSeeOther, w.cfg.Jupyter(pool.Name, v.Name))
		return
	}
	if _, err := w.cfg.Apps.Open(r.Context(), v.Name, pool.Name, endpoint.Name, ""); err != nil {
		w.failed(rw, r, endpoint.Name+" cannot be started", err)
		return
	}
	to := "/shoal/start/" + string(pool.Name) + "/" + endpoint.Name
	if after := w.after(r.URL.Query().Get("next"), pool.Name, endpoint.Name); after != "" {
		to += "?next=" + url.QueryEscape(after)
	}
	redirect(rw, http.StatusSeeOther, to)
}
