package deploy

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/client"
	"github.com/shoal-pool/shoal/internal/arm"
	"github.com/shoal-pool/shoal/internal/arm/translate"
	"github.com/shoal-pool/shoal/internal/arm/tree"
)

// work is a deployment while it is carried out.
type work struct {
	Env
	*deployment
	c      *client.Client
	server string
	ask    bool // somebody may be asked
	req    api.ApplyRequest
	set    []translate.Password // those that are to be set
	told   []string             // notes of our own
	tried  []string             // secrets that are kept already
	users  []shoal.UserName     // whom the template names
}

// deploy makes what a template describes: first everything is checked, then secrets are kept, then all objects are made
// in one request, then passwords are set. Whatever of it fails, deploying again goes on from there.
func (env Env) deploy(ctx context.Context, o options, d *deployment, format string) error {
	c, server, err := env.Connect()
	if err != nil {
		return err
	}
	w := &work{Env: env, deployment: d, c: c, server: server, ask: !o.noPrompt && env.Terminal(),
		req: api.ApplyRequest{Shares: d.Set.Shares, Pools: d.Set.Pools}}
	for _, n := range d.Notes {
		env.Note("%s", n)
	}
	if err := w.prepare(ctx); err != nil {
		return err
	}
	rec := w.record(o)
	result, err := w.make(ctx)
	rec.Changes = result.Changes
	if err == nil {
		rec.Access = w.access(ctx)
	} else {
		rec.Failed = d.clean(err.Error())
	}
	for _, n := range w.told {
		env.Note("%s", n)
		rec.Notes = append(rec.Notes, n)
	}
	kept, keepErr := c.PutDeployment(ctx, rec)
	switch {
	case err != nil:
		return err
	case keepErr != nil:
		return shoal.Errorf(shoal.KindOf(keepErr), "everything is made, but the deployment is not on record: %w", keepErr).WithHint("deploy again")
	case format != "table":
		return env.Data(format, kept)
	}
	for _, c := range rec.Changes {
		w.say("%s %s %s", strings.ToLower(string(c.Kind)), c.Name, c.Action)
		for _, d := range c.Diff {
			w.say("  %s", d)
		}
	}
	for _, s := range rec.Secrets {
		w.say("secret %s kept", s)
	}
	for _, p := range w.set {
		w.say("password of %s set", p.User)
	}
	for _, o := range d.Outputs {
		w.say("output %s: %s", o.Name, w.safe(o.Value))
	}
	for _, a := range rec.Access {
		w.say("log in: %s", a)
	}
	return nil
}

func (env Env) say(format string, args ...any) {
	fmt.Fprintln(env.Out, env.Clean(fmt.Sprintf(format, args...)))
}

// prepare finds what there is already, and what is wrong before anything is made.
func (w *work) prepare(ctx context.Context) error {
	for _, s := range w.Secrets {
		if err := real("secret "+s.Name, s.Value); err != nil {
			return err
		}
	}
	if len(w.Secrets) > 0 {
		me, err := w.c.Whoami(ctx)
		if err != nil {
			return err
		}
		if me.User != "" {
			return shoal.Errorf(shoal.KindDenied, "cannot keep secret %q, which a share needs: the site's own secrets are kept by root on the server's host, and you are %s", w.Secrets[0].Name, me.User).
				WithHint("deploy there with sudo, or take the share from elsewhere: --share NAME=SOURCE")
		}
	}
	for _, u := range w.Set.Users {
		if err := w.user(ctx, u); err != nil {
			return err
		}
	}
	for _, p := range w.Passwords {
		if err := w.password(ctx, p); err != nil {
			return err
		}
	}
	for _, c := range w.Changes {
		if err := w.change(ctx, c); err != nil {
			return err
		}
	}
	return w.try(ctx)
}

// try asks the server whether all could be made. It mounts the shares for that, so their secrets are kept before; new ones
// go again if it cannot.
func (w *work) try(ctx context.Context) (err error) {
	var known []shoal.Secret
	if len(w.Secrets) > 0 {
		if known, err = w.c.Secrets(ctx); err != nil {
			return err
		}
	}
	for _, s := range w.Secrets {
		name := shoal.SecretName(s.Name)
		if slices.ContainsFunc(known, func(k shoal.Secret) bool { return k.Name == name }) {
			continue // what has it mounted goes on with its value until all is well
		}
		if err := w.keep(ctx, s); err != nil {
			return err
		}
		w.tried = append(w.tried, s.Name)
		defer func() {
			if err != nil {
				err = errors.Join(err, w.c.RemoveSecret(context.WithoutCancel(ctx), name))
			}
		}()
	}
	dry := w.req
	dry.DryRun = true
	result, err := w.c.Apply(ctx, dry)
	if err != nil {
		return w.placed(err)
	}
	return w.foreign(ctx, result)
}

func (w *work) keep(ctx context.Context, s translate.Secret) error {
	_, err := w.c.SetSecret(ctx, shoal.SecretName(s.Name), api.SetSecret{Value: []byte(s.Value.Text())})
	return err
}

// foreign asks before a pool changes that no deployment has made.
func (w *work) foreign(ctx context.Context, result api.ApplyResult) error {
	var known []string
	for _, c := range result.Changes {
		named := slices.ContainsFunc(w.Set.Pools, func(p shoal.Pool) bool { return string(p.Name) == c.Name })
		if c.Kind != shoal.ObjectPool || c.Action != "changed" || !named {
			continue
		}
		if known == nil {
			all, err := w.c.Deployments(ctx)
			if err != nil {
				return err
			}
			known = []string{""}
			for _, d := range all {
				known = append(known, d.Pools()...)
			}
		}
		switch {
		case slices.Contains(known, c.Name):
		case !w.ask:
			w.tell("pool %s was there already, made by no deployment, and is changed: %s", c.Name, strings.Join(c.Diff, "; "))
		case !w.confirm("pool %s is there already, made by no deployment; shall it change (%s)", c.Name, strings.Join(c.Diff, "; ")):
			return shoal.Errorf(shoal.KindConflict, "pool %s is there already, and nothing was made", c.Name).WithHint("give the template's pool another name, by the parameter that says it")
		}
	}
	return nil
}

// placed says where in the template that is which a server refuses.
func (w *work) placed(err error) error {
	mistakes := shoal.MistakesOf(err)
	shares, large := false, false
	for i := range mistakes {
		m := &mistakes[i]
		if at, ok := w.Place(m.Path); ok && m.File == "" {
			m.File, m.Line, m.Column = at.File, at.Line, at.Column
		}
		large = large || strings.Contains(m.Msg, "larger than") || strings.Contains(m.Msg, "size.min need")
		shares = shares || len(w.Set.Shares) > 0 && strings.Contains(m.Msg, "share")
	}
	if large {
		w.Note("machines may have less than their size in the cloud: --most CPUS,MEMORY[,GPUS]")
	}
	if shares {
		w.Note("a share of the template's may be elsewhere here: --share NAME=SOURCE says where")
	}
	return err
}

// real refuses a secret that everybody knows, since it stands in a published file.
func real(what string, v *tree.Value) error {
	if !arm.Placeholder(v.Text()) {
		return nil
	}
	return shoal.Errorf(shoal.KindInvalid, "cannot use the value of the %s: it is the placeholder that stands in the published file", what).
		WithHint("give your own: KEY=@FILE, KEY=env:NAME, or leave it out to be asked")
}

// there returns a user who is there already.
func (w *work) there(ctx context.Context, name shoal.UserName) (shoal.User, bool, error) {
	u, err := w.c.User(ctx, name)
	if shoal.KindOf(err) == shoal.KindNotFound {
		return u, false, nil
	}
	return u, err == nil, err
}

// user adds a template's user. One who is there keeps her role, her groups and her keys, and gets the template's keys as well.
func (w *work) user(ctx context.Context, u shoal.User) error {
	w.users = append(w.users, u.Name)
	was, there, err := w.there(ctx, u.Name)
	if err != nil {
		return err
	}
	if !there {
		w.req.Users = append(w.req.Users, u)
		return nil
	}
	more := 0
	for _, k := range u.Keys {
		if !slices.ContainsFunc(was.Keys, func(old string) bool { return bare(old) == bare(k) }) {
			was.Keys = append(was.Keys, k)
			more++
		}
	}
	if more > 0 {
		if was.Role == shoal.RoleAdmin || was.Role == shoal.RoleOperator {
			if !w.confirm("user %s is there already, as %s; shall the template's key open her account, too", u.Name, was.Role) {
				w.tell("user %s is there already, as %s: the template's key is left out. `shoal apply` adds keys", u.Name, was.Role)
				return nil
			}
		}
		w.tell("user %s is there already: she keeps her role, groups and keys, and gets the template's key", u.Name)
		w.req.Users = append(w.req.Users, was) // its revision is checked
	}
	return nil
}

// bare is a key without its comment.
func bare(line string) string {
	fields := strings.Fields(line)
	return strings.Join(fields[:min(len(fields), 2)], " ")
}

// password sets a user's first password. One who has one keeps it, unless somebody says otherwise.
func (w *work) password(ctx context.Context, p translate.Password) error {
	if err := real("password of "+string(p.User), p.Value); err != nil {
		return err
	}
	was, there, err := w.there(ctx, p.User)
	if err != nil {
		return err
	}
	inSet := slices.ContainsFunc(w.req.Users, func(u shoal.User) bool { return u.Name == p.User })
	if !slices.Contains(w.users, p.User) {
		w.users = append(w.users, p.User)
	}
	privileged := was.Role == shoal.RoleAdmin || was.Role == shoal.RoleOperator
	switch {
	case !there && !inSet:
		w.req.Users = append(w.req.Users, shoal.User{Name: p.User})
	case there && was.HasPassword && !w.confirm("user %s has a password already; shall it become the template's", p.User):
		w.tell("user %s has a password already, and keeps it; `shoal user passwd %s` sets another", p.User, p.User)
		return nil
	case there && !was.HasPassword && privileged && !w.confirm("user %s is there already, as %s, without a password; shall she get the template's", p.User, was.Role):
		w.tell("user %s is there already, as %s, without a password, and gets none; `shoal user passwd %s` sets one", p.User, was.Role, p.User)
		return nil
	}
	w.set = append(w.set, p)
	return nil
}

// change changes a pool of this template's, or one that is there.
func (w *work) change(ctx context.Context, c translate.Change) error {
	i := slices.IndexFunc(w.req.Pools, func(p shoal.Pool) bool { return p.Name == c.Pool })
	if i < 0 {
		p, err := w.c.Pool(ctx, c.Pool)
		if shoal.KindOf(err) == shoal.KindNotFound {
			return shoal.Errorf(shoal.KindNotFound, "%s:%d:%d: cannot change pool %q: there is none of that name", c.At.File, c.At.Line, c.At.Column, c.Pool).
				WithHint("a scale set without virtualMachineProfile changes the pool of its name; `shoal pool list` shows those there are")
		}
		if err != nil {
			return err
		}
		w.req.Pools = append(w.req.Pools, p) // its revision is checked
		i = len(w.req.Pools) - 1
	}
	if c.Size != nil {
		w.req.Pools[i].Size.Min, w.req.Pools[i].Size.Max = c.Size.Min, c.Size.Max
	}
	if c.Machine != nil {
		w.req.Pools[i].Machine = *c.Machine
	}
	return nil
}

// make makes it all.
func (w *work) make(ctx context.Context) (result api.ApplyResult, err error) {
	for _, s := range w.Secrets {
		if slices.Contains(w.tried, s.Name) {
			continue
		}
		if err := w.keep(ctx, s); err != nil {
			return result, err
		}
	}
	if result, err = w.c.Apply(ctx, w.req); err != nil {
		return result, w.placed(err)
	}
	for _, p := range w.set {
		if err := w.c.SetPassword(ctx, p.User, p.Value.Text()); err != nil {
			return result, shoal.Errorf(shoal.KindOf(err), "the pools are made, but user %s has no password: %w", p.User, err).
				WithHint("`shoal user passwd %s` sets one", p.User)
		}
	}
	return result, nil
}

// confirm asks for a yes. Where nobody can be asked it is a no.
func (w *work) confirm(format string, args ...any) bool {
	if !w.ask {
		return false
	}
	fmt.Fprint(w.Err, w.Clean(fmt.Sprintf(format, args...))+"? [y/N] ")
	text, err := w.in.ReadString('\n')
	text = strings.ToLower(strings.TrimSpace(text))
	return err == nil && (text == "y" || text == "yes")
}

func (w *work) tell(format string, args ...any) {
	w.told = append(w.told, fmt.Sprintf(format, args...))
}

// access are the commands by which people get in.
func (w *work) access(ctx context.Context) []string {
	host, port, err := w.Gate(ctx, w.c, w.server, w.Getenv("SHOAL_GATEWAY"))
	if err != nil || len(w.req.Pools) == 0 {
		return nil
	}
	users := w.users
	if len(users) == 0 {
		users = []shoal.UserName{"USER"}
	}
	var all []string
	web := false
	for _, p := range w.req.Pools {
		for _, u := range users {
			all = append(all, fmt.Sprintf("ssh -p %s %s+%s@%s", port, u, p.Name, host))
		}
		for _, e := range p.Endpoints {
			web = web || e.Protocol == "http"
			if e.Protocol == "rdp" {
				all = append(all, "shoal desktop "+string(p.Name))
			}
		}
	}
	if web {
		all = append(all, "shoal web")
	}
	return all
}

// record is what is kept of the deployment: no secret, and nothing that is a secret elsewhere in the template.
func (w *work) record(o options) api.Deployment {
	r := api.Deployment{Name: recordName(w.name), Group: o.group, Location: o.location, Template: w.template, Parameters: map[string]string{}, Outputs: map[string]string{}}
	for _, u := range w.evaluated.Used {
		if v := w.kept(u.Value); v != tree.HiddenText {
			r.Parameters[u.Name] = v
		} else {
			r.Secure = append(r.Secure, u.Name)
		}
	}
	for _, out := range w.Outputs {
		r.Outputs[out.Name] = w.kept(out.Value)
	}
	for _, s := range w.Secrets {
		r.Secrets = append(r.Secrets, s.Name)
	}
	for _, n := range w.Notes {
		r.Notes = append(r.Notes, tree.Clip(w.clean(n.String()), maxKept))
	}
	return r
}

// maxKept bounds a value that is on record.
const maxKept = 500

// kept is a value as it goes on record.
func (d *deployment) kept(v *tree.Value) string { return tree.Clip(d.safe(v), maxKept) }

// safe is a value as it may be shown.
func (d *deployment) safe(v *tree.Value) string { return d.clean(shown(v)) }

// clean takes secrets out of a text. Old templates have passwords in parameters that are not marked as secret.
func (d *deployment) clean(text string) string {
	text = d.evaluated.Redact(text)
	for _, p := range d.Passwords {
		text = without(text, p.Value.Text())
	}
	for _, s := range d.Secrets {
		text = without(text, s.Value.Text())
	}
	return text
}

func without(text, secret string) string {
	const tellable = 6 // a shorter one stands in all sorts of words
	switch {
	case text == secret:
		return tree.HiddenText
	case len(secret) < tellable:
		return text
	}
	return strings.ReplaceAll(text, secret, tree.HiddenText)
}

var notInRecord = regexp.MustCompile(`[^A-Za-z0-9._()-]+`)

// recordName is a deployment's name as az would take it.
func recordName(s string) string {
	if u, err := url.Parse(s); err == nil && u.Scheme != "" {
		s = u.Path
	}
	const limit = 64
	s = strings.Trim(notInRecord.ReplaceAllString(s, "-"), "-.")
	if s == "" {
		return "deployment"
	}
	return s[:min(len(s), limit)]
}
