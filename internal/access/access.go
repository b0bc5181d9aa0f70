// Package access decides who may do what. One table says it all; every decision
// names the line that made it. It is pure: it looks at nothing but its arguments.
//
// Whoever asks is a Subject: the host itself (root at the server's own socket, or
// the holder of the admin token), a user, or a user whose request a machine's agent
// relayed, who there has a member's rights whatever her role is.
package access

import (
	"fmt"
	"slices"
	"strings"

	"github.com/shoal-pool/shoal"
)

// Subject is who asks.
type Subject struct {
	// Host is root on the server's host, or the holder of the admin token. It may do everything
	// except what only a person can: it has no home to run jobs from.
	Host   bool
	User   shoal.UserName
	Role   shoal.Role
	Groups []shoal.GroupName
	// Machine is set if the request came through that machine's agent.
	Machine shoal.MachineID
	// Service names a part of Shoal's own that holds a token for its one purpose, as ServiceHub; then there is no User.
	Service string
	// Gateway is the name of the gateway that asks, if Service is ServiceGateway.
	Gateway string
	// Browser: it came with a browser's cookie, and the user has not confirmed this very request. Pages of hers
	// in the same browser could have sent it, a notebook's for one.
	Browser bool
}

const (
	// ServiceHub is JupyterHub, which starts notebook servers for everybody.
	ServiceHub = "hub"
	// ServiceGateway is a gateway that is a process of its own.
	ServiceGateway = "gateway"
)

// Rights is the role that counts: through a machine, and in a browser without confirmation, everybody is a member.
func (s Subject) Rights() shoal.Role {
	switch {
	case s.Host:
		return shoal.RoleAdmin
	case s.Machine != "" || s.Browser || s.Service != "" || s.Role == "":
		return shoal.RoleMember
	}
	return s.Role
}

func (s Subject) String() string {
	switch {
	case s.Host:
		return "the host"
	case s.Service != "":
		return "the " + s.Service
	case s.Machine != "":
		return fmt.Sprintf("%s on machine %s", s.User, s.Machine)
	}
	return string(s.User)
}

// Action is what is to be done.
type Action string

// The actions. View is to list and show, and to ask why.
const (
	View        Action = "see"
	Output      Action = "read the output of"
	Apply       Action = "create or change"
	Delete      Action = "delete"
	Scale       Action = "scale"
	Drain       Action = "drain"
	End         Action = "end"
	KeepAwake   Action = "keep awake"
	Submit      Action = "submit"
	Cancel      Action = "cancel"
	SetPassword Action = "set the password of"
	ActAs       Action = "act as"
	Open        Action = "open"
	TellUse     Action = "tell the use of"
	Reveal      Action = "read the value of"
	Carry       Action = "let people in through"
)

// Actions are all of them.
func Actions() []Action {
	return []Action{View, Output, Apply, Delete, Scale, Drain, End, KeepAwake, Submit, Cancel, SetPassword, ActAs, Open, TellUse, Reveal, Carry}
}

// What can be acted on beside the objects of the vocabulary.
const (
	ObjectUsage   shoal.ObjectKind = "Usage"
	ObjectServer  shoal.ObjectKind = "Server"  // its metrics
	ObjectImage   shoal.ObjectKind = "Image"   // kept by a provider
	ObjectDesktop shoal.ObjectKind = "Desktop" // the way to one's own
	// ObjectDeployment is what is on record of a template.
	ObjectDeployment shoal.ObjectKind = "Deployment"
	ObjectGateway    shoal.ObjectKind = "Gateway" // one that is a process of its own
)

// Object is what something is to be done to.
type Object struct {
	Kind  shoal.ObjectKind
	Name  string
	Owner shoal.UserName // whose it is; empty: nobody's
	// Fellows are the groups whose members the owner lets see it.
	Fellows []shoal.GroupName
}

// who is a way of being entitled.
type who string

const (
	anyone    who = "everybody"
	owner     who = "whose it is"
	atHome    who = "its owner, except through a machine,"
	fellow    who = "fellow members of a group it is shared with"
	unseen    who = "whose it is or is shared with, but not through a browser"
	person    who = "users" // not the host
	hub       who = "the hub"
	itself    who = "the gateway itself"
	operators who = "operators"
	admins    who = "admins"
)

// rule is one line of the table.
type rule struct {
	kind   shoal.ObjectKind
	action Action
	who    []who
}

// table is who may do what. What is not in it nobody may do.
var table = []rule{
	{shoal.ObjectPool, View, []who{anyone, hub}},
	{shoal.ObjectPool, Scale, []who{operators}},
	{shoal.ObjectPool, Apply, []who{admins}},
	{shoal.ObjectPool, Delete, []who{admins}},

	{shoal.ObjectMachine, View, []who{anyone}},
	{shoal.ObjectMachine, Drain, []who{operators}},
	{shoal.ObjectMachine, Delete, []who{operators}},

	{shoal.ObjectShare, View, []who{anyone}},
	{shoal.ObjectShare, Apply, []who{admins}},
	{shoal.ObjectShare, Delete, []who{admins}},

	{shoal.ObjectGroup, View, []who{anyone}},
	{shoal.ObjectGroup, Apply, []who{admins}},
	{shoal.ObjectGroup, Delete, []who{admins}},

	{shoal.ObjectUser, View, []who{owner, operators, hub}},
	{shoal.ObjectUser, Apply, []who{admins}},
	{shoal.ObjectUser, Delete, []who{admins}},
	{shoal.ObjectUser, SetPassword, []who{atHome, admins}},
	{shoal.ObjectUser, ActAs, []who{admins}},

	{shoal.ObjectSession, View, []who{owner, operators}},
	{shoal.ObjectSession, End, []who{owner, operators}},
	{shoal.ObjectSession, KeepAwake, []who{owner, operators}},

	{shoal.ObjectJob, View, []who{owner, fellow, operators}},
	{shoal.ObjectJob, Output, []who{owner, fellow, admins}},
	{shoal.ObjectJob, Submit, []who{person}},
	{shoal.ObjectJob, Cancel, []who{owner, operators}},

	{shoal.ObjectApp, View, []who{owner, operators, hub}},
	{shoal.ObjectApp, Open, []who{owner, hub}},
	{shoal.ObjectApp, TellUse, []who{owner, hub}},
	{shoal.ObjectApp, End, []who{owner, operators, hub}},

	{ObjectDesktop, Open, []who{atHome}},

	{ObjectImage, View, []who{anyone}},
	{ObjectImage, Apply, []who{admins}},
	{ObjectImage, Delete, []who{admins}},

	{ObjectDeployment, View, []who{admins}},
	{ObjectDeployment, Apply, []who{admins}},

	{shoal.ObjectSecret, View, []who{owner, fellow, admins}},
	{shoal.ObjectSecret, Apply, []who{owner, admins}},
	{shoal.ObjectSecret, Delete, []who{owner, admins}},
	{shoal.ObjectSecret, Reveal, []who{unseen}},

	{ObjectGateway, View, []who{operators}},
	{ObjectGateway, Apply, []who{admins}},
	{ObjectGateway, Delete, []who{admins}},
	{ObjectGateway, Carry, []who{itself}},

	{ObjectUsage, View, []who{owner, operators}},
	{ObjectServer, View, []who{operators}},
}

// Decision is an answer with the line of the table that gave it.
type Decision struct {
	Allowed bool
	Rule    string // "operators may drain machines"
	// Hidden: the subject may not even know whether the object exists.
	Hidden bool
}

// Decide says whether a subject may do something to an object.
func Decide(s Subject, a Action, o Object) Decision {
	i := slices.IndexFunc(table, func(r rule) bool { return r.kind == o.Kind && r.action == a })
	if i < 0 {
		return Decision{Rule: fmt.Sprintf("nobody may %s %s", a, one(o.Kind)), Hidden: hidden(s, o)}
	}
	r := table[i]
	for _, w := range r.who {
		if w.holds(s, o) {
			return Decision{Allowed: true, Rule: r.say(w)}
		}
	}
	return Decision{Rule: r.say(r.who...), Hidden: hidden(s, o)}
}

// hidden reports whether an object may not even be seen.
func hidden(s Subject, o Object) bool {
	i := slices.IndexFunc(table, func(r rule) bool { return r.kind == o.Kind && r.action == View })
	return i < 0 || !slices.ContainsFunc(table[i].who, func(w who) bool { return w.holds(s, o) })
}

func (w who) holds(s Subject, o Object) bool {
	owns := !s.Host && s.User != "" && s.User == o.Owner
	switch w {
	case anyone:
		return s.Host || s.User != ""
	case owner:
		return owns
	case atHome:
		return owns && s.Machine == "" && !s.Browser
	case fellow:
		return !s.Host && s.User != "" && slices.ContainsFunc(s.Groups, func(g shoal.GroupName) bool { return slices.Contains(o.Fellows, g) })
	case unseen:
		return !s.Browser && (owns || fellow.holds(s, o))
	case hub:
		return s.Service == ServiceHub
	case itself:
		return s.Service == ServiceGateway && s.Gateway != "" && s.Gateway == o.Name
	case person:
		return !s.Host && s.User != ""
	case operators:
		return s.Rights() == shoal.RoleOperator || s.Rights() == shoal.RoleAdmin
	case admins:
		return s.Rights() == shoal.RoleAdmin
	}
	return false
}

// say tells a line of the table, as far as it bears on some of those it entitles.
func (r rule) say(entitled ...who) string {
	words := make([]string, len(entitled))
	for i, w := range entitled {
		words[i] = string(w)
	}
	return fmt.Sprintf("%s may %s %s", strings.Join(words, " and "), r.action, one(r.kind))
}

// one is a kind with its article.
func one(k shoal.ObjectKind) string {
	noun := strings.ToLower(string(k))
	if strings.HasPrefix(noun, "i") || strings.HasPrefix(noun, "a") {
		return "an " + noun
	}
	return "a " + noun
}

// Check is Decide as an error: nil, KindDenied with the rule, or KindNotFound where the subject may
// not know that the object exists.
func Check(s Subject, a Action, o Object) error {
	d := Decide(s, a, o)
	noun := strings.ToLower(string(o.Kind))
	switch {
	case d.Allowed:
		return nil
	case d.Hidden && o.Name != "":
		return Missing(o)
	case a == Submit && s.Host:
		return shoal.Errorf(shoal.KindDenied, "cannot submit a job as the host: a job runs as a user").
			WithHint("sign in as one with `shoal login`, or add --as USER")
	case o.Name == "":
		return shoal.Errorf(shoal.KindDenied, "%s may not %s %s", s, a, plural(noun)).WithHint("%s", hint(s, a, o, d))
	}
	return shoal.Errorf(shoal.KindDenied, "%s may not %s %s %s", s, a, noun, o.Name).WithHint("%s", hint(s, a, o, d))
}

// ConfirmHint says how a request from a browser is confirmed.
const ConfirmHint = "POST its method and path with your password to /api/v1/web/step-up, and send it again with the token in the header Shoal-Step-Up"

// hint is the rule, and for one whose role would do that it counts for nothing on a machine.
func hint(s Subject, a Action, o Object, d Decision) string {
	if s.Machine != "" {
		s.Machine = ""
		if Decide(s, a, o).Allowed {
			if o.Kind == ObjectDesktop {
				return d.Rule + "; on a machine run `shoal web`: the page that it leads to has a button for it. Or do this where you are logged in with `shoal login`"
			}
			return d.Rule + "; on a machine everybody has a member's rights, so do this where you are logged in with `shoal login`"
		}
	}
	if s.Browser {
		s.Browser = false
		if Decide(s, a, o).Allowed {
			return d.Rule + "; in a browser everybody has a member's rights until she confirms the request: " + ConfirmHint
		}
	}
	return d.Rule
}

// Missing is the error for an object that is not there, in the store's words: it reads the same
// whether the object is absent or hidden.
func Missing(o Object) error {
	return shoal.Errorf(shoal.KindNotFound, "no %s %q", strings.ToLower(string(o.Kind)), o.Name)
}

func plural(noun string) string {
	switch noun {
	case "usage":
		return "everybody's usage"
	case "server":
		return "the server's figures"
	}
	return noun + "s"
}

// Everybody reports whether a subject sees all objects of a kind, whoever owns them. Otherwise
// she sees her own, and those of others that Decide allows.
func Everybody(s Subject, k shoal.ObjectKind) bool {
	return Decide(s, View, Object{Kind: k}).Allowed
}

// SeesEvent reports whether an event is for a subject: her own, one about a group of hers, a pool's or a machine's that names
// nobody, and for operators all.
func SeesEvent(s Subject, e shoal.Event) bool {
	switch {
	case operators.holds(s, Object{}):
		return true
	case e.User != "":
		return owner.holds(s, Object{Owner: e.User})
	case e.Kind == shoal.ObjectGroup: // its budget, for one, is spent for all of them
		return fellow.holds(s, Object{Fellows: []shoal.GroupName{shoal.GroupName(e.Name)}})
	}
	public := e.Kind == shoal.ObjectPool || e.Kind == shoal.ObjectMachine && e.Pool != ""
	return public && anyone.holds(s, Object{})
}
