// Package whole writes files whole or not at all: after a crash at any point there is the former file, or none, or the new one.
package whole

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// Write puts a file in the place of the one that has the path. It is never readable by more than mode says.
func Write(path string, data []byte, mode fs.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*") // made 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(data)
	if err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
