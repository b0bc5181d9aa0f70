package shoal_test

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shoal-pool/shoal"
)

// TestJobForms reads each way to write a part of a job, and writes it the shortest way.
func TestJobForms(t *testing.T) {
	t.Parallel()
	type forms struct {
		Nodes  shoal.Nodes        `json:"nodes,omitzero"`
		After  []shoal.Dependency `json:"after,omitempty"`
		Output shoal.OutputDir    `json:"output,omitzero"`
		Retry  shoal.Factor       `json:"retry,omitzero"`
	}
	for _, c := range []struct{ in, out string }{
		{`{"nodes":2}`, `{"nodes":2}`},
		{`{"nodes":"2-4"}`, `{"nodes":"2-4"}`},
		{`{"nodes":"3-3"}`, `{"nodes":3}`},
		{`{"after":[17,"prep","prep:ok","x:any","y/*","z/*:failed"]}`, `{"after":["17","prep","prep","x:any","y/*","z/*:failed"]}`},
		{`{"after":[{"job":"prep","condition":"any","task":"corresponding"}]}`, `{"after":["prep/*:any"]}`},
		{`{"output":"/a"}`, `{"output":"/a"}`},
		{`{"output":{"path":"/a","reuse":true}}`, `{"output":{"path":"/a","reuse":true}}`},
		{`{"retry":"1.5x"}`, `{"retry":"1.5x"}`},
		{`{"retry":2}`, `{"retry":"2x"}`},
	} {
		var f forms
		if err := json.Unmarshal([]byte(c.in), &f); err != nil {
			t.Errorf("%s: %v", c.in, err)
			continue
		}
		got, err := json.Marshal(f)
		if diff := cmp.Diff(c.out, string(got)); err != nil || diff != "" {
			t.Errorf("%s: %v\n%s", c.in, err, diff)
		}
	}
	for _, in := range []string{`{"nodes":0}`, `{"nodes":"4-2"}`, `{"nodes":"2-"}`, `{"after":["x:soon"]}`, `{"after":[""]}`, `{"retry":"0.5x"}`, `{"retry":"NaN"}`, `{"retry":"1e9x"}`} {
		if err := json.Unmarshal([]byte(in), new(forms)); err == nil {
			t.Errorf("%s is accepted", in)
		}
	}
}
