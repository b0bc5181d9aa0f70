package main

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"

	"github.com/shoal-pool/shoal/internal/whole"
)

// noticeFile holds what people read when they log in, for the door.
const noticeFile = agentDir + "/notice"

// keepNotice takes what people are to read when they log in.
func keepNotice(log *slog.Logger) func(string) {
	return func(text string) {
		var err error
		if text == "" {
			err = os.Remove(noticeFile)
		} else {
			err = whole.Write(noticeFile, []byte(text), 0o600)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			log.Warn("people are not told when the machine sleeps", "error", err)
		}
	}
}

// notice tells who logs in to a terminal when the machine sleeps. sshd shows it to nobody else.
func notice() {
	if text, err := os.ReadFile(noticeFile); err == nil {
		fmt.Println(string(text))
	}
}
