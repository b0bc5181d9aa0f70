package main

import (
	"cmp"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"strings"

	"github.com/shoal-pool/shoal/internal/whole"
)

// noticeFile holds what stands last in the message of the day, dayFile.
const (
	noticeFile = agentDir + "/notice"
	dayFile    = "/etc/motd"
)

// keepNotice takes what people are to read when they log in.
func keepNotice(log *slog.Logger) func(string) {
	return func(text string) {
		if err := putNotice(dayFile, noticeFile, text); err != nil {
			log.Warn("people are not told when the machine sleeps", "error", err)
		}
	}
}

// putNotice ends the message of the day with a text. sshd shows that message in each terminal that is opened, also over a
// connection that is there already, and to nobody who runs a command.
func putNotice(day, kept, text string) error {
	said, err := os.ReadFile(day)
	former, err2 := os.ReadFile(kept)
	if err := cmp.Or(missing(err), missing(err2)); err != nil {
		return err
	}
	if text != "" {
		text += "\n"
	}
	own := strings.TrimSuffix(strings.TrimSuffix(string(said), string(former)), text)
	if own+text != string(said) {
		if err := whole.Write(day, []byte(own+text), 0o644); err != nil {
			return err
		}
	}
	return whole.Write(kept, []byte(text), 0o600)
}

// missing is an error, unless it only says that a file is not there.
func missing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
