// Package desktop tells people how to reach their remote desktops: in words, as a file that clients of RDP open, and as
// the command of FreeRDP.
package desktop

import (
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
)

// Way is how one desktop is reached.
type Way struct {
	api.DesktopTicket
	File         string // for clients that open one; empty: none
	PasswordFile string // takes the password instead of the terminal; empty: none
}

// Reached puts the address by which the server was reached in place of one that means nothing elsewhere.
func (w *Way) Reached(server string) {
	host, port, err := net.SplitHostPort(w.Address)
	u, urlErr := url.Parse(server)
	if err != nil {
		return
	}
	ip := net.ParseIP(host)
	switch local := host == "" || ip != nil && (ip.IsUnspecified() || ip.IsLoopback()); {
	case local && urlErr == nil && u.Hostname() != "":
		host = u.Hostname()
	case host == "" || ip != nil && ip.IsUnspecified():
		host = "127.0.0.1"
	}
	w.Address = net.JoinHostPort(host, port)
}

// Write writes the files.
func (w *Way) Write() error {
	if w.File != "" {
		if err := os.WriteFile(w.File, []byte(w.document()), 0o644); err != nil {
			return shoal.Errorf(shoal.KindInvalid, "cannot write %s: %w", w.File, err)
		}
	}
	if w.PasswordFile == "" {
		return nil
	}
	if err := writeSecret(w.PasswordFile, w.Password+"\n"); err != nil {
		return shoal.Errorf(shoal.KindInvalid, "cannot write %s: %w", w.PasswordFile, err)
	}
	return nil
}

// writeSecret puts a file in place that only its owner reads, whatever was there.
func writeSecret(path, text string) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".shoal-*") // made 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.WriteString(text)
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	return err
}

// document is a file that clients of RDP open. CredSSP is off since xrdp asks for the password itself, within TLS.
func (w *Way) document() string {
	return strings.ReplaceAll(fmt.Sprintf(`full address:s:%s
username:s:%s
enablecredsspsupport:i:0
negotiate security layer:i:1
authentication level:i:2
prompt for credentials:i:0
promptcredentialonce:i:1
screen mode id:i:1
dynamic resolution:i:1
session bpp:i:32
compression:i:1
redirectclipboard:i:1
autoreconnection enabled:i:0
`, w.Address, w.User), "\n", "\r\n")
}

// FreeRDP is the command that opens the desktop, with the password from its file.
func (w *Way) FreeRDP() string {
	command := w.DesktopTicket.FreeRDP()
	if w.PasswordFile != "" {
		command += " < " + quote(w.PasswordFile)
	}
	return command
}

func quote(s string) string {
	if !strings.ContainsFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._-+", r))
	}) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// Say tells it to people.
func (w *Way) Say(out io.Writer) error {
	password := w.Password
	if w.PasswordFile != "" {
		password = "in " + w.PasswordFile
	}
	rows := [][2]string{{"Address", w.Address}, {"User", string(w.User)}, {"Password", password}, {"", "good once, until " + w.Expires.Local().Format(time.TimeOnly)},
		{"Coming from", w.From}, {"Certificate", "SHA-256 " + w.Fingerprint}, {"FreeRDP", w.FreeRDP()}}
	if w.File != "" {
		rows = append(rows, [2]string{"Others", "open " + w.File})
	}
	if _, err := fmt.Fprintf(out, "Your desktop in pool %s. A machine is started for you when you connect.\n\n", w.Pool); err != nil {
		return err
	}
	for _, r := range rows {
		if _, err := fmt.Fprintf(out, "  %-12s %s\n", r[0], r[1]); err != nil {
			return err
		}
	}
	return nil
}
