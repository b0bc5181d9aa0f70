package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/agent"
	"github.com/shoal-pool/shoal/internal/host/accounts"
)

const (
	maxPassword  = 1024
	passwordTime = 10 * time.Second // xrdp-sesman does nothing else meanwhile
)

// passwordMain is called by PAM, as root, when somebody wants a desktop: it asks the control plane for the password that
// comes on its standard input. Whatever goes wrong, she does not get in.
func passwordMain() int {
	user := os.Getenv("PAM_USER")
	if os.Getenv("PAM_TYPE") != "auth" || user == "" {
		fmt.Fprintln(os.Stderr, "shoal-agent password is called by PAM")
		return 2
	}
	text, err := io.ReadAll(io.LimitReader(os.Stdin, maxPassword+2))
	if err != nil {
		return 1
	}
	password, _, _ := strings.Cut(string(text), "\x00") // PAM ends it with one
	if password == "" || len(password) > maxPassword {
		return 1
	}
	passwd, err := os.ReadFile("/etc/passwd")
	if err != nil {
		return 1
	}
	if u, ok := accounts.FindUser(passwd, user); !ok || u.UID < firstPerson {
		return 1 // the machine's own accounts have no desktops
	}
	join, err := readJoin()
	if err != nil {
		return 1
	}
	ctx, cancel := context.WithTimeout(context.Background(), passwordTime)
	defer cancel()
	if err := agent.CheckPassword(ctx, join, filepath.Join(agentDir, "token"), shoal.UserName(user), password); err != nil {
		fmt.Fprintf(os.Stderr, "shoal-agent: %s gets no desktop: %v\n", user, err)
		return 1
	}
	return 0
}
