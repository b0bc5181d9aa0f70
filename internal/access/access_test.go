package access_test

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/access"
)

var update = flag.Bool("update", false, "write the golden file")

func kinds() []shoal.ObjectKind {
	return []shoal.ObjectKind{shoal.ObjectPool, shoal.ObjectMachine, shoal.ObjectShare, shoal.ObjectGroup, shoal.ObjectUser,
		shoal.ObjectSession, shoal.ObjectApp, shoal.ObjectJob, access.ObjectUsage, access.ObjectServer, access.ObjectImage, access.ObjectDesktop, access.ObjectDeployment, access.ObjectGateway}
}

var subjects = []struct {
	name string
	access.Subject
}{
	{"nobody", access.Subject{}},
	{"stranger", access.Subject{User: "bob", Role: shoal.RoleMember}},
	{"fellow", access.Subject{User: "carol", Role: shoal.RoleMember, Groups: []shoal.GroupName{"research"}}},
	{"owner", access.Subject{User: "alice", Role: shoal.RoleMember}},
	{"ownerInMachine", access.Subject{User: "alice", Role: shoal.RoleAdmin, Machine: "m-1"}},
	{"operator", access.Subject{User: "oscar", Role: shoal.RoleOperator}},
	{"adminInMachine", access.Subject{User: "ada", Role: shoal.RoleAdmin, Machine: "m-1"}},
	{"ownerInBrowser", access.Subject{User: "alice", Role: shoal.RoleAdmin, Browser: true}},
	{"adminInBrowser", access.Subject{User: "ada", Role: shoal.RoleAdmin, Browser: true}},
	{"admin", access.Subject{User: "ada", Role: shoal.RoleAdmin}},
	{"host", access.Subject{Host: true}},
	{"hub", access.Subject{Service: access.ServiceHub}},
	{"gateway", access.Subject{Service: access.ServiceGateway, Gateway: "x"}},
	{"otherGateway", access.Subject{Service: access.ServiceGateway, Gateway: "y"}},
}

// TestEverything writes down the answer for every subject, action and kind.
func TestEverything(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	for _, k := range kinds() {
		for _, a := range access.Actions() {
			var yes, hidden []string
			for _, s := range subjects {
				o := access.Object{Kind: k, Name: "x", Owner: "alice", Fellows: []shoal.GroupName{"research"}}
				d := access.Decide(s.Subject, a, o)
				if d.Rule == "" {
					t.Errorf("%s %s %s: no rule", s.name, a, k)
				}
				err := access.Check(s.Subject, a, o)
				switch {
				case d.Allowed:
					yes = append(yes, s.name)
					if err != nil {
						t.Errorf("%s %s %s: allowed, and %v", s.name, a, k, err)
					}
				case d.Hidden:
					hidden = append(hidden, s.name)
					if shoal.KindOf(err) != shoal.KindNotFound {
						t.Errorf("%s %s %s: hidden, and %v", s.name, a, k, err)
					}
				case shoal.KindOf(err) != shoal.KindDenied || shoal.HintOf(err) == "":
					t.Errorf("%s %s %s: denied, and %v", s.name, a, k, err)
				}
			}
			if len(yes) > 0 {
				fmt.Fprintf(&b, "%s a %s: %s\n    hidden from: %s\n", a, strings.ToLower(string(k)), strings.Join(yes, ", "), strings.Join(hidden, ", "))
			}
		}
	}
	const golden = "testdata/table.golden"
	if *update {
		if err := os.WriteFile(golden, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), b.String()); diff != "" {
		t.Error(diff)
	}
}

// TestMembersRights: through a machine, and in a browser, no role gives more than a member has.
func TestMembersRights(t *testing.T) {
	t.Parallel()
	membersRights(t, access.Subject{User: "alice", Role: shoal.RoleMember, Machine: "m-1"})
	membersRights(t, access.Subject{User: "alice", Role: shoal.RoleMember, Browser: true})
}

func membersRights(t *testing.T, member access.Subject) {
	t.Helper()
	for _, role := range []shoal.Role{shoal.RoleMember, shoal.RoleOperator, shoal.RoleAdmin, "unheard-of"} {
		s := member
		s.Role = role
		for _, k := range kinds() {
			for _, a := range access.Actions() {
				for _, owner := range []shoal.UserName{"", "alice", "bob"} {
					o := access.Object{Kind: k, Name: "x", Owner: owner}
					if got, want := access.Decide(s, a, o), access.Decide(member, a, o); got != want {
						t.Errorf("%s: %s %+v: %+v, want %+v", role, a, o, got, want)
					}
				}
			}
		}
	}
}

// TestDesktopHint: who asks on a machine is told how she gets there.
func TestDesktopHint(t *testing.T) {
	t.Parallel()
	alice := access.Subject{User: "alice", Machine: "m-1"}
	err := access.Check(alice, access.Open, access.Object{Kind: access.ObjectDesktop, Owner: "alice"})
	if hint := shoal.HintOf(err); shoal.KindOf(err) != shoal.KindDenied || !strings.HasPrefix(hint, "its owner, except through a machine, may open a desktop; ") ||
		!strings.Contains(hint, "`shoal web`") || !strings.Contains(hint, "`shoal login`") {
		t.Errorf("%v: %s", err, hint)
	}
}

func TestEvents(t *testing.T) {
	t.Parallel()
	alice := access.Subject{User: "alice", Groups: []shoal.GroupName{"research"}}
	operator := access.Subject{User: "oscar", Role: shoal.RoleOperator}
	for _, c := range []struct {
		event shoal.Event
		alice bool
	}{
		{shoal.Event{Kind: shoal.ObjectPool, Name: "lab"}, true},
		{shoal.Event{Kind: shoal.ObjectMachine, Pool: "lab"}, true},
		{shoal.Event{Kind: shoal.ObjectMachine, Pool: "lab", User: "bob"}, false},
		{shoal.Event{Kind: shoal.ObjectJob, User: "alice"}, true},
		{shoal.Event{Kind: shoal.ObjectJob, User: "bob"}, false},
		{shoal.Event{Kind: shoal.ObjectUser, Name: "bob"}, false},
		{shoal.Event{Kind: shoal.ObjectJob}, false},
		{shoal.Event{Kind: shoal.ObjectGroup, Name: "research", Code: "budgetWarning"}, true},
		{shoal.Event{Kind: shoal.ObjectGroup, Name: "other", Code: "budgetWarning"}, false},
		{shoal.Event{Kind: shoal.ObjectGroup, Name: "research", User: "bob"}, false},
	} {
		if got := access.SeesEvent(alice, c.event); got != c.alice {
			t.Errorf("%+v: %v", c.event, got)
		}
		if !access.SeesEvent(operator, c.event) {
			t.Errorf("%+v is hidden from operators", c.event)
		}
		if access.SeesEvent(access.Subject{}, c.event) {
			t.Errorf("%+v is shown to nobody in particular", c.event)
		}
	}
}
