package login

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/shoal-pool/shoal"
)

// Login is what `shoal login` stores for one server.
type Login struct {
	User    shoal.UserName `json:"user"`
	Token   string         `json:"token"`
	Expires time.Time      `json:"expires,omitzero"`
}

// File is the file of stored logins.
type File struct {
	Current string           `json:"current"` // the server last logged in to
	Servers map[string]Login `json:"servers"`
}

// path is where they are stored.
func path(getenv func(string) string) (string, error) {
	dir := getenv("XDG_CONFIG_HOME")
	if dir == "" {
		home := getenv("HOME")
		if home == "" {
			return "", errors.New("neither HOME nor XDG_CONFIG_HOME is set")
		}
		dir = filepath.Join(home, ".config")
	}
	return filepath.Join(dir, "shoal", "logins.json"), nil
}

// Read returns what is stored; nothing stored is no error.
func Read(getenv func(string) string) (File, error) {
	file, err := path(getenv)
	if err != nil {
		return File{}, nil //nolint:nilerr // no home, no logins
	}
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return File{}, nil
	}
	var l File
	if err == nil {
		err = json.Unmarshal(data, &l)
	}
	if err != nil {
		return File{}, shoal.Errorf(shoal.KindInvalid, "cannot read the stored logins in %s: %w", file, err).
			WithHint("remove the file and log in again with `shoal login`")
	}
	return l, nil
}

// Store keeps a login for its owner's eyes only. The file is replaced whole, never half written.
func Store(getenv func(string) string, server string, l Login) (string, error) {
	file, err := path(getenv)
	if err != nil {
		return "", fmt.Errorf("cannot store the login: %w", err)
	}
	all, err := Read(getenv)
	if err != nil {
		return "", err
	}
	if all.Servers == nil {
		all.Servers = map[string]Login{}
	}
	all.Current, all.Servers[server] = server, l
	data, err := json.MarshalIndent(all, "", "  ")
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return "", fmt.Errorf("cannot store the login: %w", err)
	}
	f, err := os.CreateTemp(filepath.Dir(file), ".logins-") // with mode 0600
	if err != nil {
		return "", fmt.Errorf("cannot store the login: %w", err)
	}
	defer os.Remove(f.Name())
	_, err = f.Write(append(data, '\n'))
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return "", fmt.Errorf("cannot store the login: %w", err)
	}
	return file, os.Rename(f.Name(), file)
}
