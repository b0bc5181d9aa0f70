package mounts

import (
	"encoding/pem"
	"errors"
	"strings"

	"github.com/shoal-pool/shoal/internal/spec/shares"
)

// login is how a server is told who asks.
type login struct {
	user     string
	password string
	domain   string
	key      string // a private key for SSH
}

// readLogin reads the value of a share's secret: lines such as username=… and password=…, or the bare key or password where the source
// names the user. An error says nothing of the value.
func readLogin(src shares.Source, value []byte) (login, error) {
	text := strings.TrimRight(string(value), "\r\n")
	l := login{user: src.User}
	if lines, ok := fields(text); ok {
		if lines["username"] != "" {
			l.user = lines["username"]
		}
		l.password, l.domain = lines["password"], lines["domain"]
	} else if block, _ := pem.Decode(value); block != nil && src.Kind == shares.SFTP {
		l.key = strings.ReplaceAll(text, "\r\n", "\n") + "\n"
	} else {
		l.password = text
	}
	switch {
	case l.user == "":
		return l, errors.New("it names no user: write a line username=… and a line password=…")
	case l.password == "" && l.key == "":
		return l, errors.New("it has no password and no key in it")
	case strings.ContainsAny(l.user+l.password+l.domain, "\x00\r\n") || strings.HasPrefix(l.user, "-"):
		return l, errors.New("it has several lines, which are no username=… and password=…")
	case src.Kind == shares.Azure && l.user != src.User:
		return l, errors.New("it is for another storage account than the source names")
	}
	return l, nil
}

// fields takes lines of the form name=value apart.
func fields(text string) (map[string]string, bool) {
	all := map[string]string{}
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n")
		if strings.TrimSpace(line) == "" {
			continue
		}
		name, value, ok := strings.Cut(line, "=")
		switch name = strings.ToLower(strings.TrimSpace(name)); {
		case !ok || name != "username" && name != "user" && name != "password" && name != "domain":
			return nil, false
		case name == "user":
			name = "username"
		}
		if name != "password" {
			value = strings.TrimSpace(value)
		}
		all[name] = value
	}
	return all, len(all) > 0
}

// scrub takes what is secret out of a text.
func (l login) scrub(text string) string {
	for _, s := range append(strings.Split(l.key, "\n"), l.password) {
		if len(s) > 3 {
			text = strings.ReplaceAll(text, s, "***")
		}
	}
	return text
}
