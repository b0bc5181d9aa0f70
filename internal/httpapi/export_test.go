package httpapi

import (
	"net/http"

	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/httpapi/rest"
)

// Line is a line of the table, for tests.
type Line struct{ Method, Path, Rule string }

// Lines are all lines.
func (a *API) Lines() []Line {
	var all []Line
	for _, e := range a.table() {
		all = append(all, Line{e.method, prefix + e.path, e.may.String()})
	}
	return all
}

// OpenAPI is the document.
func (a *API) OpenAPI() []byte { return a.openapi }

// Guard makes a handler of a function as endpoints are made.
func (a *API) Guard(f func(http.ResponseWriter, *http.Request) error) http.Handler {
	return a.desk.Guard(f)
}

// The parsers of foreign input.
var (
	ParseEventID = parseEventID
	ParseMatch   = rest.ParseMatch
)

// ReadBatch reads the body of a batch: nil, or why it cannot be read.
func ReadBatch(body []byte) error {
	if err := rest.CheckText(body); err != nil {
		return err
	}
	if _, err := rest.Decode[api.BatchRequest](body); err != nil {
		return whichJobs(body, err)
	}
	return nil
}
