package translate

import (
	"regexp"
	"slices"
	"strings"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/arm/tree"
)

// profile reads what a machine is made from, and whom it knows: storageProfile and osProfile, of a scale set's
// machines or of a machine.
func (t *translation) profile(p *pool, profile *tree.Value) {
	os := profile.Get("osProfile")
	image := profile.Get("storageProfile", "imageReference")
	p.windows = windows(profile)
	t.image(p, image, profile.Get("storageProfile", "osDisk"))
	t.user(p, os)
	if p.windows {
		p.OS = shoal.Windows
		t.note(placeOf(os.Get("windowsConfiguration"), p), "%s: the machines run Windows, which a provider may not have: it says so when the pool is applied", what(p.of))
	}
	t.unused(profile.Get("storageProfile"), what(p.of), storageKeys)
	t.unused(os, what(p.of), osKeys)
	t.customData(p, os.Get("customData"))
}

// windows reports whether machines run Windows.
func windows(profile *tree.Value) bool {
	image := profile.Get("storageProfile", "imageReference")
	words := strings.ToLower(strings.Join([]string{image.Get("publisher").Tell(), image.Get("offer").Tell(), image.Get("sku").Tell(), image.Get("id").Tell()}, " "))
	switch {
	case profile.Get("osProfile", "linuxConfiguration").Present(), strings.EqualFold(profile.Get("storageProfile", "osDisk", "osType").Tell(), "linux"):
		return false
	case profile.Get("osProfile", "windowsConfiguration").Present(), strings.EqualFold(profile.Get("storageProfile", "osDisk", "osType").Tell(), "windows"):
		return true
	}
	return strings.Contains(words, "windows") || strings.Contains(words, "server-20") || strings.Contains(words, "standard-data-science-vm")
}

// image finds what machines are made from here.
func (t *translation) image(p *pool, ref, disk *tree.Value) {
	at := p.of.At
	if ref.Present() {
		at = ref.At
	}
	p.places["image"] = at
	urn := ref.Get("id").Tell()
	if urn == "" {
		var parts []string
		for _, key := range []string{"publisher", "offer", "sku", "version"} {
			if s := ref.Get(key).Tell(); s != "" {
				parts = append(parts, s)
			}
		}
		urn = strings.Join(parts, ":")
	}
	if urn == "" {
		if urn = disk.Get("image", "uri").Tell(); urn == "" {
			urn = "of the template's own disk"
		}
	}
	if mapped, ok := t.mapped(urn, ref.Get("offer").Tell()); ok {
		p.Image = mapped
		t.note(at, "image %s is %s, by the map of images", tree.Clip(urn, 120), mapped)
		return
	}
	hint := "--image-map " + tree.Clip(urn, 120) + "=IMAGE says otherwise"
	if strings.Contains(urn, " ") {
		hint = "--image-map '*=IMAGE' says otherwise"
	}
	switch {
	case p.windows, p.Provider != "" && p.Provider != "local" && p.Provider != "fake":
		p.Image = strings.ReplaceAll(tree.Clip(urn, 200), " ", "-")
		t.note(at, "image %s is left to the provider by its name; %s", tree.Clip(urn, 120), hint)
	default:
		p.Image = "host"
		t.note(at, "image %s becomes the image host, this machine's own software; %s", tree.Clip(urn, 120), hint)
	}
}

// mapped finds an image in the user's map: by all of its name, by the front of it, by its offer, or for all others.
func (t *translation) mapped(urn, offer string) (string, bool) {
	best, image := -1, ""
	for ref, to := range t.options.Images {
		n := -1
		switch {
		case ref == "*":
			n = 0
		case strings.EqualFold(ref, offer) && offer != "":
			n = 1
		case strings.EqualFold(ref, urn), len(urn) > len(ref) && strings.EqualFold(urn[:len(ref)], ref) && urn[len(ref)] == ':':
			n = 1 + len(ref)
		}
		if n > best {
			best, image = n, to
		}
	}
	return image, best >= 0
}

var (
	keyLine  = regexp.MustCompile(`^(ssh-(rsa|ed25519|dss)|ecdsa-sha2-[a-z0-9-]+|sk-[a-z0-9@.-]+) [A-Za-z0-9+/=]{16,}( .*)?$`)
	userName = regexp.MustCompile(`^[a-z_][a-z0-9_-]{0,31}$`)
)

// user makes a user of the account that all machines have.
func (t *translation) user(p *pool, os *tree.Value) {
	name := os.Get("adminUsername")
	if !name.Present() {
		return
	}
	lower := strings.ToLower(name.Tell())
	switch {
	case name.Secret:
		t.wrong(name.At, "osProfile.adminUsername", "", "the name of a user cannot be a secret")
		return
	case !userName.MatchString(lower):
		t.wrong(name.At, "osProfile.adminUsername", "use a-z, 0-9, _ and -, at most 32, beginning with a letter", "%s cannot be the name of a user", name.Show())
		return
	case lower != name.Tell():
		t.note(name.At, "adminUsername %s becomes user %s", name.Tell(), lower)
	}
	u := shoal.User{Name: shoal.UserName(lower)}
	for _, k := range os.Get("linuxConfiguration", "ssh", "publicKeys").Items() {
		data := k.Get("keyData")
		text := strings.Join(strings.Fields(data.Text()), " ")
		switch {
		case data.Uncertain():
			t.note(data.At, "the public key of %s is known only once something is deployed (%s): it is left out; --answers FILE says what it is", lower, tree.Clip(data.Sketch(), 200))
		case !keyLine.MatchString(text):
			t.wrong(placeOf(data, p), "osProfile.linuxConfiguration.ssh.publicKeys", "give the line of a .pub file", "this is no public key of SSH")
		case !slices.Contains(u.Keys, text):
			u.Keys = append(u.Keys, text)
		}
	}
	off, _ := os.Get("linuxConfiguration", "disablePasswordAuthentication").AsBool()
	password := os.Get("adminPassword")
	if password.Uncertain() {
		t.note(password.At, "the password of %s is known only once something is deployed (%s): it is left out; --answers FILE says what it is", lower, tree.Clip(password.Sketch(), 200))
		password = nil
	}
	given := password.Present() && !off && !keyLine.MatchString(password.Text())
	if given && !slices.ContainsFunc(t.out.Passwords, func(o Password) bool { return o.User == u.Name && o.Value.Text() == password.Text() }) {
		t.out.Passwords = append(t.out.Passwords, Password{u.Name, password.Hidden(), password.At})
	}
	if len(u.Keys) == 0 && !given && password.Present() && !off {
		t.note(password.At, "the account %s, which all machines had in common: a public key is given as its password: no user is made. Templates often have a parameter authenticationType, which then is to be sshPublicKey", lower)
		return
	}
	if len(u.Keys) == 0 && !given {
		t.note(name.At, "the account %s, which all machines had in common, has neither a key nor a password that can be used: no user is made", lower)
		return
	}
	if len(u.Keys) == 0 {
		t.note(name.At, "the account %s, which all machines had in common, has no key. No document is made of it, since that would take away the keys of a user who is there; deploying adds her with the template's password, unless she is a user already", lower)
		return
	}
	t.note(name.At, "the account %s, which all machines had in common, becomes a user without root on them. Deploying leaves her as she is if she is a user already, but for the key; her document would say all of her (--no-users leaves it out)", lower)
	i := slices.IndexFunc(t.out.Set.Users, func(o shoal.User) bool { return o.Name == u.Name })
	if i < 0 {
		t.userAt[u.Name] = name.At
		t.out.Set.Users = append(t.out.Set.Users, u)
		return
	}
	for _, k := range u.Keys {
		if !slices.Contains(t.out.Set.Users[i].Keys, k) {
			t.out.Set.Users[i].Keys = append(t.out.Set.Users[i].Keys, k)
		}
	}
}

// placeOf is where a value was written, or the pool's resource where it was not.
func placeOf(v *tree.Value, p *pool) tree.Place {
	if v == nil || v.At.Line == 0 {
		return p.of.At
	}
	return v.At
}
