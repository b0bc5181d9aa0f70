package httpapi

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"strings"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/httpapi/rest"
)

// submitBatch is like take, but says which jobs of a body that cannot be read are wrong.
func (a *API) submitBatch() rest.Action {
	return rest.Action{In: reflect.TypeFor[api.BatchRequest](), Out: reflect.TypeFor[api.BatchResult](), Limit: rest.MaxLarge, Status: http.StatusOK, Serve: func(c *call) error {
		req, err := rest.Decode[api.BatchRequest](c.Body)
		if err != nil {
			return whichJobs(c.Body, err)
		}
		c.Body = nil
		result, err := a.cfg.Batch.SubmitBatch(c.Ctx, c.By, req, c.Req.Header.Get(api.IdempotencyHeader))
		if err != nil {
			return err
		}
		for i := range result.Items {
			if p := result.Items[i].Problem; p != nil {
				p.Title = rest.Title(p.Status)
			}
		}
		return c.Answer(http.StatusOK, result)
	}}
}

// maxTold is how many mistakes are told of at once.
const maxTold = 20

// whichJobs finds the jobs that kept a batch from being read; err is what was found at first.
func whichJobs(body []byte, err error) error {
	var raw struct {
		Jobs         []json.RawMessage `json:"jobs"`
		AllOrNothing json.RawMessage   `json:"allOrNothing"`
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if d.Decode(&raw) != nil {
		return err // it is not a job's fault
	}
	var mistakes []shoal.Mistake
	for i, job := range raw.Jobs {
		if _, err := rest.Decode[shoal.JobSpec](job); err != nil && len(mistakes) < maxTold {
			mistakes = append(mistakes, shoal.Mistake{Path: fmt.Sprintf("jobs[%d]", i), Msg: strings.TrimPrefix(err.Error(), rest.Unreadable), Hint: shoal.HintOf(err)})
		}
	}
	if len(mistakes) == 0 {
		return err
	}
	e := shoal.Errorf(shoal.KindInvalid, "cannot read the request: %s: %s", mistakes[0].Path, mistakes[0].Msg).WithHint("no job was taken: mend those, and send all again")
	e.Mistakes = mistakes
	return e
}

func (a *API) jobStatus(c *call, req api.StatusRequest) (api.StatusResult, error) {
	return a.cfg.Batch.Status(c.Ctx, c.By, req)
}

func (a *API) cancelBatch(c *call, req api.CancelRequest) (api.CancelResult, error) {
	return a.cfg.Batch.CancelBatch(c.Ctx, c.By, req)
}
