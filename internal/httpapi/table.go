package httpapi

import (
	"net/http"
	"reflect"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/access"
	"github.com/shoal-pool/shoal/internal/store"
)

// endpoint is one line of the table.
type endpoint struct {
	method, path string // below /api/v1
	may          rule
	query        string // names of parameters; what they mean is in params
	doc          string
	do           action
}

// rule is who may call an endpoint: a line of package access, or words.
type rule struct {
	action access.Action
	on     shoal.ObjectKind
	words  string
	open   bool // nobody is asked who they are
}

func may(a access.Action, on shoal.ObjectKind) rule { return rule{action: a, on: on} }

// String says the rule.
func (r rule) String() string {
	if r.words != "" {
		return r.words
	}
	return access.Decide(access.Subject{}, r.action, access.Object{Kind: r.on}).Rule
}

// The parts of a URL that mean the same everywhere.
func params() map[string]string {
	return map[string]string{
		"name": "the object's name", "id": "the object's identifier", "index": "a task's index; -1: the job's only task", "kind": "pool, machine, session, app, job or login",
		"cursor": "the `next` of the page before", "limit": "the length of a page, at most 1000",
		"pool": "only of this pool; of a login: where to", "user": "only this user's", "machine": "only on this machine", "state": "only in this state", "jobName": "only of this name",
		"label": "only of jobs with this label, KEY=VALUE", "externalId": "only the one that its user calls so", "job": "only of this job",
		"gone": "machines that are gone as well", "ended": "those that ended as well", "force": "although somebody is on it",
		"from": "the first index", "stream": "stdout (the default) or stderr", "offset": "the first byte", "under": "OUTPUT or OUTPUT/PATH: only what is there", "path": "OUTPUT/PATH", "node": "of a task on several nodes, by rank", "frames": "as application/vnd.shoal.output", "follow": "wait for what is still to come",
		"by": "user, group, pool, job or machine", "since": "from this time on, RFC 3339", "rev": "the newest that the caller knows",
	}
}

// table is all there is to the API.
func (a *API) table() []endpoint {
	signedIn := rule{words: "whoever is signed in"}
	anybody := rule{words: "everybody, also without signing in", open: true}
	all := []endpoint{
		{"GET", "/openapi.json", anybody, "", "This description", stream("application/json", (*API).serveOpenAPI)},
		{"GET", "/version", anybody, "", "What answers", read((*API).version)},
		{"POST", "/login", anybody, "", "Sign in: with a password, or by signing a challenge with an SSH key", take(http.StatusOK, (*API).login)},
		{"GET", "/whoami", signedIn, "", "Who the caller is", read((*API).whoami)},
		{"POST", "/apply", may(access.Apply, shoal.ObjectPool), "", "Create or change objects, all of them or none", take(http.StatusOK, (*API).apply)},

		{"GET", "/pools", may(access.View, shoal.ObjectPool), "", "List the pools", read((*API).pools)},
		{"GET", "/pools/{name}", may(access.View, shoal.ObjectPool), "", "Show a pool", read((*API).pool)},
		{"PUT", "/pools/{name}", may(access.Apply, shoal.ObjectPool), "", "Create or change a pool; If-Match names the rev it had", take(http.StatusOK, (*API).putPool)},
		{"DELETE", "/pools/{name}", may(access.Delete, shoal.ObjectPool), "", "Delete a pool once its machines are gone; begins it and does not wait", act(http.StatusAccepted, (*API).deletePool)},
		{"POST", "/pools/{name}/scale", may(access.Scale, shoal.ObjectPool), "", "Set a pool's size by hand, or give it back to the autoscaler", take(http.StatusOK, (*API).scalePool)},

		{"GET", "/shares", may(access.View, shoal.ObjectShare), "", "List the shares", read((*API).shares)},
		{"GET", "/shares/{name}", may(access.View, shoal.ObjectShare), "", "Show a share", read((*API).share)},
		{"PUT", "/shares/{name}", may(access.Apply, shoal.ObjectShare), "", "Create or change a share; If-Match names the rev it had", take(http.StatusOK, (*API).putShare)},
		{"DELETE", "/shares/{name}", may(access.Delete, shoal.ObjectShare), "", "Forget a share that no pool mounts; its files stay", act(http.StatusNoContent, (*API).deleteShare)},

		{"GET", "/groups", may(access.View, shoal.ObjectGroup), "", "List the groups", read((*API).groups)},
		{"GET", "/groups/{name}", may(access.View, shoal.ObjectGroup), "", "Show a group", read((*API).group)},
		{"PUT", "/groups/{name}", may(access.Apply, shoal.ObjectGroup), "", "Create or change a group; If-Match names the rev it had", take(http.StatusOK, (*API).putGroup)},
		{"DELETE", "/groups/{name}", may(access.Delete, shoal.ObjectGroup), "", "Remove a group", act(http.StatusNoContent, (*API).deleteGroup)},
	}
	all = append(all, a.peopleTable()...)
	all = append(all, a.machineTable()...)
	all = append(all, a.appTable()...)
	all = append(all, a.secretTable()...)
	all = append(all, a.desktopTable()...)
	all = append(all, a.deploymentTable()...)
	all = append(all, a.webTable()...)
	return append(all, a.jobTable()...)
}

func (a *API) peopleTable() []endpoint {
	return []endpoint{
		{"GET", "/users", may(access.View, shoal.ObjectUser), "", "List the users that the caller may see", read((*API).users)},
		{"POST", "/users", may(access.Apply, shoal.ObjectUser), "", "Add a user, with a password unless that is empty", take(http.StatusCreated, (*API).addUser)},
		{"GET", "/users/{name}", may(access.View, shoal.ObjectUser), "", "Show a user", read((*API).user)},
		{"PUT", "/users/{name}", may(access.Apply, shoal.ObjectUser), "", "Create or change a user; If-Match names the rev she had", take(http.StatusOK, (*API).putUser)},
		{"DELETE", "/users/{name}", may(access.Delete, shoal.ObjectUser), "", "Remove a user who has neither sessions nor jobs; says where files stay", read((*API).removeUser)},
		{"PUT", "/users/{name}/password", may(access.SetPassword, shoal.ObjectUser), "", "Set a password; an empty one takes it away", take(http.StatusOK, (*API).setPassword)},
		{"POST", "/users/{name}/disable", may(access.Apply, shoal.ObjectUser), "", "Keep a user out, and end her sessions and jobs", read((*API).disableUser)},
		{"POST", "/users/{name}/enable", may(access.Apply, shoal.ObjectUser), "", "Let a user in again", read((*API).enableUser)},

		{"GET", "/sessions", may(access.View, shoal.ObjectSession), "pool,user,machine,state,ended,cursor,limit", "List the sessions that the caller may see, newest first", read((*API).sessions)},
		{"GET", "/sessions/{id}", may(access.View, shoal.ObjectSession), "", "Show a session", read((*API).session)},
		{"DELETE", "/sessions/{id}", may(access.End, shoal.ObjectSession), "", "End a session", act(http.StatusNoContent, (*API).endSession)},
		{"POST", "/sessions/{id}/keep-awake", may(access.KeepAwake, shoal.ObjectSession), "", "Keep a session's machine for a time", take(http.StatusOK, (*API).keepAwake)},
	}
}

func (a *API) machineTable() []endpoint {
	return []endpoint{
		{"GET", "/machines", may(access.View, shoal.ObjectMachine), "pool,state,gone,cursor,limit", "List machines, newest first", read((*API).machines)},
		{"GET", "/machines/{id}", may(access.View, shoal.ObjectMachine), "", "Show a machine", read((*API).machine)},
		{"DELETE", "/machines/{id}", may(access.Delete, shoal.ObjectMachine), "force", "Remove a machine; begins it and does not wait", act(http.StatusAccepted, (*API).deleteMachine)},
		{"POST", "/machines/{id}/drain", may(access.Drain, shoal.ObjectMachine), "", "Keep new users and tasks off a machine", take(http.StatusOK, (*API).drain)},
		{"POST", "/machines/{id}/undrain", may(access.Drain, shoal.ObjectMachine), "", "Take an operator's cordon away", read((*API).undrain)},

		{"GET", "/images", may(access.View, access.ObjectImage), "", "List the images that are kept", read((*API).images)},
		{"POST", "/images", may(access.Apply, access.ObjectImage), "", "Freeze the image host under a name; takes minutes", take(http.StatusCreated, (*API).snapshot)},
		{"DELETE", "/images/{name}", may(access.Delete, access.ObjectImage), "", "Remove an image that nothing uses", act(http.StatusNoContent, (*API).removeImage)},
	}
}

func (a *API) jobTable() []endpoint {
	return []endpoint{
		{"GET", "/jobs", may(access.View, shoal.ObjectJob), "user,pool,jobName,state,label,externalId,cursor,limit", "List the jobs that the caller may see, newest first", read((*API).jobs)},
		{"POST", "/jobs", may(access.Submit, shoal.ObjectJob), "", "Submit a job; with an Idempotency-Key only once", take(http.StatusCreated, (*API).submit).upTo(maxLarge)},
		{"POST", "/jobs:batch", may(access.Submit, shoal.ObjectJob), "", "Submit up to 10000 jobs, each taken or refused by itself; with an Idempotency-Key only once", submitBatch()},
		{"POST", "/jobs:status", may(access.View, shoal.ObjectJob), "", "Ask in short about up to 10000 jobs, also those that ended long ago", take(http.StatusOK, (*API).jobStatus)},
		{"POST", "/jobs:cancel", may(access.Cancel, shoal.ObjectJob), "", "End up to 10000 jobs; begins it and does not wait", take(http.StatusOK, (*API).cancelBatch)},
		{"GET", "/jobs/{id}", may(access.View, shoal.ObjectJob), "", "Show a job", read((*API).job)},
		{"GET", "/jobs/{id}/tasks", may(access.View, shoal.ObjectJob), "from,cursor,limit", "List a job's tasks by index, each with its latest attempt", read((*API).tasks)},
		{"POST", "/jobs/{id}/cancel", may(access.Cancel, shoal.ObjectJob), "", "End a job, or some of its tasks; begins it and does not wait", takeAny(http.StatusOK, (*API).cancel)},
		{"POST", "/jobs/{id}/retry", may(access.Cancel, shoal.ObjectJob), "", "Start tasks of an ended job again: all that did not succeed, or those named", takeAny(http.StatusOK, (*API).retry)},
		{"GET", "/jobs/{id}/wait", may(access.View, shoal.ObjectJob), "", "Wait for a job's end; answers after a while without one, to be asked again", read((*API).wait)},
		{"GET", "/jobs/{id}/files", may(access.Output, shoal.ObjectJob), "under,cursor,limit", "List the files in a job's outputs, as far as the caller may read them", read((*API).jobFiles)},
		{"GET", "/jobs/{id}/files/{path...}", may(access.Output, shoal.ObjectJob), "", "Read a file of a job's output, OUTPUT/PATH; answers to Range", stream("application/octet-stream", (*API).jobFile)},
		{"GET", "/jobs/{id}/tasks/{index}/output", may(access.Output, shoal.ObjectJob), "stream,node,offset,follow,frames", "Read a task's output; it ends without error only at its true end. frames=true tells offsets, what is not kept, and beats", stream("application/octet-stream", (*API).output)},

		{"GET", "/usage", may(access.View, access.ObjectUsage), "by,since", "The bill; members see their own, by user or by job", read((*API).usage)},
		{"GET", "/why/{kind}/{name}", rule{words: "who may see what it is about"}, "pool", "Why something is as it is", read((*API).why)},
		{"GET", "/events", rule{words: "operators see all events, others their own and those of pools and machines"}, "since,job,label,follow", "Events as text/event-stream, each with its rev as id; goes on after Last-Event-ID. follow=false ends after those there are", stream("text/event-stream", (*API).events)},
	}
}

// action is what an endpoint does, with the types it takes and gives.
type action struct {
	in, out reflect.Type // nil: none
	limit   int64        // of the body; 0: that of most
	spare   bool         // the body can be left out
	status  int
	media   string // of an answer that is no JSON value
	serve   func(*API, *call) error
}

// upTo lets an action take larger bodies.
func (d action) upTo(limit int64) action {
	d.limit = limit
	return d
}

// read makes an action of a function that needs no body.
func read[Out any](f func(*API, *call) (Out, error)) action {
	return action{out: reflect.TypeFor[Out](), status: http.StatusOK, serve: func(a *API, c *call) error {
		v, err := f(a, c)
		if err != nil {
			return err
		}
		return c.answer(http.StatusOK, v)
	}}
}

// take makes an action of a function that takes a body.
func take[In, Out any](status int, f func(*API, *call, In) (Out, error)) action {
	return action{in: reflect.TypeFor[In](), out: reflect.TypeFor[Out](), status: status, serve: func(a *API, c *call) error {
		in, err := decode[In](c.body)
		if err != nil {
			return err
		}
		v, err := f(a, c, in)
		if err != nil {
			return err
		}
		return c.answer(status, v)
	}}
}

// takeAny is take for a body that can be left out.
func takeAny[In, Out any](status int, f func(*API, *call, In) (Out, error)) action {
	d := take(status, f)
	whole := d.serve
	d.spare, d.serve = true, func(a *API, c *call) error {
		if len(c.body) == 0 {
			c.body = []byte("{}")
		}
		return whole(a, c)
	}
	return d
}

// act makes an action of a function that has nothing to say when it succeeds.
func act(status int, f func(*API, *call) error) action {
	return action{status: status, serve: func(a *API, c *call) error {
		if err := f(a, c); err != nil {
			return err
		}
		c.w.WriteHeader(status)
		return nil
	}}
}

// stream makes an action of a function that writes the answer itself.
func stream(media string, f func(*API, *call) error) action {
	return action{status: http.StatusOK, media: media, serve: f}
}

// listed is a page as the wire has it.
func listed[V any](items []V, next string, rev shoal.Rev) api.List[V] {
	if items == nil {
		items = []V{}
	}
	return api.List[V]{Items: items, Next: next, Rev: rev}
}

// pageOf reads a page, and the revision at which it is true.
func pageOf[V any](a *API, c *call, read func(*store.Tx) (items []V, next string, err error)) (page api.List[V], err error) {
	err = a.cfg.Store.View(c.ctx, func(tx *store.Tx) error {
		items, next, err := read(tx)
		if err != nil {
			return err
		}
		rev, err := tx.Rev()
		page = listed(items, next, rev)
		return err
	})
	return page, err
}
