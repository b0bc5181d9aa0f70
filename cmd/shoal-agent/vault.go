package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/agent"
	"github.com/shoal-pool/shoal/internal/host/accounts"
	"github.com/shoal-pool/shoal/internal/host/tasks"
	"github.com/shoal-pool/shoal/internal/host/vault"
)

// secretsTime is how long a login waits for the secrets of its pool. Whoever waits cannot see why.
const secretsTime = 5 * time.Second

// openVault is where the secrets of people's sessions are.
func openVault() *vault.Vault { return vault.At(api.SessionSecretsDir, vaultDir, tasks.Born) }

// allowed are the variables that sshd lets a login be given: those of secrets, and of their files.
func allowed(variables []string) []string {
	var all []string
	for _, v := range variables {
		all = append(all, v, v+"_FILE")
	}
	return all
}

// allow says which secrets sessions get here.
func (m *machine) allow(variables []string) error {
	if err := m.vault.Want(variables); err != nil {
		return err
	}
	changed, err := m.sshd.Allow(allowed(variables))
	if err != nil || !changed {
		return err
	}
	return tellInit()
}

// confide fetches a user's secrets and keeps them as files.
func confide(ctx context.Context, v *vault.Vault, o vault.Owner) (got api.SessionSecrets, err error) {
	join, err := readJoin()
	if err != nil {
		return got, err
	}
	ctx, cancel := context.WithTimeout(ctx, secretsTime)
	defer cancel()
	got, err = agent.SessionSecrets(ctx, join, filepath.Join(agentDir, "token"), o.User)
	if err == nil {
		err = v.Put(o, got.Values)
	}
	return got, err
}

// unlock puts the secrets of a user's sessions where she finds them. Without an answer those stay that are there.
func unlock(o vault.Owner) {
	v := openVault()
	if len(v.Wanted()) == 0 {
		return
	}
	var got api.SessionSecrets
	err := v.Came(o.User, os.Getppid())
	if err == nil {
		got, err = confide(context.Background(), v, o)
	}
	switch {
	case err == nil && len(got.Values) == 0:
		v.Went(o.User, os.Getppid()) // this connection keeps nothing in place
	case err != nil:
		fmt.Printf("The files of this pool's secrets are not up to date: %v\n", err)
	}
}

// sweep removes the secrets of those who have gone.
func (m *machine) sweep() {
	passwd, err := os.ReadFile("/etc/passwd")
	if err == nil {
		err = m.vault.Sweep(func(name shoal.UserName) bool {
			u, ok := accounts.FindUser(passwd, string(name))
			return ok && hasProcess(u.UID, func(string) bool { return true })
		})
	}
	if err != nil {
		m.log.Warn("the secrets of users who have gone are not removed", "error", err)
	}
}
