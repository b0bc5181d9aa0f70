package archtest

import (
	"fmt"
	"net/url"
	"regexp"
	"strings"
)

// Words refuses what does not belong into a text of the project: paths of the machine it was
// written on, and the addresses by which that machine fetches its packages. private are such
// addresses, as the go command and the environment name them.
func Words(t *Tree, private []string) []Finding {
	patterns := []*regexp.Regexp{
		regexp.MustCompile(`(^|[\s"'(=:` + "`" + `])/wor` + `k(space)?/[a-z]`),
		regexp.MustCompile(`(^|[\s"'(=:` + "`" + `])/home/(?:user|runner|ubuntu)/`),
		regexp.MustCompile(`(?i)\b(go` + `proxy|pip_index_url|goprivate)=http`),
	}
	for _, p := range private {
		if host := hostOf(p); host != "" && !public(host) {
			patterns = append(patterns, regexp.MustCompile(regexp.QuoteMeta(host)))
		}
	}
	var all []Finding
	for _, text := range t.Texts {
		for n, line := range strings.Split(text.Body, "\n") {
			for _, p := range patterns {
				if p.MatchString(line) {
					all = append(all, Finding{"word", text.Path, fmt.Sprintf("line %d names something of one machine: %s", n+1, strings.TrimSpace(line))})
				}
			}
		}
	}
	return all
}

func hostOf(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	return u.Hostname()
}

// public reports whether everybody has the host.
func public(host string) bool {
	switch host {
	case "proxy.golang.org", "sum.golang.org", "localhost", "127.0.0.1", "::1":
		return true
	}
	return false
}
