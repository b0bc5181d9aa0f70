package shoaltest

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
)

// webApp is a user's web app on a fake machine. Its command is one of
//
//	serve [SECONDS]  answers after a second, with who it is, where, and what was asked for; dies after so long
//	exit N           ends with a status before it answers
//	hang             never answers
type webApp struct {
	report api.AppReport
	told   bool // it is known
	end    context.CancelFunc
}

// firstAppPort is that of the first app of a machine.
const firstAppPort = 600

// takeApps puts what a snapshot says of apps into effect. The caller holds the lock.
func (m *Machine) takeApps(ctx context.Context, orders []api.AppOrder, parts *sync.WaitGroup) {
	for _, o := range orders {
		m.startApp(ctx, o, parts)
	}
	for id, a := range m.apps {
		if !slices.ContainsFunc(orders, func(o api.AppOrder) bool { return o.ID == id }) && a.end != nil {
			a.end()
		}
	}
}

// startApp starts an app that is not known. The caller holds the lock.
func (m *Machine) startApp(ctx context.Context, o api.AppOrder, parts *sync.WaitGroup) {
	if a := m.apps[o.ID]; a != nil {
		a.told = false
		return
	}
	ctx, end := context.WithCancel(ctx)
	a := &webApp{report: api.AppReport{ID: o.ID, State: shoal.AppStarting, Progress: "it is started"}, end: end}
	m.apps[o.ID] = a
	port := firstAppPort + len(m.apps)
	parts.Go(func() {
		defer end()
		r := m.runApp(ctx, a, o, port)
		m.mu.Lock()
		defer m.mu.Unlock()
		a.report, a.told, a.end = r, false, nil
		m.tell()
	})
}

// runApp is the life of an app.
func (m *Machine) runApp(ctx context.Context, a *webApp, o api.AppOrder, port int) api.AppReport {
	stopped := api.AppReport{ID: o.ID, State: shoal.AppEnded, Reason: "it was stopped"}
	failed := api.AppReport{ID: o.ID, State: shoal.AppFailed}
	verb, rest, _ := strings.Cut(o.Command, " ")
	switch verb {
	case "serve":
		if !pause(ctx, time.Second) {
			return stopped
		}
		host, _, err := net.SplitHostPort(m.address)
		if err != nil {
			host = m.address
		}
		l := m.w.net.listen(net.JoinHostPort(host, strconv.Itoa(port)))
		server := http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, "%s on %s: %s\n", o.User, m.spec.ID, r.URL.Path)
		})}
		var serving sync.WaitGroup
		serving.Go(func() { _ = server.Serve(l) })
		defer serving.Wait()
		defer server.Close()
		m.mu.Lock()
		a.report, a.told = api.AppReport{ID: o.ID, State: shoal.AppRunning, Port: port}, false
		m.tell()
		m.mu.Unlock()
		if rest == "" {
			rest = "1e9"
		}
		d, err := strconv.ParseFloat(rest, 64)
		if err != nil || !pause(ctx, time.Duration(d*float64(time.Second))) {
			return stopped
		}
		failed.Reason, failed.ExitCode = "it was ended by signal 9 (SIGKILL)", 137
	case "exit":
		failed.ExitCode, _ = strconv.Atoi(rest) // what is no number is 0
		failed.Reason, failed.Log = "its command ended with exit code "+rest+" before it answered", "no such database\n"
	case "hang":
		if !pause(ctx, time.Duration(o.Ready.Timeout)) {
			return stopped
		}
		failed.Reason = fmt.Sprintf("it did not answer at %s within %s", o.Ready.Path, o.Ready.Timeout)
	case "":
		failed.Reason = "the machine was started again meanwhile, and nothing of it is left"
	default:
		failed.Reason, failed.ExitCode = "its command ended with exit code 127 before it answered", 127
	}
	return failed
}

// stopApp ends an app. The caller holds the lock.
func (m *Machine) stopApp(id shoal.AppID) {
	switch a := m.apps[id]; {
	case a == nil:
		m.apps[id] = &webApp{report: api.AppReport{ID: id, State: shoal.AppEnded, Reason: "the machine does not have it"}}
	case a.end != nil:
		a.end()
	default:
		a.told = false
	}
}

// appNews is what there is to tell of apps. The caller holds the lock.
func (m *Machine) appNews() (all []api.AppReport) {
	for _, a := range m.apps {
		if !a.told {
			all = append(all, a.report)
		}
	}
	return all
}

// appsTold notes what the control plane knows. The caller holds the lock.
func (m *Machine) appsTold(all []api.AppReport) {
	for _, r := range all {
		if a := m.apps[r.ID]; a != nil && a.report == r {
			a.told = true
		}
	}
}
