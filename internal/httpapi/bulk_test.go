package httpapi_test

import (
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/client"
	"github.com/shoal-pool/shoal/internal/httpapi"
)

// TestBulk goes through what a workflow engine does: submit many, ask about them, end them.
func TestBulk(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c, ctx := w.client(w.tokens["alice"]), t.Context()
	var req api.BatchRequest
	for i := range 20 {
		req.Jobs = append(req.Jobs, shoal.JobSpec{Pool: "lab", Name: "step", Command: "true", ExternalID: fmt.Sprint("e", i), Labels: map[string]string{"run": fmt.Sprint(i % 2)},
			Resources: shoal.Resources{CPUs: 4000, Memory: 1 << 20}})
	}
	req.Jobs[7].Command = ""
	first, err := c.SubmitBatch(ctx, req, "key-1")
	mustf(t, err, "submit")
	for i, item := range first.Items {
		refused := i == 7
		if (item.Problem != nil) != refused || (item.ID == "") != refused || item.ExternalID != fmt.Sprint("e", i) || item.Existing {
			t.Errorf("%d: %+v", i, item)
		}
	}
	if p := first.Items[7].Problem; p == nil || p.Status != 400 || p.Title == "" || len(p.Mistakes) == 0 {
		t.Errorf("%+v", p)
	}
	again, err := c.SubmitBatch(ctx, req, "key-1")
	if err != nil || fmt.Sprint(again.Items[0]) != fmt.Sprint(first.Items[0]) || again.Items[7].Problem == nil {
		t.Errorf("the same request with the same key: %+v, %v", again.Items[:1], err)
	}
	// Without a key, and mended: what was taken stays, the other is taken now.
	req.Jobs[7].Command = "true"
	mended, err := c.SubmitBatch(ctx, req, "")
	mustf(t, err, "submit again")
	for i, item := range mended.Items {
		if item.Existing == (i == 7) || i != 7 && item.ID != first.Items[i].ID || item.ID == "" {
			t.Errorf("%d: %+v", i, item)
		}
	}
	_, err = c.SubmitBatch(ctx, req, "key-1")
	wantKind(t, err, shoal.KindConflict)
	if one, err := c.Submit(ctx, req.Jobs[3], ""); err != nil || one.ID != first.Items[3].ID {
		t.Errorf("the same externalId alone: job %s, %v", one.ID, err)
	}
	jobs, err := c.Jobs(ctx, client.JobQuery{Label: "run=1"})
	if err != nil || len(jobs) != 10 {
		t.Errorf("%d jobs with the label, %v", len(jobs), err)
	}
	if jobs, err = c.Jobs(ctx, client.JobQuery{ExternalID: "e4"}); err != nil || len(jobs) != 1 || jobs[0].ID != first.Items[4].ID {
		t.Errorf("by externalId: %v, %v", jobs, err)
	}
	status, err := c.JobStatus(ctx, api.StatusRequest{Label: "run=1"})
	if err != nil || len(status.Items) != 10 || status.Rev == 0 {
		t.Errorf("%+v, %v", status, err)
	}
	cancelled, err := c.CancelJobs(ctx, api.CancelRequest{ExternalIDs: []string{"e1", "e2", "nothing"}})
	if err != nil || len(cancelled.Cancelled) != 2 || len(cancelled.Unknown) != 1 {
		t.Errorf("%+v, %v", cancelled, err)
	}
	news, err := c.JobStatus(ctx, api.StatusRequest{Label: "run=1", Rev: status.Rev})
	if err != nil || len(news.Items) != 1 || news.Items[0].ExternalID != "e1" {
		t.Errorf("since revision %d: %+v, %v", status.Rev, news, err)
	}
	if all, err := c.JobStatus(ctx, api.StatusRequest{IDs: []shoal.JobID{first.Items[2].ID, "999"}}); err != nil || len(all.Items) != 2 || all.Items[0].ID != first.Items[2].ID || !all.Items[1].Unknown {
		t.Errorf("%+v, %v", all, err)
	}
	base := start(t, w.api.Control())
	for query, want := range map[string]int{"job=" + string(first.Items[5].ID): 1, "label=run%3D1": 2, "label=run%3D2": 0, "job=999": 0} {
		a := do(t, base, request{method: "GET", path: "/api/v1/events?follow=false&" + query, header: bearer(w.tokens["alice"])})
		if n := strings.Count(a.body, `"code":"jobsSubmitted"`); a.status != 200 || n != min(want, 1) {
			t.Errorf("events of %s: %d %s", query, a.status, a.body)
		}
		if a := do(t, base, request{method: "GET", path: "/api/v1/events?follow=false&" + query, header: bearer(w.tokens["bob"])}); strings.Contains(a.body, "data:") {
			t.Errorf("bob sees %s", a.body)
		}
	}
	if why, err := c.Why(ctx, "job", string(first.Items[9].ID), ""); err != nil || len(why.Events) == 0 {
		t.Errorf("%+v, %v", why, err)
	}
}

// TestAllOrNothing: one that cannot be taken keeps the others from being taken.
func TestAllOrNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.client(w.tokens["alice"])
	req := api.BatchRequest{AllOrNothing: true, Jobs: []shoal.JobSpec{{Pool: "lab", Command: "true"}, {Pool: "nowhere", Command: "true"}}}
	got, err := c.SubmitBatch(t.Context(), req, "")
	if err != nil || got.Items[0].Problem == nil || got.Items[1].Problem == nil || got.Items[0].ID != "" {
		t.Errorf("%+v, %v", got, err)
	}
	if jobs, err := c.Jobs(t.Context(), client.JobQuery{}); err != nil || len(jobs) != 0 {
		t.Errorf("%v, %v", jobs, err)
	}
	req.Jobs[1].Pool = "lab"
	if got, err := c.SubmitBatch(t.Context(), req, ""); err != nil || got.Items[0].ID == "" || got.Items[1].ID == "" {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestBulkHidden: of another's jobs nothing is told, by number, label or externalId.
func TestBulkHidden(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	alice, bob := w.client(w.tokens["alice"]), w.client(w.tokens["bob"])
	spec := shoal.JobSpec{Pool: "lab", Command: "true", Name: "SECRET", ExternalID: "mine", Labels: map[string]string{"run": "SECRET"}}
	hers, err := alice.SubmitBatch(t.Context(), api.BatchRequest{Jobs: []shoal.JobSpec{spec}}, "key")
	mustf(t, err, "submit")
	id := hers.Items[0].ID
	for _, req := range []api.StatusRequest{{IDs: []shoal.JobID{id}}, {ExternalIDs: []string{"mine"}}, {Label: "run=SECRET"}} {
		got, err := bob.JobStatus(t.Context(), req)
		mustf(t, err, "status")
		for _, item := range got.Items {
			if !item.Unknown || item.State != "" || item.Name != "" {
				t.Errorf("%+v: %+v", req, item)
			}
		}
	}
	for _, req := range []api.CancelRequest{{IDs: []shoal.JobID{id}}, {ExternalIDs: []string{"mine"}}, {Label: "run=SECRET"}} {
		if got, err := bob.CancelJobs(t.Context(), req); err != nil || len(got.Cancelled)+len(got.Over)+len(got.Refused) > 0 {
			t.Errorf("%+v: %+v, %v", req, got, err)
		}
	}
	for _, q := range []client.JobQuery{{Label: "run=SECRET"}, {ExternalID: "mine"}, {User: "alice", Label: "run=SECRET"}} {
		if jobs, err := bob.Jobs(t.Context(), q); err != nil || len(jobs) > 0 {
			t.Errorf("%+v: %v, %v", q, jobs, err)
		}
	}
	// The same externalId and key are others for another user.
	his, err := bob.SubmitBatch(t.Context(), api.BatchRequest{Jobs: []shoal.JobSpec{spec}}, "key")
	if err != nil || his.Items[0].ID == id || his.Items[0].Existing {
		t.Errorf("%+v, %v", his, err)
	}
	if j, err := alice.Job(t.Context(), id); err != nil || j.Cancel {
		t.Errorf("%+v, %v", j, err)
	}
}

// TestBadBulk: what cannot be read is told with its place, and nothing is taken.
func TestBadBulk(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	base := start(t, w.api.Control())
	for body, want := range map[string]string{
		`{"jobs":[]}`: "cannot submit 0 jobs",
		`{"jobs":[{"pool":"lab","command":"true"},{"comand":"x"}]}`:                       `jobs[1]: unknown field "comand"`,
		`{"jobs":[{"pool":"lab","command":"true","timeLimit":"soon"}]}`:                   "jobs[0]: ",
		`{"jobs":[` + strings.Repeat(`{"command":"true"},`, 10_000) + `{"command":""}]}`:  "cannot submit 10001 jobs",
		`{"jobs":[` + strings.Repeat("[", 1<<20):                                          "depth",
		`{"jobs":[{"command":"true","env":{"A":"` + strings.Repeat("x", 41<<20) + `"}}]}`: "larger than 40MiB",
		"{\"jobs\":[{\"command\":\"\xc3\x28\"}]}":                                         "not UTF-8",
		`{"jobs":{}}`: "cannot read the request",
		`{"job":[]}`:  `unknown field "job"`,
	} {
		a := do(t, base, request{method: "POST", path: "/api/v1/jobs:batch", body: body, header: bearer(w.tokens["alice"])})
		if p := a.problem(t); a.status != 400 || !strings.Contains(p.Detail, want) {
			t.Errorf("%.60s: %d %.300s, want %s", body, a.status, a.body, want)
		}
	}
	for _, body := range []string{`{}`, `{"ids":["1"],"label":"a=b"}`, `{"label":"a"}`, `{"label":"=b"}`, `{"ids":[` + strings.Repeat(`"1",`, 10_000) + `"1"]}`, `{"label":"a=b","cursor":"x"}`} {
		paths := []string{"status", "cancel"}
		if strings.Contains(body, "cursor") {
			paths = paths[:1]
		}
		for _, path := range paths {
			a := do(t, base, request{method: "POST", path: "/api/v1/jobs:" + path, body: body, header: bearer(w.tokens["alice"])})
			if a.problem(t); a.status != 400 {
				t.Errorf("%s %.60s: %d %.300s", path, body, a.status, a.body)
			}
		}
	}
	if a := do(t, base, request{method: "POST", path: "/api/v1/jobs:status", body: `{"label":"a=b"}`, header: bearer(adminToken)}); a.status != 400 {
		t.Errorf("the host has no labels: %d %s", a.status, a.body)
	}
	if a := do(t, base, request{method: "POST", path: "/api/v1/jobs:status", body: `{"ids":["` + strings.Repeat("x", 5<<20) + `"]}`, header: bearer(w.tokens["alice"])}); !strings.Contains(a.body, "larger than 4MiB") {
		t.Errorf("%d %s", a.status, a.body)
	}
	for _, q := range []string{"jobs?label=x", "events?label=x", "events?job=x", "events?job=-1"} {
		if a := do(t, base, request{method: "GET", path: "/api/v1/" + q, header: bearer(w.tokens["alice"])}); a.status != 400 {
			t.Errorf("%s: %d %s", q, a.status, a.body)
		}
	}
}

// Whatever comes as a batch is read, or refused as the sender's mistake, in words that can be sent back.
func FuzzBatch(f *testing.F) {
	for _, body := range []string{`{"jobs":[{"command":"true"}]}`, `{"jobs":[{"comand":1},{"timeLimit":"x"},3]}`, `{"jobs":3}`, "\xff", `[[[[`, `{"jobs":[{"after":["a:b"],"nodes":"9-2","items":[1,{}]}]} {}`} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		err := httpapi.ReadBatch(body)
		if err != nil && (shoal.KindOf(err) != shoal.KindInvalid || !utf8.ValidString(err.Error()) || len(shoal.MistakesOf(err)) > 20) {
			t.Errorf("%q: %v", body, err)
		}
	})
}
