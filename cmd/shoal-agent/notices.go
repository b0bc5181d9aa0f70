package main

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/agent"
)

// noticesDir has a file for each user with a web app, named by her uid, with what she was told last. The pages of notebooks
// ask for it: whoever has one open sees it there, as others do in their terminals.
const noticesDir = "/run/shoal/notices"

// notices is such a directory.
type notices string

// open lets a user's pages ask.
func (n notices) open(uid, gid int) error {
	if err := errors.Join(os.MkdirAll(string(n), 0o711), os.Chmod(string(n), 0o711)); err != nil {
		return err
	}
	if _, err := os.Lstat(filepath.Join(string(n), strconv.Itoa(uid))); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return n.put(uid, gid, []byte("{}"))
}

// put puts what a user reads in the place of what was there. Only she can read it.
func (n notices) put(uid, gid int, data []byte) error {
	f, err := os.CreateTemp(string(n), ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(data)
	if err = errors.Join(err, f.Chown(uid, gid), f.Chmod(0o400), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), filepath.Join(string(n), strconv.Itoa(uid)))
}

// post tells a user, or all of them.
func (n notices) post(name func(uid int) (shoal.UserName, bool), user shoal.UserName, text string) error {
	files, err := os.ReadDir(string(n))
	if err != nil {
		return missing(err)
	}
	data, err := json.Marshal(map[string]any{"at": time.Now().UTC(), "text": text})
	if err != nil {
		return err
	}
	for _, f := range files {
		uid, bad := strconv.Atoi(f.Name())
		if who, ok := name(uid); bad != nil || !ok || user != "" && who != user {
			continue
		}
		err = errors.Join(err, n.put(uid, -1, data))
	}
	return err
}

// speaker tells people in their terminals and on their pages.
type speaker struct {
	agent.Watcher
	notices notices
	people  *agent.People
}

func (s speaker) Tell(user shoal.UserName, text string) error {
	return errors.Join(s.Watcher.Tell(user, text), s.notices.post(s.people.Name, user, text))
}
