package deploy

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/client"
)

// server is one in memory, with what was asked of it.
type server struct {
	me      shoal.UserName // empty: the host
	users   map[string]shoal.User
	pools   map[string]shoal.Pool
	secrets []shoal.Secret
	refuse  string // what an apply is refused with, unless it is dry
	check   string // what a dry one is refused with
	applied []api.ApplyRequest
	done    []string // what else was done, in order
	records []api.Deployment
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	answer := func(v any) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(v)
	}
	problem := func(status int, kind shoal.Kind, text string) {
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(api.Problem{Status: status, Detail: text, Kind: kind})
	}
	parts := strings.Split(strings.TrimPrefix(r.URL.Path, "/api/v1/"), "/")
	last := parts[len(parts)-1]
	switch r.Method + " " + parts[0] {
	case "GET whoami":
		answer(api.Whoami{User: s.me, Role: shoal.RoleAdmin})
	case "GET users":
		if u, ok := s.users[last]; ok {
			answer(u)
			return
		}
		problem(404, shoal.KindNotFound, "there is no user "+last)
	case "GET pools":
		if p, ok := s.pools[last]; ok {
			answer(p)
			return
		}
		problem(404, shoal.KindNotFound, "there is no pool "+last)
	case "GET deployments":
		answer(api.List[api.Deployment]{Items: s.records})
	case "POST apply":
		var req api.ApplyRequest
		_ = json.NewDecoder(r.Body).Decode(&req)
		s.applied = append(s.applied, req)
		if s.refuse != "" && !req.DryRun {
			problem(409, shoal.KindConflict, s.refuse)
			return
		}
		if s.check != "" && req.DryRun {
			problem(409, shoal.KindConflict, s.check)
			return
		}
		var result api.ApplyResult
		for _, p := range req.Pools {
			c := api.Change{Kind: shoal.ObjectPool, Name: string(p.Name), Action: "created"}
			if _, ok := s.pools[c.Name]; ok {
				c.Action, c.Diff = "changed", []string{"size.max: 8 → 1"}
			}
			result.Changes = append(result.Changes, c)
		}
		answer(result)
	case "GET secrets":
		answer(api.List[shoal.Secret]{Items: s.secrets})
	case "DELETE secrets":
		s.done = append(s.done, "no secret "+last)
		answer(api.Change{})
	case "PUT secrets":
		var req api.SetSecret
		_ = json.NewDecoder(r.Body).Decode(&req)
		s.done = append(s.done, "secret "+last+"="+string(req.Value))
		answer(shoal.Secret{Name: shoal.SecretName(last)})
	case "PUT users":
		var req api.PasswordRequest
		_ = json.NewDecoder(r.Body).Decode(&req)
		s.done = append(s.done, "password "+parts[1]+"="+req.Password)
		answer(api.Change{})
	case "PUT deployments":
		var d api.Deployment
		_ = json.NewDecoder(r.Body).Decode(&d)
		s.records = append(s.records, d)
		answer(d)
	default:
		problem(404, shoal.KindNotFound, r.Method+" "+r.URL.Path)
	}
}

// against runs shoal deploy against a server.
func (w *world) against(t *testing.T, s *server, args ...string) string {
	t.Helper()
	srv := httptest.NewServer(s)
	defer srv.Close()
	w.connect = func() (*client.Client, string, error) {
		c, err := client.New(client.Options{Server: srv.URL})
		return c, srv.URL, err
	}
	return w.run(args...)
}

const article = cases + "DataScienceVM__Scripts__CreateDSVM__Ubuntu__dsvm-vmss-cluster"

// The article's template: secrets first, then the objects in one request, then passwords; the record has no secrets.
func TestDeploy(t *testing.T) {
	t.Parallel()
	s := &server{}
	w := &world{env: map[string]string{"KEY": "very-secret-1", "PW": "very-secret-2"}}
	args := []string{"-g", "research", "--template-file", article + ".json", "--parameters", "@" + article + ".parameters.json", "vmssName=lab", "shareName=team",
		"storageAccountName=acct", "storageAccountKey=env:KEY", "adminPassword=env:PW"}
	if err := w.against(t, s, args...); err != "" {
		t.Fatal(err, w.err.String())
	}
	if want := []string{"secret team-key=very-secret-1", "password dsvmuser=very-secret-2"}; !slices.Equal(s.done, want) {
		t.Error(s.done)
	}
	if len(s.applied) != 2 || !s.applied[0].DryRun || s.applied[1].DryRun {
		t.Fatalf("%+v", s.applied)
	}
	if r := s.applied[1]; len(r.Pools) != 1 || len(r.Shares) != 1 || r.Shares[0].Credentials.Secret != "team-key" || len(r.Users) != 1 || r.Users[0].Name != "dsvmuser" {
		t.Errorf("%+v", r)
	}
	has(t, "stdout", w.out.String(), "secret team-key kept", "password of dsvmuser set", "log in: ssh -p 2222 dsvmuser+lab@pool.example")
	record, err := json.Marshal(s.records)
	if err != nil || len(s.records) != 1 {
		t.Fatal(err, len(s.records))
	}
	has(t, "record", string(record), `"secure":["adminPassword","storageAccountKey"]`, `"vmssName":"lab"`, `"secrets":["team-key"]`)
	if all := w.out.String() + w.err.String() + string(record); strings.Contains(all, "very-secret") {
		t.Errorf("a secret is told: %s", all)
	}

	// A share that cannot be mounted: what was kept for that goes again, and what was there before stays as it was.
	for _, c := range []struct {
		there []shoal.Secret
		done  []string
	}{{nil, []string{"secret team-key=very-secret-1", "no secret team-key"}}, {[]shoal.Secret{{Name: "team-key"}}, nil}} {
		s = &server{secrets: c.there, check: "pool lab: cannot reach share team"}
		if err := (&world{env: w.env}).against(t, s, args...); !strings.Contains(err, "cannot reach share team") || !slices.Equal(s.done, c.done) {
			t.Error(err, s.done)
		}
	}

	// She who is an admin has no key for all shares; and what fails is on record.
	if err := (&world{env: w.env}).against(t, &server{me: "ada"}, args...); !strings.Contains(err, "kept by root on the server's host, and you are ada") {
		t.Error(err)
	}
	s = &server{refuse: "it was changed meanwhile, says very-secret-2"}
	if err := (&world{env: w.env}).against(t, s, args...); !strings.Contains(err, "it was changed meanwhile") || len(s.records) != 1 || s.records[0].Failed != "it was changed meanwhile, says (secret)" {
		t.Error(err, s.records)
	}
}

// Who is there already stays what she is.
func TestDeployUsers(t *testing.T) {
	t.Parallel()
	const old, key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOldOldOldOldOldOldOldOldOldOldOldOldOldOldO a", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINewNewNewNewNewNewNewNewNewNewNewNewNewNewN b"
	file := filepath.Join(t.TempDir(), "t.json")
	if err := os.WriteFile(file, []byte(`{"contentVersion": "1.0.0.0", "parameters": {"pw": {"type": "string"}, "key": {"type": "string"}},
		"resources": [{"type": "Microsoft.Compute/virtualMachineScaleSets", "name": "lab", "sku": {"name": "Standard_B1s", "capacity": 1},
			"properties": {"virtualMachineProfile": {"osProfile": {"adminUsername": "alice", "adminPassword": "[parameters('pw')]",
				"linuxConfiguration": {"ssh": {"publicKeys": [{"keyData": "[parameters('key')]"}]}}}}}}],
		"outputs": {"old": {"type": "string", "value": "[concat('pw ', parameters('pw'))]"}}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"--template-file", file, "pw=not-marked-1", "key=" + key}
	for name, c := range map[string]struct {
		was   *shoal.User
		typed string
		keys  int // of hers in the request; 0: she is not in it
		set   bool
	}{
		"new":                {nil, "", 1, true},
		"member":             {&shoal.User{Keys: []string{old}, Groups: []shoal.GroupName{"g"}, HasPassword: true}, "", 2, false},
		"member, no":         {&shoal.User{Keys: []string{old}, HasPassword: true}, "\n", 2, false},
		"member, yes":        {&shoal.User{Keys: []string{old}, HasPassword: true}, "y\n", 2, true},
		"without a password": {&shoal.User{Keys: []string{key + "b"}}, "", 0, true},
		"admin":              {&shoal.User{Role: shoal.RoleAdmin, Keys: []string{old}}, "", 0, false},
		"admin, yes":         {&shoal.User{Role: shoal.RoleAdmin, Keys: []string{old}}, "y\ny\n", 2, true},
	} {
		s := &server{users: map[string]shoal.User{}}
		if c.was != nil {
			c.was.Name = "alice"
			s.users["alice"] = *c.was
		}
		w := &world{typed: c.typed}
		if err := w.against(t, s, args...); err != "" {
			t.Errorf("%s: %s", name, err)
			continue
		}
		users := s.applied[1].Users
		if (len(users) > 0) != (c.keys > 0) || len(users) > 0 && (len(users[0].Keys) != c.keys || c.was != nil && users[0].Role != c.was.Role) {
			t.Errorf("%s: %+v", name, users)
		}
		if (len(s.done) > 0) != c.set {
			t.Errorf("%s: %s", name, s.done)
		}
		record, _ := json.Marshal(s.records)
		if strings.Contains(w.out.String()+string(record), "not-marked") {
			t.Errorf("%s: a password is told: %s", name, record)
		}
	}
}

// A scale set without machines changes a pool that is there.
func TestDeployChange(t *testing.T) {
	t.Parallel()
	s := &server{pools: map[string]shoal.Pool{"lab": {Name: "lab", Image: "old", Size: shoal.Size{Min: 1, Max: 1}, Meta: shoal.Meta{Rev: 7}}}}
	file := write(t, `{"contentVersion": "1.0.0.0", "resources": [{"type": "Microsoft.Compute/virtualMachineScaleSets", "name": "LAB", "sku": {"name": "Standard_B1s", "capacity": 3}}]}`)
	w := &world{}
	if err := w.against(t, s, "--template-file", file, "--name", "a b"); err != "" {
		t.Fatal(err)
	}
	if p := s.applied[1].Pools[0]; p.Image != "old" || p.Size.Max != 3 || p.Rev != 7 || s.records[0].Name != "a-b" {
		t.Errorf("%+v %+v", p, s.records)
	}
	if err := (&world{}).against(t, &server{}, "--template-file", file); !strings.Contains(err, `cannot change pool "lab": there is none of that name`) {
		t.Error(err)
	}
}

// A pool that somebody made by hand changes only after a yes, or with a word about it.
func TestDeployOver(t *testing.T) {
	t.Parallel()
	file := write(t, `{"contentVersion": "1.0.0.0", "resources": [{"type": "Microsoft.Compute/virtualMachineScaleSets", "name": "lab", "sku": {"name": "Standard_B1s", "capacity": 1},
		"properties": {"virtualMachineProfile": {"osProfile": {}}}}]}`)
	there := map[string]shoal.Pool{"lab": {Name: "lab"}}
	const asks = "pool lab is there already, made by no deployment; shall it change (size.max: 8 → 1)? [y/N] "
	for name, c := range map[string]struct {
		typed   string
		records []api.Deployment
		refused bool
		told    string
	}{
		"nobody to ask": {"", nil, false, "pool lab was there already, made by no deployment, and is changed: size.max: 8 → 1"},
		"yes":           {"yes\n", nil, false, asks},
		"no":            {"n\n", nil, true, asks},
		"ours":          {"n\n", []api.Deployment{{Changes: []api.Change{{Kind: shoal.ObjectPool, Name: "lab"}}}}, false, ""},
	} {
		s := &server{pools: there, records: c.records}
		w := &world{typed: c.typed}
		err := w.against(t, s, "--template-file", file)
		if (err != "") != c.refused || len(s.applied) != 2 && !c.refused || len(s.applied) != 1 && c.refused || c.told == "" && strings.Contains(w.err.String(), "pool lab is there") {
			t.Errorf("%s: %s, %d: %s", name, err, len(s.applied), w.err.String())
		}
		has(t, name, w.err.String(), c.told)
	}
}

// gate is where ssh goes.
func gate(context.Context, *client.Client, string, string) (host, port string, err error) {
	return "pool.example", "2222", nil
}
