package store

import (
	"database/sql"
	"encoding/json"
	"fmt"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
)

// liveApps is the condition of the index over those.
const liveApps = "state NOT IN ('ended', 'failed')"

// AppFilter selects apps; zero fields select all but those that ended.
type AppFilter struct {
	User  shoal.UserName
	Pool  shoal.PoolName
	State shoal.AppState // AppEnded too
	Ended bool           // those that ended or failed as well
}

// AppsPage lists apps like JobsPage.
func (tx *Tx) AppsPage(f AppFilter, cursor string, limit int) ([]shoal.App, string, error) {
	var w where
	w.equal("user", string(f.User))
	w.equal("pool", string(f.Pool))
	w.equal("state", string(f.State))
	if !f.Ended && f.State == "" {
		w.clause(liveApps)
	}
	return page[shoal.App](tx, "apps", "created_rev", w, cursor, limit)
}

// LiveApps are all apps but those that ended, by id.
func (tx *Tx) LiveApps() ([]shoal.App, error) {
	return list[shoal.App](tx, "SELECT body FROM apps WHERE "+liveApps+" ORDER BY key")
}

// LiveAppsOn are the apps on a machine but those that ended, by id.
func (tx *Tx) LiveAppsOn(machine shoal.MachineID) ([]shoal.App, error) {
	return list[shoal.App](tx, "SELECT body FROM apps WHERE machine = ? AND "+liveApps+" ORDER BY key", string(machine))
}

// AppOrder returns what the machine of an app is told; false if nothing is stored.
func (tx *Tx) AppOrder(id shoal.AppID) (o api.AppOrder, found bool, err error) {
	err = tx.query(func(rows Rows) error {
		found = true
		var body sql.RawBytes
		if err := rows.Scan(&body); err != nil {
			return err
		}
		return json.Unmarshal(body, &o)
	}, "SELECT body FROM app_orders WHERE app = ?", string(id))
	return o, found, err
}

// PutAppOrder stores what the machine of an app is told.
func (tx *Tx) PutAppOrder(o api.AppOrder) error {
	body, err := json.Marshal(o)
	if err != nil {
		return fmt.Errorf("cannot store the order of app %s: %w", o.ID, err)
	}
	err = tx.put("INSERT INTO app_orders (app, body) VALUES (?, ?) ON CONFLICT (app) DO UPDATE SET body = excluded.body", string(o.ID), string(body))
	return err
}

// DropAppOrder forgets it.
func (tx *Tx) DropAppOrder(id shoal.AppID) error {
	_, err := tx.change("DELETE FROM app_orders WHERE app = ?", string(id))
	return err
}
