package agent

import (
	"sync"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
)

// People are the accounts as received last. They are there before the agent, for those it is made with.
type People struct {
	mu     sync.Mutex
	byName map[shoal.UserName]api.Account
	byUID  map[int]api.Account
	groups map[shoal.UserName][]int
	mounts []string
}

// Mounts are the shares of the machine, which people's containers see as well.
func (p *People) Mounts() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mounts
}

func (p *People) setMounts(mounts []api.AgentMount) {
	paths := make([]string, 0, len(mounts))
	for _, m := range mounts {
		paths = append(paths, m.Path)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mounts = paths
}

// Person returns the account of a user who may have something running, and the gids of her groups.
func (p *People) Person(name shoal.UserName) (account api.Account, groups []int, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	account, ok = p.byName[name]
	if !ok || account.Disabled {
		return api.Account{}, nil, false
	}
	return account, p.groups[name], true
}

// Name returns whose a uid is, disabled users included.
func (p *People) Name(uid int) (shoal.UserName, bool) {
	account, ok := p.account(uid)
	return account.Name, ok
}

func (p *People) account(uid int) (api.Account, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	account, ok := p.byUID[uid]
	return account, ok
}

// set takes new accounts.
func (p *People) set(a api.Accounts) {
	byName, byUID := make(map[shoal.UserName]api.Account, len(a.Users)), make(map[int]api.Account, len(a.Users))
	for _, u := range a.Users {
		byName[u.Name], byUID[u.UID] = u, u
	}
	groups := map[shoal.UserName][]int{}
	for _, g := range a.Groups {
		for _, m := range g.Members {
			groups[m] = append(groups[m], g.GID)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.byName, p.byUID, p.groups = byName, byUID, groups
}
