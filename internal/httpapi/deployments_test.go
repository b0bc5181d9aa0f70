package httpapi_test

import (
	"strings"
	"testing"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/client"
)

// What was deployed is on record under its name; whose and how often is the server's to say.
func TestDeployments(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	base := start(t, w.api.Control())
	c, err := client.New(client.Options{Server: base, Token: w.tokens["ada"]})
	mustf(t, err, "client")
	for range 2 {
		_, err = c.PutDeployment(t.Context(), api.Deployment{Name: "vmss (1)", By: "mallory", Runs: 40})
		if shoal.KindOf(err) != shoal.KindInvalid {
			t.Errorf("a name with a space: %v", err)
		}
		_, err = c.PutDeployment(t.Context(), api.Deployment{Name: "vmss", By: "mallory", Runs: 40, Template: "vmss.json"})
		mustf(t, err, "put")
	}
	d, err := c.Deployment(t.Context(), "vmss")
	if err != nil || d.By != "ada" || d.Runs != 2 || d.Template != "vmss.json" || d.Created.IsZero() {
		t.Errorf("%+v, %v", d, err)
	}
	if all, err := c.Deployments(t.Context()); err != nil || len(all) != 1 {
		t.Errorf("%+v, %v", all, err)
	}
	if _, err := c.Deployment(t.Context(), "other"); shoal.KindOf(err) != shoal.KindNotFound {
		t.Error(err)
	}
	if _, err = c.PutDeployment(t.Context(), api.Deployment{Name: "large", Notes: []string{strings.Repeat("x", 2<<20)}}); shoal.KindOf(err) != shoal.KindInvalid {
		t.Errorf("a large one: %v", err)
	}
}
