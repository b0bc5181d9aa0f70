package catalog

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/access"
	"github.com/shoal-pool/shoal/internal/spec"
	"github.com/shoal-pool/shoal/internal/store"
)

// The fates of an object.
const (
	created   = "created"
	changed   = "changed"
	unchanged = "unchanged"
)

// step is what becomes of one object.
type step[V any] struct {
	kind   shoal.ObjectKind
	name   string
	was    V
	now    V
	action string
	diff   []string
}

// plan is what a request comes to, given what is stored.
type plan struct {
	state
	shares   []step[shoal.Share]
	groups   []step[shoal.Group]
	users    []step[shoal.User]
	pools    []step[shoal.Pool]
	ids      *numbers
	disabled []shoal.UserName // who is disabled by this
	robbed   []shoal.UserName // who loses a key: her tokens, which she may have got by it, end
}

// state is what is stored.
type state struct {
	oldShares []shoal.Share
	oldGroups []shoal.Group
	oldUsers  []shoal.User
	oldPools  []shoal.Pool
	machines  []shoal.Machine // live ones
}

func readState(tx *store.Tx) (s state, err error) {
	if s.oldShares, err = tx.Shares().List(); err != nil {
		return s, err
	}
	if s.oldGroups, err = tx.Groups().List(); err != nil {
		return s, err
	}
	if s.oldUsers, err = tx.Users().List(); err != nil {
		return s, err
	}
	if s.oldPools, err = tx.Pools().List(); err != nil {
		return s, err
	}
	s.machines, err = tx.LiveMachines()
	return s, err
}

// makePlan decides what becomes of each object, or says what is wrong. It changes nothing.
func makePlan(tx *store.Tx, req api.ApplyRequest, create bool) (*plan, error) {
	s, err := readState(tx)
	if err != nil {
		return nil, err
	}
	p := &plan{state: s, ids: &numbers{tx: tx, taken: map[int]string{}}}
	var m mistakes
	p.planShares(&m, req.Shares)
	p.planGroups(&m, req.Groups)
	p.planUsers(&m, req.Users, create)
	p.planPools(&m, req.Pools)
	if err := p.number(&m); err != nil {
		return nil, err
	}
	p.checkReferences(&m)
	if err := m.err(); err != nil {
		return nil, err
	}
	return p, p.compare()
}

func find[K comparable, V any](list []V, name K, key func(V) K) (V, bool) {
	i := slices.IndexFunc(list, func(v V) bool { return key(v) == name })
	if i < 0 {
		var none V
		return none, false
	}
	return list[i], true
}

func shareName(s shoal.Share) shoal.ShareName { return s.Name }
func groupName(g shoal.Group) shoal.GroupName { return g.Name }
func userName(u shoal.User) shoal.UserName    { return u.Name }
func poolName(p shoal.Pool) shoal.PoolName    { return p.Name }

// meta gives an object its stored meta. A revision that was given must be the stored one.
func (m *mistakes) meta(kind shoal.ObjectKind, name string, given *shoal.Meta, stored shoal.Meta) {
	if given.Rev != 0 && given.Rev != stored.Rev {
		m.conflict(kind, name, "rev", "read it again and repeat the change", "it was changed meanwhile (revision %d, not %d)", stored.Rev, given.Rev)
	}
	*given = stored
}

func (p *plan) planShares(m *mistakes, shares []shoal.Share) {
	for _, now := range shares {
		was, found := find(p.oldShares, now.Name, shareName)
		m.meta(shoal.ObjectShare, string(now.Name), &now.Meta, was.Meta)
		if found && was.Source != now.Source {
			if pool := p.busyPool(now.Name); pool != "" {
				m.conflict(shoal.ObjectShare, string(now.Name), "source", "make a share of another name, or scale the pool to zero first",
					"it cannot change from %s to %s: machines of pool %s have it mounted", was.Source, now.Source, pool)
			}
		}
		p.shares = append(p.shares, newStep(shoal.ObjectShare, string(now.Name), was, now, found))
	}
}

// busyPool returns a pool that mounts a share and has machines.
func (p *plan) busyPool(share shoal.ShareName) shoal.PoolName {
	for _, pool := range p.oldPools {
		mounts := slices.ContainsFunc(pool.Mounts, func(m shoal.Mount) bool { return m.Share == share })
		if mounts && slices.ContainsFunc(p.machines, func(m shoal.Machine) bool { return m.Pool == pool.Name }) {
			return pool.Name
		}
	}
	return ""
}

func (p *plan) planGroups(m *mistakes, groups []shoal.Group) {
	for _, now := range groups {
		was, found := find(p.oldGroups, now.Name, groupName)
		m.meta(shoal.ObjectGroup, string(now.Name), &now.Meta, was.Meta)
		if found && now.GID == 0 {
			now.GID = was.GID
		}
		if found && now.GID != was.GID {
			m.wrong(shoal.ObjectGroup, string(now.Name), "gid", "files carry the number; make a group of another name", "it cannot change from %d to %d", was.GID, now.GID)
		}
		p.groups = append(p.groups, newStep(shoal.ObjectGroup, string(now.Name), was, now, found))
	}
}

func (p *plan) planUsers(m *mistakes, users []shoal.User, create bool) {
	for _, now := range users {
		was, found := find(p.oldUsers, now.Name, userName)
		if found && create {
			m.wrong(shoal.ObjectUser, string(now.Name), "name", "`shoal apply` changes users", "there is a user of that name already")
		}
		m.meta(shoal.ObjectUser, string(now.Name), &now.Meta, was.Meta)
		now.HasPassword = was.HasPassword
		now.Disabled = now.Disabled || was.Disabled
		if now.Disabled && !was.Disabled && found {
			p.disabled = append(p.disabled, now.Name)
		}
		if found && losesKey(was, now) {
			p.robbed = append(p.robbed, now.Name)
		}
		if found && now.UID == 0 {
			now.UID = was.UID
		}
		if found && now.UID != was.UID {
			m.wrong(shoal.ObjectUser, string(now.Name), "uid", "files carry the number; make a user of another name", "it cannot change from %d to %d", was.UID, now.UID)
		}
		p.users = append(p.users, newStep(shoal.ObjectUser, string(now.Name), was, now, found))
	}
}

// losesKey reports whether a key of a user's is taken away. A comment may change.
func losesKey(was, now shoal.User) bool {
	kept := map[string]bool{}
	for _, line := range now.Keys {
		kept[bareKey(line)] = true
	}
	return slices.ContainsFunc(was.Keys, func(line string) bool { return !kept[bareKey(line)] })
}

// bareKey is the type and the key of an authorized_keys line.
func bareKey(line string) string {
	fields := strings.Fields(line)
	return strings.Join(fields[:min(len(fields), 2)], " ")
}

func (p *plan) planPools(m *mistakes, pools []shoal.Pool) {
	for _, now := range pools {
		was, found := find(p.oldPools, now.Name, poolName)
		m.meta(shoal.ObjectPool, string(now.Name), &now.Meta, was.Meta)
		now.Fixed, now.Paused, now.Resumed = was.Fixed, was.Paused, was.Resumed
		if was.Deleting {
			m.conflict(shoal.ObjectPool, string(now.Name), "", fmt.Sprintf("wait until it is gone (`shoal pool delete %s --wait`), and apply again", now.Name), "it is being deleted")
		}
		now.Deleting = false
		if found && was.Provider != now.Provider {
			m.wrong(shoal.ObjectPool, string(now.Name), "provider", "make a pool of another name", "it cannot change from %s to %s", was.Provider, now.Provider)
		}
		p.pools = append(p.pools, newStep(shoal.ObjectPool, string(now.Name), was, now, found))
	}
}

func newStep[V any](kind shoal.ObjectKind, name string, was, now V, found bool) step[V] {
	s := step[V]{kind: kind, name: name, was: was, now: now, action: created}
	if found {
		s.action = changed
	}
	return s
}

// number gives uids and gids to who has none, and refuses numbers that are others'.
func (p *plan) number(m *mistakes) error {
	for _, u := range p.oldUsers {
		p.ids.taken[u.UID] = "user " + string(u.Name)
	}
	for _, g := range p.oldGroups {
		p.ids.taken[g.GID] = "group " + string(g.Name)
	}
	// Numbers that were written first, so that none of them is given out below.
	for _, s := range p.users {
		if err := p.ids.claim(m, shoal.ObjectUser, s.name, "uid", s.now.UID); err != nil {
			return err
		}
	}
	for _, s := range p.groups {
		if err := p.ids.claim(m, shoal.ObjectGroup, s.name, "gid", s.now.GID); err != nil {
			return err
		}
	}
	for i := range p.users {
		if err := p.ids.give("user "+p.users[i].name, &p.users[i].now.UID); err != nil {
			return err
		}
	}
	for i := range p.groups {
		if err := p.ids.give("group "+p.groups[i].name, &p.groups[i].now.GID); err != nil {
			return err
		}
	}
	return nil
}

func after[K comparable, V any](old []V, steps []step[V], key func(V) K) map[K]V {
	all := map[K]V{}
	for _, v := range old {
		all[key(v)] = v
	}
	for _, s := range steps {
		all[key(s.now)] = s.now
	}
	return all
}

// missing says what to do where something is named that is not there: mostly it is there by a name that looks like it.
func missing[K ~string, V any](kind shoal.ObjectKind, name K, there map[K]V) string {
	var names []string
	for _, k := range slices.Sorted(maps.Keys(there)) {
		names = append(names, string(k))
	}
	if near := spec.Suggest(string(name), names); strings.HasPrefix(near, "did you mean") {
		return near
	}
	if kind == shoal.ObjectUser {
		return "add a document of kind User, or use `shoal user add`"
	}
	return "add a document of kind " + string(kind)
}

// checkReferences checks what objects say about each other, as it will be.
func (p *plan) checkReferences(m *mistakes) {
	shares := after(p.oldShares, p.shares, shareName)
	groups := after(p.oldGroups, p.groups, groupName)
	users := after(p.oldUsers, p.users, userName)
	pools := after(p.oldPools, p.pools, poolName)
	for _, s := range p.groups {
		if _, ok := users[shoal.UserName(s.name)]; ok {
			m.wrong(s.kind, s.name, "name", "every user has a group of her own name", "there is a user of that name")
		}
		for i, u := range s.now.Members {
			if _, ok := users[u]; !ok {
				m.wrong(s.kind, s.name, fmt.Sprintf("members[%d]", i), missing(shoal.ObjectUser, u, users), "there is no user %q", u)
			}
		}
	}
	for _, s := range p.users {
		if _, ok := groups[shoal.GroupName(s.name)]; ok {
			m.wrong(s.kind, s.name, "name", "every user has a group of her own name", "there is a group of that name")
		}
		for i, g := range s.now.Groups {
			if _, ok := groups[g]; !ok {
				m.wrong(s.kind, s.name, fmt.Sprintf("groups[%d]", i), missing(shoal.ObjectGroup, g, groups), "there is no group %q", g)
			}
		}
	}
	for _, s := range p.pools {
		for i, mount := range s.now.Mounts {
			if _, ok := shares[mount.Share]; !ok {
				m.wrong(s.kind, s.name, fmt.Sprintf("mounts[%d].share", i), missing(shoal.ObjectShare, mount.Share, shares), "there is no share %q", mount.Share)
			}
		}
		if !s.now.Default {
			continue
		}
		for name, other := range pools {
			if other.Default && name != s.now.Name {
				m.wrong(s.kind, s.name, "default", "only one pool can be the default", "pool %s is the default already", name)
			}
		}
	}
}

// compare finds which objects differ from what is stored.
func (p *plan) compare() error {
	for _, err := range []error{compare(p.shares), compare(p.groups), compare(p.users), compare(p.pools)} {
		if err != nil {
			return err
		}
	}
	return nil
}

func compare[V any](steps []step[V]) error {
	for i := range steps {
		s := &steps[i]
		if s.action == created {
			continue
		}
		var err error
		if s.diff, err = spec.Diff(s.was, s.now); err != nil {
			return err
		}
		if len(s.diff) == 0 {
			s.action = unchanged
		}
	}
	return nil
}

func (p *plan) allShares() []shoal.Share {
	all := after(p.oldShares, p.shares, shareName)
	list := make([]shoal.Share, 0, len(all))
	for _, s := range all {
		list = append(list, s)
	}
	slices.SortFunc(list, func(a, b shoal.Share) int { return strings.Compare(string(a.Name), string(b.Name)) })
	return list
}

// touchedPools are the pools that are new or changed, and those whose shares are.
func (p *plan) touchedPools() []shoal.Pool {
	touched := map[shoal.ShareName]bool{}
	for _, s := range p.shares {
		touched[s.now.Name] = s.action != unchanged
	}
	mounts := func(o shoal.Pool) bool {
		return slices.ContainsFunc(o.Mounts, func(m shoal.Mount) bool { return touched[m.Share] })
	}
	var list []shoal.Pool
	planned := map[shoal.PoolName]bool{}
	for _, s := range p.pools {
		planned[s.now.Name] = true
		if s.action != unchanged || mounts(s.now) {
			list = append(list, s.now)
		}
	}
	for _, o := range p.oldPools {
		if !planned[o.Name] && mounts(o) {
			list = append(list, o)
		}
	}
	return list
}

func (p *plan) result() api.ApplyResult {
	r := api.ApplyResult{Changes: []api.Change{}}
	add(&r, p.shares)
	add(&r, p.groups)
	add(&r, p.users)
	add(&r, p.pools)
	return r
}

func add[V any](r *api.ApplyResult, steps []step[V]) {
	for _, s := range steps {
		r.Changes = append(r.Changes, api.Change{Kind: s.kind, Name: s.name, Action: s.action, Diff: s.diff})
	}
}

// changes reports whether anything would change.
func (p *plan) changes() bool {
	return slices.ContainsFunc(p.result().Changes, func(c api.Change) bool { return c.Action != unchanged })
}

// carryOut stores what changed, with an event for each object.
func (p *plan) carryOut(tx *store.Tx, by access.Subject) error {
	if err := putAll(tx, by, p.shares, tx.Shares().Put); err != nil {
		return err
	}
	if err := putAll(tx, by, p.groups, tx.Groups().Put); err != nil {
		return err
	}
	if err := putAll(tx, by, p.users, tx.Users().Put); err != nil {
		return err
	}
	if err := putAll(tx, by, p.pools, tx.Pools().Put); err != nil {
		return err
	}
	for _, name := range slices.Concat(p.disabled, p.robbed) {
		if err := tx.DeleteTokens(string(name)); err != nil {
			return err
		}
	}
	return p.ids.record()
}

func putAll[V any](tx *store.Tx, by access.Subject, steps []step[V], put func(V) (V, error)) error {
	for _, s := range steps {
		if s.action == unchanged {
			continue
		}
		if _, err := put(s.now); err != nil {
			return err
		}
		noun := strings.ToLower(string(s.kind))
		sentence := fmt.Sprintf("%s %s was %s by %s", noun, s.name, s.action, by)
		if len(s.diff) > 0 && s.kind != shoal.ObjectUser {
			sentence += ": " + strings.Join(s.diff, ", ")
		}
		e := shoal.Event{Kind: s.kind, Name: s.name, Code: noun + strings.ToUpper(s.action[:1]) + s.action[1:], Sentence: clip(sentence)}
		switch s.kind {
		case shoal.ObjectPool:
			e.Pool = shoal.PoolName(s.name)
		case shoal.ObjectUser:
			e.User = shoal.UserName(s.name)
		}
		tx.Event(e)
	}
	return nil
}

// clip keeps an event a sentence.
func clip(s string) string {
	const limit = 500
	if len(s) <= limit {
		return s
	}
	return strings.ToValidUTF8(s[:limit], "") + "…"
}
