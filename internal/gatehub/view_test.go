package gatehub

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
)

// However many sessions and users there are, and come and go at once, no line of a stream is too long for a gateway.
func TestRecordsAreShort(t *testing.T) {
	t.Parallel()
	const most = 1 << 20 // a gateway reads four times as much
	crowd := &view{users: map[shoal.UserName]*api.GatewayUser{}, routes: map[shoal.SessionID]api.GatewayRoute{},
		pools: []api.GatewayPool{{Name: "lab"}}}
	for i := range 3000 {
		u := &api.GatewayUser{Name: shoal.UserName(fmt.Sprintf("user-%d", i)), UID: i, Shell: "/bin/bash"}
		for range 20 {
			u.Keys = append(u.Keys, "ssh-rsa "+strings.Repeat("A", 700))
		}
		crowd.users[u.Name] = u
	}
	for range 50_000 {
		id := shoal.NewSessionID()
		crowd.routes[id] = api.GatewayRoute{Session: id, User: "user-1", Pool: "lab", Machine: "m-1", Address: "10.0.0.1:22"}
	}
	nobody := &view{pools: crowd.pools}
	for _, c := range []struct {
		what     string
		from, to *view
	}{{"the first time", nil, crowd}, {"all come", nobody, crowd}, {"all go", crowd, nobody}} {
		var sum api.GatewayRecord
		all := c.to.since(c.from)
		for i, r := range all {
			line, err := json.Marshal(r)
			if err != nil {
				t.Fatal(err)
			}
			if len(line) > most {
				t.Errorf("%s: a line of %d bytes", c.what, len(line))
			}
			if r.Reset != (c.from == nil && i == 0) || r.Whole != (c.from == nil && i == len(all)-1) {
				t.Errorf("%s: record %d of %d: reset %t, whole %t", c.what, i, len(all), r.Reset, r.Whole)
			}
			sum.Users, sum.NoUsers = append(sum.Users, r.Users...), append(sum.NoUsers, r.NoUsers...)
			sum.Routes, sum.NoRoutes = append(sum.Routes, r.Routes...), append(sum.NoRoutes, r.NoRoutes...)
		}
		here, gone := len(crowd.users), len(crowd.routes)
		if c.to == nobody {
			if len(sum.NoUsers) != here || len(sum.NoRoutes) != gone || len(sum.Users)+len(sum.Routes) > 0 {
				t.Errorf("%s: %d users and %d sessions", c.what, len(sum.NoUsers), len(sum.NoRoutes))
			}
		} else if len(sum.Users) != here || len(sum.Routes) != gone || len(sum.NoUsers)+len(sum.NoRoutes) > 0 {
			t.Errorf("%s: %d users and %d sessions", c.what, len(sum.Users), len(sum.Routes))
		}
	}
	if all := crowd.since(crowd); len(all) > 0 {
		t.Errorf("without a change there are %d records", len(all))
	}
}
