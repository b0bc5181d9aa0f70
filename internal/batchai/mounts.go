package batchai

import (
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/spec"
	"github.com/shoal-pool/shoal/internal/spec/naming"
)

// Place is a directory of a share: where a mount of the file is found here.
type Place struct {
	Share shoal.ShareName
	Path  string // from the root of the share, beginning with /
}

var (
	placeForm = regexp.MustCompile(`^([a-z][a-z0-9-]{0,31}):(/.*)$`)
	underRoot = regexp.MustCompile(`\$\{?AZ_BATCHAI_(JOB_)?MOUNT_ROOT\}?((?:/[A-Za-z0-9._-]+)*)`)
)

// ParsePlace reads SHARE:/PATH.
func ParsePlace(s string) (Place, error) {
	m := placeForm.FindStringSubmatch(s)
	if m == nil || path.Clean(m[2]) != m[2] {
		return Place{}, shoal.Errorf(shoal.KindInvalid, "cannot read %q as a directory of a share", clip(s)).WithHint("write SHARE:/PATH, as in team:/logs")
	}
	return Place{shoal.ShareName(m[1]), m[2]}, nil
}

// String is the form that ParsePlace reads, and that a JobSpec has for a directory.
func (p Place) String() string { return string(p.Share) + ":" + p.Path }

// Everything is the name under which a table of shares holds where all mounts are that it does not name.
const Everything = "*"

// ClusterRoot is where a pool that was a cluster has its mounts.
const ClusterRoot = "/mnt/batchai"

// roots are the two directories below which a job finds its mounts: name below it → place, which is
// SHARE:/PATH or an absolute path.
type roots struct{ job, cluster map[string]string }

// mapped finds where a mount is by the user's table: by its name below the root, or Azure's for it.
func (r *reading) mapped(names ...string) (string, bool) {
	for _, name := range names {
		if p, ok := r.options.Shares[name]; ok && name != "" {
			r.used[name] = true
			return p.String(), true
		}
	}
	p, ok := r.options.Shares[Everything]
	if !ok {
		return "", false
	}
	p.Path = path.Join(p.Path, names[0])
	return p.String(), true
}

// volume is one mount of a file.
type volume struct {
	name   string // below the root
	at     place
	path   string       // of its object in the file
	mapped string       // where the user's table has it; empty: nowhere
	share  *shoal.Share // what it becomes where it is not mapped; nil: nothing can be made of it
}

// volumes reads a list of mounts. Those of which nothing can be made are mistakes, or left out.
func (r *reading) volumes(m *mountVolumes, at string) []volume {
	if m == nil {
		return nil
	}
	var all []volume
	add := func(kind string, i int, where place, below text, azure, source string) *volume {
		v := volume{name: strings.Trim(path.Clean("/"+below.s), "/"), at: where, path: fmt.Sprintf("%s.%s[%d]", at, kind, i)}
		if below.s == "" || v.name == "" || !relative(below.s) {
			r.wrong(where, v.path+".relativeMountPath", "write a name such as logs", "the mount needs a path below the root")
			return nil
		}
		var ok bool
		if v.mapped, ok = r.mapped(v.name, azure); !ok && source != "" {
			v.share = &shoal.Share{Name: shoal.ShareName(naming.Of(v.name, "share")), Source: source}
		}
		all = append(all, v)
		return &all[len(all)-1]
	}
	for i, f := range m.Files {
		account, share := r.fileURL(f, fmt.Sprintf("%s.azureFileShares[%d].azureFileUrl", at, i))
		v := add("azureFileShares", i, f.At, f.Path, share, "azurefiles://"+account+"/"+share)
		r.keys(v, f.Credentials)
	}
	for i, b := range m.Blobs {
		v := add("azureBlobFileSystems", i, b.At, b.Path, b.Container.s, "")
		if v != nil && v.mapped == "" {
			r.liberty(b.At, v.path, "map it: --share "+v.name+"=SHARE:/PATH", "it is taken as a file share of the same name", "there is no share of the kind of a blob container")
			v.share = &shoal.Share{Name: shoal.ShareName(naming.Of(v.name, "share")), Source: "azurefiles://" + r.account(b.Account.s) + "/" + b.Container.s}
		}
		r.keys(v, b.Credentials)
	}
	for i, f := range m.Servers {
		var id string
		if f.Server != nil {
			id = naming.Last(f.Server.ID.s)
		}
		add("fileServers", i, f.At, f.Path, id, "nfs://"+id+path.Join("/mnt/data", f.Directory.s))
	}
	for i, u := range m.Unmanaged {
		v := add("unmanagedFileSystems", i, u.At, u.Path, "", nfsOf(u.Command.s))
		if v != nil && v.mapped == "" && v.share == nil {
			r.liberty(u.At, v.path, "map it: --share "+v.name+"=SHARE:/PATH", "it is left out", "what a command mounts cannot be a share")
		}
	}
	return r.once(all)
}

// once refuses two mounts at one place, and two shares of one name.
func (r *reading) once(all []volume) []volume {
	seen := map[string]bool{}
	sources := map[shoal.ShareName]string{}
	for _, v := range all {
		if v.share == nil {
			continue
		}
		source, there := sources[v.share.Name]
		if there && source != v.share.Source {
			r.wrong(v.at, v.path, "map one of them: --share "+v.name+"=SHARE:/PATH", "two shares would be called %q: that of %s, and that of %s", v.share.Name, source, v.share.Source)
		} else {
			sources[v.share.Name] = v.share.Source
		}
	}
	return slices.DeleteFunc(all, func(v volume) bool {
		if seen[v.name] {
			r.wrong(v.at, v.path+".relativeMountPath", "", "there is another mount at %q", clip(v.name))
		}
		seen[v.name] = true
		return v.mapped == "" && v.share == nil
	})
}

func relative(s string) bool {
	return !slices.Contains(strings.Split(s, "/"), "..") && !strings.ContainsAny(s, "$\"'\\`\n\x00")
}

// placeholder is what published files have for an account; the old command line filled it in.
const placeholder = "<AZURE_BATCHAI_STORAGE_ACCOUNT>"

func (r *reading) account(name string) string {
	if name == placeholder && r.options.Account != "" {
		return r.options.Account
	}
	return name
}

// fileURL takes https://ACCOUNT.file.core.windows.net/SHARE apart.
func (r *reading) fileURL(f fileShare, path string) (account, share string) {
	_, rest, _ := strings.Cut(f.URL.s, "://")
	host, share, _ := strings.Cut(rest, "/")
	account, _, _ = strings.Cut(host, ".")
	share = strings.Trim(share, "/")
	if share == "" || account == "" {
		r.wrong(f.At, path, "write https://ACCOUNT.file.core.windows.net/SHARE", "this names no account and share")
	}
	if f.Account.s != "" {
		account = f.Account.s
	}
	return r.account(account), share
}

// keys refuses a key of an account that is written out. What a share needs is the name of a secret.
func (r *reading) keys(v *volume, c *credentials) {
	if v == nil {
		return
	}
	if v.share != nil {
		v.share.Credentials = &shoal.SecretRef{Secret: naming.Of(string(v.share.Name)+"-key", "key")}
	}
	if c == nil {
		return
	}
	const fill = "<AZURE_BATCHAI_STORAGE_KEY>"
	if c.Key.s != "" && c.Key.s != fill {
		r.inline(c.Key.at, v.path+".credentials.accountKey")
	}
	if c.Reference != nil && v.share != nil {
		v.share.Credentials.Secret = secretName(c.Reference.URL.s)
	}
}

// inline is for a secret that is written out in a file.
func (r *reading) inline(at place, path string) {
	r.liberty(at, path, "take it out of the file, and replace it: whoever has read the file knows it", "it is left out",
		"a secret is written out here")
}

// secretName is the name of a secret of a vault: https://VAULT/secrets/NAME/VERSION.
func secretName(url string) string {
	parts := strings.Split(strings.Trim(url, "/"), "/")
	if i := slices.Index(parts, "secrets"); i >= 0 && i+1 < len(parts) {
		return naming.Of(parts[i+1], "secret")
	}
	return naming.Of(parts[len(parts)-1], "secret")
}

// nfsOf is the source of what a mount command for NFS mounts.
func nfsOf(command string) string {
	words := strings.Fields(command)
	i := slices.IndexFunc(words, func(w string) bool { return strings.HasPrefix(w, "nfs") })
	if i < 1 || words[i-1] != "-t" {
		return ""
	}
	for _, w := range words[i+1:] {
		if host, dir, ok := strings.Cut(w, ":/"); ok && host != "" && !strings.Contains(host, "=") {
			return "nfs://" + host + "/" + dir
		}
	}
	return ""
}

// resolve finds the place that a path of the file means; false if only a running job could tell.
func (o roots) resolve(s string) (string, bool) {
	m := underRoot.FindStringSubmatchIndex(s)
	if m == nil {
		return path.Clean(s), strings.HasPrefix(s, "/") && !strings.Contains(s, "$")
	}
	if m[0] != 0 || m[1] != len(s) && strings.Trim(s[m[1]:], "/") != "" {
		return "", false
	}
	known := o.cluster
	if m[2] >= 0 {
		known = o.job
	}
	below := strings.Trim(s[m[4]:m[5]], "/")
	name, ok := longest(known, below)
	if !ok {
		return "", false
	}
	return beneath(known[name], strings.TrimPrefix(below, name)), true
}

// longest is the mount that a path lies in.
func longest(known map[string]string, below string) (string, bool) {
	best, ok := "", false
	for name := range known {
		if (below == name || strings.HasPrefix(below, name+"/")) && (!ok || len(name) > len(best)) {
			best, ok = name, true
		}
	}
	return best, ok
}

// beneath is a path below a place.
func beneath(at, below string) string {
	share, dir, ok := strings.Cut(at, ":")
	if !ok {
		return path.Join(at, below)
	}
	return share + ":" + path.Join(dir, below)
}

// common is the one place below which all mounts of a root lie under their own names, if there is one.
func common(known map[string]string) (string, bool) {
	base := ""
	for _, name := range slices.Sorted(maps.Keys(known)) {
		at, ok := strings.CutSuffix(known[name], "/"+name)
		if strings.HasSuffix(at, ":") {
			at += "/"
		}
		if !ok || base != "" && at != base {
			return "", false
		}
		base = at
	}
	return base, base != ""
}

// inShell is a place as a running job names it.
func inShell(at string) string {
	share, dir, ok := strings.Cut(at, ":")
	if !ok {
		return at
	}
	variable := "$SHOAL_SHARE_" + strings.ToUpper(strings.ReplaceAll(share, "-", "_"))
	return variable + strings.TrimSuffix(dir, "/")
}

// mounts finds where the job's own mounts and those of its cluster are.
func (r *reading) mounts(p jobProperties) (roots, []shoal.Share) {
	o := roots{map[string]string{}, map[string]string{}}
	var shares []shoal.Share
	for _, v := range r.volumes(p.Mounts, "properties.mountVolumes") {
		if o.job[v.name] = v.mapped; v.mapped == "" {
			o.job[v.name] = string(v.share.Name) + ":/"
			r.note(v.at, "mount %q is taken to be share %q of source %s, which the pool must mount; --share %s=SHARE:/PATH says otherwise", v.name, v.share.Name, v.share.Source, v.name)
			if !slices.ContainsFunc(shares, func(s shoal.Share) bool { return s.Name == v.share.Name }) {
				shares = append(shares, *v.share)
			}
		}
	}
	for name, p := range r.options.Shares {
		if !r.used[name] && name != Everything {
			o.cluster[name] = p.String()
		}
	}
	return o, shares
}

// below looks at a use of a root in a text: what lies there must be known.
func (r *reading) below(o roots, at place, path, match string, job bool) {
	name, _, _ := strings.Cut(strings.Trim(match, "/"), "/")
	if name == "" {
		return
	}
	known := o.cluster
	if job {
		known = o.job
	}
	if _, ok := longest(known, strings.Trim(match, "/")); ok {
		return
	}
	place, mapped := r.mapped(name)
	hint := "map it: --share " + name + "=SHARE:/PATH"
	switch {
	case mapped:
	case job:
		if len(known) > 0 {
			if s := spec.Suggest(name, slices.Sorted(maps.Keys(known))); strings.HasPrefix(s, "did you mean") {
				hint = s
			}
		}
		place = ClusterRoot + "/" + name
		r.liberty(at, path, hint, "it is taken to be at "+place, "the job mounts nothing at %q", clip(name))
	default:
		place = ClusterRoot + "/" + name
		r.note(at, "%s: mount %q of the cluster is taken to be at %s, where `shoal apply -f cluster.json` has it; --share %s=SHARE:/PATH says otherwise", path, name, place, name)
	}
	known[name] = place
}
