// Package shares reads the sources and options of shares: what is written in a document and comes from there to whoever
// mounts. What is not on a list here reaches no mounting program and no kernel.
package shares

import (
	"fmt"
	"maps"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/shoal-pool/shoal"
)

// Kind is what a share lies on.
type Kind string

// The kinds, by the scheme of their sources.
const (
	Directory Kind = ""
	NFS       Kind = "nfs"
	SMB       Kind = "smb"
	Azure     Kind = "azurefiles"
	SFTP      Kind = "sftp"
	Claim     Kind = "pvc" // a PersistentVolumeClaim, which pods mount and nobody else
)

// Kinds lists the schemes.
func Kinds() []string {
	return []string{string(NFS), string(SMB), string(Azure), string(SFTP), string(Claim)}
}

// azureDomain is where the file shares of Azure's storage accounts are.
const azureDomain = ".file.core.windows.net"

// Source is a share's source taken apart.
type Source struct {
	Kind Kind
	Host string // name or address, without brackets
	Port int
	User string // of SFTP, and the account of Azure Files
	// Share is the name of an SMB or Azure share.
	Share string
	// Path is the directory: absolute for a directory, NFS and SFTP; below the share, and perhaps empty, for SMB and Azure.
	Path string
}

// ports are those of the kinds where a source names none.
func (k Kind) port() int {
	switch k {
	case NFS:
		return 2049
	case SFTP:
		return 22
	}
	return 445
}

// form is how a source of a kind is written.
func (k Kind) form() string {
	switch k {
	case SMB:
		return "smb://HOST/SHARE"
	case Azure:
		return "azurefiles://ACCOUNT/SHARE"
	case SFTP:
		return "sftp://USER@HOST/PATH"
	case Claim:
		return "pvc://CLAIM or pvc://CLAIM/PATH"
	}
	return "nfs://HOST/PATH"
}

// Parse reads a share's source. The error is a *shoal.Error with a hint.
func Parse(s shoal.Share) (Source, error) {
	if m := checkSource(s); m.Msg != "" {
		return Source{}, invalid(s, m)
	}
	src, _ := parse(s)
	return src, nil
}

// Usable is nil if source and options of a share are as they should be, or an error that tells all mistakes.
func Usable(s shoal.Share) error {
	if all := Check(s); len(all) > 0 {
		e := shoal.Errorf(shoal.KindInvalid, "cannot use share %s: %s", s.Name, all[0].Msg)
		for _, m := range all[1:] {
			e.Msg += "; " + m.Msg
		}
		return e.WithHint("%s", all[0].Hint)
	}
	return nil
}

func invalid(s shoal.Share, m shoal.Mistake) error {
	return shoal.Errorf(shoal.KindInvalid, "cannot use share %s: %s", s.Name, m.Msg).WithHint("%s", m.Hint)
}

// Check says all that is wrong with a share's source, options and credentials.
func Check(s shoal.Share) []shoal.Mistake {
	if m := checkSource(s); m.Msg != "" {
		return []shoal.Mistake{m}
	}
	src, _ := parse(s)
	var all []shoal.Mistake
	for _, name := range slices.Sorted(maps.Keys(s.Options)) {
		if m := checkOption(src.Kind, name, s.Options[name]); m.Msg != "" {
			m.Path = "options." + clip(name)
			all = append(all, m)
		}
	}
	switch {
	case s.Credentials == nil && src.Kind == Azure:
		all = append(all, shoal.Mistake{Path: "credentials", Msg: "a share of Azure Files needs the key of its account",
			Hint: "keep it with `shoal secret set NAME` on the server's host, and write credentials: {secret: NAME}"})
	case s.Credentials == nil && src.Kind == SFTP:
		all = append(all, shoal.Mistake{Path: "credentials", Msg: "a share over SSH needs a private key or a password",
			Hint: "keep it with `shoal secret set NAME` on the server's host, and write credentials: {secret: NAME}"})
	case s.Credentials != nil && (src.Kind == Directory || src.Kind == NFS || src.Kind == Claim):
		all = append(all, shoal.Mistake{Path: "credentials", Msg: "a share of this kind has no use for credentials",
			Hint: "leave credentials out; NFS knows machines by their addresses: let the server export to this host"})
	}
	return all
}

func checkSource(s shoal.Share) shoal.Mistake {
	_, m := parse(s)
	m.Path = "source"
	return m
}

func mistake(hint, format string, args ...any) shoal.Mistake {
	return shoal.Mistake{Msg: fmt.Sprintf(format, args...), Hint: hint}
}

// clip keeps foreign text in messages short.
func clip(s string) string {
	if len(s) > 80 {
		return strings.ToValidUTF8(s[:80], "") + "…"
	}
	return s
}

// withoutUser is a source for messages: who and with what password is nobody's to read.
func withoutUser(source string) string {
	scheme, rest, _ := strings.Cut(source, "://")
	if i := strings.LastIndexByte(rest, '@'); i >= 0 {
		return scheme + "://…" + rest[i:]
	}
	return source
}

// control reports whether a text has control characters or a backslash, which some systems take for a slash.
func control(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f || r == '\\' || r == '\uFFFD' })
}

func parse(s shoal.Share) (Source, shoal.Mistake) {
	if len(s.Source) > 1024 || control(s.Source) {
		return Source{}, mistake("write a directory such as /srv/team, or nfs://HOST/PATH", "%q is no source of a share", clip(s.Source))
	}
	scheme, rest, remote := strings.Cut(s.Source, "://")
	if !remote {
		if !path.IsAbs(s.Source) {
			return Source{}, mistake("write a directory such as /srv/team, or nfs://HOST/PATH", "%q is no directory and no address of a share", clip(s.Source))
		}
		return Source{Path: path.Clean(s.Source)}, shoal.Mistake{}
	}
	kind := Kind(scheme)
	if !slices.Contains(Kinds(), scheme) {
		return Source{}, mistake("write nfs, smb, azurefiles, sftp or pvc", "%q is not a kind of share", clip(scheme))
	}
	bad := func(why string) (Source, shoal.Mistake) {
		return Source{}, mistake("write "+kind.form(), "%q %s", clip(withoutUser(s.Source)), why)
	}
	u, err := url.Parse("share://" + rest)
	switch {
	case err != nil || u.Hostname() == "" || strings.Trim(u.Path, "/") == "" && kind != Claim || u.RawQuery != "" || u.Fragment != "" || strings.ContainsAny(rest, "?#"):
		return bad("names no host and path")
	case control(u.Path) || slices.Contains(strings.Split(u.Path, "/"), ".."):
		return bad("names no plain path")
	case u.User != nil && kind != SFTP:
		return bad("has a user in it, who belongs into the secret that credentials name")
	}
	if u.User != nil {
		if _, has := u.User.Password(); has {
			return Source{}, mistake("keep it with `shoal secret set`, and write credentials: {secret: NAME}", "the source has a password in it")
		}
	}
	src := Source{Kind: kind, Host: u.Hostname(), Port: kind.port(), Path: path.Clean(u.Path)}
	if p := u.Port(); p != "" {
		if src.Port, err = strconv.Atoi(p); err != nil || src.Port < 1 || src.Port > 65535 {
			return bad("has no port that there can be")
		}
	}
	if !isHost(src.Host) {
		return bad("names no host")
	}
	return src.finish(s, u, bad)
}

// finish fills in what is a kind's own.
func (src Source) finish(s shoal.Share, u *url.URL, bad func(string) (Source, shoal.Mistake)) (Source, shoal.Mistake) {
	switch src.Kind {
	case SMB, Azure:
		src.Share, src.Path, _ = strings.Cut(strings.TrimPrefix(src.Path, "/"), "/")
		if strings.ContainsAny(src.Share, `"*<>|:,`) {
			return bad("names no share")
		}
	case Claim:
		if u.Port() != "" || strings.Contains(src.Host, ":") {
			return bad("names no claim")
		}
		src.Port, src.Path = 0, strings.TrimPrefix(path.Clean("/"+u.Path), "/")
	case SFTP:
		src.User = "root"
		if u.User != nil {
			src.User = u.User.Username()
		}
		if !isWord(src.User) {
			return bad("names no user")
		}
	}
	if src.Kind != Azure {
		return src, shoal.Mistake{}
	}
	if !isAccount(src.Host) || u.Port() != "" {
		return bad("names no storage account: 3 to 24 lower-case letters and digits")
	}
	src.User, src.Host = src.Host, src.Host+azureDomain
	if other := s.Options["host"]; other != "" {
		h, m := hostPort(other)
		if m.Msg != "" {
			return Source{}, m
		}
		src.Host = h.Host
		if h.Port != 0 {
			src.Port = h.Port
		}
	}
	return src, shoal.Mistake{}
}

// hostPort reads the option host of Azure Files.
func hostPort(s string) (src Source, m shoal.Mistake) {
	u, err := url.Parse("share://" + s)
	if err != nil || u.Host != s || !isHost(u.Hostname()) {
		return src, mistake("write a name or an address, with :PORT if it is not 445", "%q is no host", clip(s))
	}
	src.Host = u.Hostname()
	if p := u.Port(); p != "" {
		if src.Port, err = strconv.Atoi(p); err != nil || src.Port < 1 || src.Port > 65535 {
			return src, mistake("write a name or an address, with :PORT if it is not 445", "%q has no port that there can be", clip(s))
		}
	}
	return src, shoal.Mistake{}
}

func isHost(s string) bool {
	return s != "" && len(s) <= 253 && s[0] != '-' && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-:_") == ""
}

func isWord(s string) bool {
	return s != "" && len(s) <= 64 && s[0] != '-' && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_") == ""
}

func isAccount(s string) bool {
	return len(s) >= 3 && len(s) <= 24 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789") == ""
}
