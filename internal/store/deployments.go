package store

import "github.com/shoal-pool/shoal/api"

// Deployments lists what is on record of deployments, by name.
func (tx *Tx) Deployments() ([]api.Deployment, error) {
	return list[api.Deployment](tx, "SELECT body FROM deployments ORDER BY name")
}

// PutDeployment puts one, as JSON, on record in place of the one of its name.
func (tx *Tx) PutDeployment(name string, body []byte) error {
	err := tx.put("INSERT INTO deployments (name, body) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET body = excluded.body", name, string(body))
	return err
}
