package httpapi

import (
	"encoding/json"
	"net/http"
	"reflect"
	"regexp"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
)

// describe makes the OpenAPI 3.1 document of the table.
func (a *API) describe() []byte {
	schemas := huma.NewMapRegistry("#/components/schemas/", huma.DefaultSchemaNamer)
	// These are written by words of their own.
	schemas.RegisterTypeAlias(reflect.TypeFor[shoal.Bytes](), reflect.TypeFor[string]())
	schemas.RegisterTypeAlias(reflect.TypeFor[shoal.Duration](), reflect.TypeFor[string]())
	schemas.RegisterTypeAlias(reflect.TypeFor[shoal.MilliCPU](), reflect.TypeFor[float64]())
	schemas.RegisterTypeAlias(reflect.TypeFor[shoal.Factor](), reflect.TypeFor[string]())
	for _, t := range []reflect.Type{reflect.TypeFor[shoal.Nodes](), reflect.TypeFor[shoal.Dependency](), reflect.TypeFor[shoal.OutputDir](), reflect.TypeFor[shoal.Item]()} {
		schemas.RegisterTypeAlias(t, reflect.TypeFor[any]()) // a word, or an object where that is not enough
	}
	doc := &huma.OpenAPI{
		OpenAPI: "3.1.0",
		Info: &huma.Info{Title: "Shoal", Version: "v1", License: &huma.License{Name: "Apache-2.0"},
			Description: "Pools of machines for people and jobs. Errors are problem documents (RFC 9457) with kind and hint."},
		Paths: map[string]*huma.PathItem{},
		Components: &huma.Components{Schemas: schemas, SecuritySchemes: map[string]*huma.SecurityScheme{
			"token": {Type: "http", Scheme: "bearer", Description: "from POST /login, or the server's admin token"}}},
	}
	problem := schemas.Schema(reflect.TypeFor[api.Problem](), true, "Problem")
	for _, e := range a.table() {
		path := prefix + strings.ReplaceAll(e.path, "...", "")
		item := doc.Paths[path]
		if item == nil {
			item = &huma.PathItem{}
			doc.Paths[path] = item
		}
		op := operation(e, schemas, problem)
		switch e.method {
		case http.MethodGet:
			item.Get = op
		case http.MethodPost:
			item.Post = op
		case http.MethodPut:
			item.Put = op
		case http.MethodDelete:
			item.Delete = op
		}
	}
	text, err := json.MarshalIndent(doc, "", " ")
	if err != nil { // the table is constant, and a test reads what comes of it
		panic(err)
	}
	return append(text, '\n')
}

func operation(e endpoint, schemas huma.Registry, problem *huma.Schema) *huma.Operation {
	op := &huma.Operation{
		OperationID: operationID(e),
		Summary:     e.doc,
		Description: "For: " + e.may.String() + ".",
		Parameters:  parameters(e),
		Responses: map[string]*huma.Response{"default": {Description: "What went wrong",
			Content: map[string]*huma.MediaType{"application/problem+json": {Schema: problem}}}},
	}
	if !e.may.open {
		op.Security = []map[string][]string{{"token": {}}}
	}
	if e.do.In != nil {
		op.RequestBody = &huma.RequestBody{Required: !e.do.Spare, Content: map[string]*huma.MediaType{
			"application/json": {Schema: schemas.Schema(e.do.In, true, "")}}}
	}
	ok := &huma.Response{Description: http.StatusText(e.do.Status)}
	switch {
	case e.do.Out != nil:
		ok.Content = map[string]*huma.MediaType{"application/json": {Schema: schemas.Schema(e.do.Out, true, "")}}
	case e.do.Media != "":
		ok.Content = map[string]*huma.MediaType{e.do.Media: {}}
	}
	op.Responses[strconv.Itoa(e.do.Status)] = ok
	return op
}

// operationID is like "get-pools-name-scale".
func operationID(e endpoint) string {
	path := strings.NewReplacer("/", "-", ":", "-", "{", "", "...", "", "}", "", ".", "-").Replace(e.path)
	return strings.ToLower(e.method) + path
}

func parameters(e endpoint) []*huma.Param {
	docs := params()
	var all []*huma.Param
	for _, m := range regexp.MustCompile(`{(\w+)[.]*}`).FindAllStringSubmatch(e.path, -1) {
		all = append(all, &huma.Param{Name: m[1], In: "path", Required: true, Description: docs[m[1]], Schema: &huma.Schema{Type: "string"}})
	}
	if e.query != "" {
		for name := range strings.SplitSeq(e.query, ",") {
			p := &huma.Param{Name: name, In: "query", Description: docs[name], Schema: &huma.Schema{Type: "string"}}
			switch name {
			case "jobName":
				p.Name = "name"
			case "limit", "from", "offset", "node":
				p.Schema.Type = "integer"
			case "gone", "ended", "force", "follow", "frames":
				p.Schema.Type = "boolean"
			}
			all = append(all, p)
		}
	}
	header := func(name, doc string) {
		all = append(all, &huma.Param{Name: name, In: "header", Description: doc, Schema: &huma.Schema{Type: "string"}})
	}
	switch {
	case putsObject(e) || e.method != http.MethodGet && strings.Contains(e.path, "{") && !strings.HasPrefix(e.path, "/images"):
		header("If-Match", "the ETag (rev) that the object must still have")
	case e.method == http.MethodPost && (e.path == "/jobs" || e.path == "/jobs:batch"):
		header(api.IdempotencyHeader, "the same key submits once, however often it is sent")
	case e.path == "/events":
		header("Last-Event-ID", "the id of the last event that came")
	}
	return all
}
