package httpapi

import (
	"net/http"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/access"
	"github.com/shoal-pool/shoal/internal/httpapi/rest"
	"github.com/shoal-pool/shoal/internal/store"
)

// endpoint is one line of the table.
type endpoint struct {
	method, path string // below /api/v1
	may          rule
	query        string // names of parameters; what they mean is in params
	doc          string
	do           rest.Action
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
		"by": "user, group, pool, job or machine", "idle": "whose the time is that nobody used: apart (the default, a row of its own) or shared among those who used the pool", "since": "from this time on, RFC 3339", "rev": "the newest that the caller knows",
	}
}

// table is all there is to the API.
func (a *API) table() []endpoint {
	signedIn := rule{words: "whoever is signed in"}
	anybody := rule{words: "everybody, also without signing in", open: true}
	all := []endpoint{
		{"GET", "/openapi.json", anybody, "", "This description", rest.Stream("application/json", a.serveOpenAPI)},
		{"GET", "/version", anybody, "", "What answers", rest.Read(a.version)},
		{"POST", "/login", anybody, "", "Sign in: with a password, or by signing a challenge with an SSH key", rest.Take(http.StatusOK, a.login)},
		{"GET", "/whoami", signedIn, "", "Who the caller is", rest.Read(a.whoami)},
		{"POST", "/apply", may(access.Apply, shoal.ObjectPool), "", "Create or change objects, all of them or none", rest.Take(http.StatusOK, a.apply)},

		{"GET", "/pools", may(access.View, shoal.ObjectPool), "", "List the pools", rest.Read(a.pools)},
		{"GET", "/pools/{name}", may(access.View, shoal.ObjectPool), "", "Show a pool", rest.Read(a.pool)},
		{"PUT", "/pools/{name}", may(access.Apply, shoal.ObjectPool), "", "Create or change a pool; If-Match names the rev it had", rest.Take(http.StatusOK, a.putPool)},
		{"DELETE", "/pools/{name}", may(access.Delete, shoal.ObjectPool), "", "Delete a pool once its machines are gone; begins it and does not wait", rest.Act(http.StatusAccepted, a.deletePool)},
		{"POST", "/pools/{name}/rehearse", may(access.Scale, shoal.ObjectPool), "", "Tell what the autoscaler would do, and would have done, with a pool", rest.Take(http.StatusOK, a.rehearse)},
		{"GET", "/pools/{name}/rollout", may(access.View, shoal.ObjectPool), "", "Tell how far a pool's machines have come to be as it says", rest.Read(a.rollout)},
		{"POST", "/pools/{name}/rollout", may(access.Scale, shoal.ObjectPool), "", "Pause a rollout or let it go on; go back to a former revision, as whoever may change the pool", rest.Take(http.StatusOK, a.steerRollout)},
		{"POST", "/pools/{name}/scale", may(access.Scale, shoal.ObjectPool), "", "Set a pool's size by hand, or give it back to the autoscaler", rest.Take(http.StatusOK, a.scalePool)},

		{"GET", "/shares", may(access.View, shoal.ObjectShare), "", "List the shares", rest.Read(a.shares)},
		{"GET", "/shares/{name}", may(access.View, shoal.ObjectShare), "", "Show a share", rest.Read(a.share)},
		{"PUT", "/shares/{name}", may(access.Apply, shoal.ObjectShare), "", "Create or change a share; If-Match names the rev it had", rest.Take(http.StatusOK, a.putShare)},
		{"DELETE", "/shares/{name}", may(access.Delete, shoal.ObjectShare), "", "Forget a share that no pool mounts; its files stay", rest.Act(http.StatusNoContent, a.deleteShare)},

		{"GET", "/groups", may(access.View, shoal.ObjectGroup), "", "List the groups", rest.Read(a.groups)},
		{"GET", "/groups/{name}", may(access.View, shoal.ObjectGroup), "", "Show a group", rest.Read(a.group)},
		{"PUT", "/groups/{name}", may(access.Apply, shoal.ObjectGroup), "", "Create or change a group; If-Match names the rev it had", rest.Take(http.StatusOK, a.putGroup)},
		{"DELETE", "/groups/{name}", may(access.Delete, shoal.ObjectGroup), "", "Remove a group", rest.Act(http.StatusNoContent, a.deleteGroup)},
	}
	all = append(all, a.peopleTable()...)
	all = append(all, a.machineTable()...)
	all = append(all, a.appTable()...)
	all = append(all, a.secretTable()...)
	all = append(all, a.desktopTable()...)
	all = append(all, a.deploymentTable()...)
	all = append(all, a.gatewayTable()...)
	all = append(all, a.webTable()...)
	return append(all, a.jobTable()...)
}

func (a *API) peopleTable() []endpoint {
	return []endpoint{
		{"GET", "/users", may(access.View, shoal.ObjectUser), "", "List the users that the caller may see", rest.Read(a.users)},
		{"POST", "/users", may(access.Apply, shoal.ObjectUser), "", "Add a user, with a password unless that is empty", rest.Take(http.StatusCreated, a.addUser)},
		{"GET", "/users/{name}", may(access.View, shoal.ObjectUser), "", "Show a user", rest.Read(a.user)},
		{"PUT", "/users/{name}", may(access.Apply, shoal.ObjectUser), "", "Create or change a user; If-Match names the rev she had", rest.Take(http.StatusOK, a.putUser)},
		{"DELETE", "/users/{name}", may(access.Delete, shoal.ObjectUser), "", "Remove a user who has neither sessions nor jobs; says where files stay", rest.Read(a.removeUser)},
		{"PUT", "/users/{name}/password", may(access.SetPassword, shoal.ObjectUser), "", "Set a password; an empty one takes it away", rest.Take(http.StatusOK, a.setPassword)},
		{"POST", "/users/{name}/disable", may(access.Apply, shoal.ObjectUser), "", "Keep a user out, and end her sessions and jobs", rest.Read(a.disableUser)},
		{"POST", "/users/{name}/enable", may(access.Apply, shoal.ObjectUser), "", "Let a user in again", rest.Read(a.enableUser)},

		{"GET", "/sessions", may(access.View, shoal.ObjectSession), "pool,user,machine,state,ended,cursor,limit", "List the sessions that the caller may see, newest first", rest.Read(a.sessions)},
		{"GET", "/sessions/{id}", may(access.View, shoal.ObjectSession), "", "Show a session", rest.Read(a.session)},
		{"DELETE", "/sessions/{id}", may(access.End, shoal.ObjectSession), "", "End a session", rest.Act(http.StatusNoContent, a.endSession)},
		{"POST", "/sessions/{id}/keep-awake", may(access.KeepAwake, shoal.ObjectSession), "", "Keep a session's machine for a time", rest.Take(http.StatusOK, a.keepAwake)},
	}
}

func (a *API) machineTable() []endpoint {
	return []endpoint{
		{"GET", "/machines", may(access.View, shoal.ObjectMachine), "pool,state,gone,cursor,limit", "List machines, newest first", rest.Read(a.machines)},
		{"GET", "/machines/{id}", may(access.View, shoal.ObjectMachine), "", "Show a machine", rest.Read(a.machine)},
		{"DELETE", "/machines/{id}", may(access.Delete, shoal.ObjectMachine), "force", "Remove a machine; begins it and does not wait", rest.Act(http.StatusAccepted, a.deleteMachine)},
		{"POST", "/machines/{id}/drain", may(access.Drain, shoal.ObjectMachine), "", "Keep new users and tasks off a machine", rest.Take(http.StatusOK, a.drain)},
		{"POST", "/machines/{id}/undrain", may(access.Drain, shoal.ObjectMachine), "", "Take an operator's cordon away", rest.Read(a.undrain)},

		{"GET", "/images", may(access.View, access.ObjectImage), "", "List the images that are kept", rest.Read(a.images)},
		{"POST", "/images", may(access.Apply, access.ObjectImage), "", "Freeze the image host under a name; takes minutes", rest.Take(http.StatusCreated, a.snapshot)},
		{"DELETE", "/images/{name}", may(access.Delete, access.ObjectImage), "", "Remove an image that nothing uses", rest.Act(http.StatusNoContent, a.removeImage)},
	}
}

func (a *API) jobTable() []endpoint {
	return []endpoint{
		{"GET", "/jobs", may(access.View, shoal.ObjectJob), "user,pool,jobName,state,label,externalId,cursor,limit", "List the jobs that the caller may see, newest first", rest.Read(a.jobs)},
		{"POST", "/jobs", may(access.Submit, shoal.ObjectJob), "", "Submit a job; with an Idempotency-Key only once", rest.Take(http.StatusCreated, a.submit).UpTo(rest.MaxLarge)},
		{"POST", "/jobs:batch", may(access.Submit, shoal.ObjectJob), "", "Submit up to 10000 jobs, each taken or refused by itself; with an Idempotency-Key only once", a.submitBatch()},
		{"POST", "/jobs:status", may(access.View, shoal.ObjectJob), "", "Ask in short about up to 10000 jobs, also those that ended long ago", rest.Take(http.StatusOK, a.jobStatus)},
		{"POST", "/jobs:cancel", may(access.Cancel, shoal.ObjectJob), "", "End up to 10000 jobs; begins it and does not wait", rest.Take(http.StatusOK, a.cancelBatch)},
		{"GET", "/jobs/{id}", may(access.View, shoal.ObjectJob), "", "Show a job", rest.Read(a.job)},
		{"GET", "/jobs/{id}/tasks", may(access.View, shoal.ObjectJob), "from,cursor,limit", "List a job's tasks by index, each with its latest attempt", rest.Read(a.tasks)},
		{"GET", "/jobs/{id}/tasks/{index}/attempts", may(access.View, shoal.ObjectJob), "", "List the attempts of a task, the oldest first", rest.Read(a.attempts)},
		{"POST", "/jobs/{id}/cancel", may(access.Cancel, shoal.ObjectJob), "", "End a job, or some of its tasks; begins it and does not wait", rest.TakeAny(http.StatusOK, a.cancel)},
		{"POST", "/jobs/{id}/retry", may(access.Cancel, shoal.ObjectJob), "", "Start tasks of an ended job again: all that did not succeed, or those named", rest.TakeAny(http.StatusOK, a.retry)},
		{"GET", "/jobs/{id}/wait", may(access.View, shoal.ObjectJob), "", "Wait for a job's end; answers after a while without one, to be asked again", rest.Read(a.wait)},
		{"GET", "/jobs/{id}/files", may(access.Output, shoal.ObjectJob), "under,cursor,limit", "List the files in a job's outputs, as far as the caller may read them", rest.Read(a.jobFiles)},
		{"GET", "/jobs/{id}/files/{path...}", may(access.Output, shoal.ObjectJob), "", "Read a file of a job's output, OUTPUT/PATH; answers to Range", rest.Stream("application/octet-stream", a.jobFile)},
		{"GET", "/jobs/{id}/tasks/{index}/output", may(access.Output, shoal.ObjectJob), "stream,node,offset,follow,frames", "Read a task's output; it ends without error only at its true end. frames=true tells offsets, what is not kept, and beats", rest.Stream("application/octet-stream", a.output)},

		{"GET", "/usage", may(access.View, access.ObjectUsage), "by,since,idle", "The bill; members see their own, by user or by job", rest.Read(a.usage)},
		{"GET", "/why/{kind}/{name}", rule{words: "who may see what it is about"}, "pool", "Why something is as it is", rest.Read(a.why)},
		{"GET", "/events", rule{words: "operators see all events, others their own and those of pools and machines"}, "since,job,label,follow", "Events as text/event-stream, each with its rev as id; goes on after Last-Event-ID. follow=false ends after those there are", rest.Stream("text/event-stream", a.events)},
	}
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
	err = a.cfg.Store.View(c.Ctx, func(tx *store.Tx) error {
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
