package httpapi

import (
	"encoding/json"
	"net/http"
	"regexp"
	"slices"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/access"
	"github.com/shoal-pool/shoal/internal/httpapi/rest"
	"github.com/shoal-pool/shoal/internal/store"
)

func (a *API) deploymentTable() []endpoint {
	return []endpoint{
		{"GET", "/deployments", may(access.View, access.ObjectDeployment), "", "List what was deployed from templates", rest.Read(a.deployments)},
		{"GET", "/deployments/{name}", may(access.View, access.ObjectDeployment), "", "Show what was deployed under a name", rest.Read(a.deployment)},
		{"PUT", "/deployments/{name}", may(access.Apply, access.ObjectDeployment), "", "Put a deployment on record; whose and when is the server's to say", rest.Take(http.StatusOK, a.putDeployment)},
	}
}

func (a *API) deployments(c *call) (page api.List[api.Deployment], err error) {
	if err := access.Check(c.By, access.View, access.Object{Kind: access.ObjectDeployment}); err != nil {
		return page, err
	}
	return pageOf(a, c, func(tx *store.Tx) ([]api.Deployment, string, error) {
		all, err := tx.Deployments()
		return all, "", err
	})
}

func (a *API) deployment(c *call) (d api.Deployment, err error) {
	page, err := a.deployments(c)
	if err != nil {
		return d, err
	}
	i := slices.IndexFunc(page.Items, func(o api.Deployment) bool { return o.Name == c.Name("name") })
	if i < 0 {
		return d, shoal.Errorf(shoal.KindNotFound, "there is no deployment %q", c.Name("name")).WithHint("`shoal deploy list` shows those there are")
	}
	return page.Items[i], nil
}

var deploymentName = regexp.MustCompile(`^[A-Za-z0-9_()][A-Za-z0-9._()-]{0,63}$`)

// Bounds of what is on record.
const (
	maxDeployments    = 500
	maxDeploymentSize = 256 << 10
)

func (a *API) putDeployment(c *call, d api.Deployment) (api.Deployment, error) {
	d.Name, d.By, d.Runs = c.Name("name"), c.By.String(), 1
	d.Created = time.Now().UTC().Truncate(time.Second)
	d.Updated = d.Created
	if err := access.Check(c.By, access.Apply, access.Object{Kind: access.ObjectDeployment, Name: d.Name}); err != nil {
		return d, err
	}
	if !deploymentName.MatchString(d.Name) {
		return d, shoal.Errorf(shoal.KindInvalid, "this cannot be the name of a deployment").WithHint("use letters, digits, . _ ( ) and -, at most 64")
	}
	err := a.cfg.Store.Update(c.Ctx, func(tx *store.Tx) error {
		all, err := tx.Deployments()
		if err != nil {
			return err
		}
		if i := slices.IndexFunc(all, func(o api.Deployment) bool { return o.Name == d.Name }); i >= 0 {
			d.Created, d.Runs = all[i].Created, all[i].Runs+1
		} else if len(all) >= maxDeployments {
			return shoal.Errorf(shoal.KindExhausted, "cannot put another deployment on record: there are %d", len(all)).WithHint("deploy under a name that is there")
		}
		body, err := json.Marshal(d)
		if err == nil && len(body) > maxDeploymentSize {
			err = shoal.Errorf(shoal.KindInvalid, "deployment %s is too large to be on record: %d bytes", d.Name, len(body))
		}
		if err != nil {
			return err
		}
		tx.Event(shoal.Event{Kind: access.ObjectDeployment, Name: d.Name, Code: "deployed", Sentence: d.By + " deployed " + d.Name})
		return tx.PutDeployment(d.Name, body)
	})
	return d, err
}
