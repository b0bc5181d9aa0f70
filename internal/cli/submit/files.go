package submit

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/spec"
)

// MaxFile bounds a file, in bytes.
const MaxFile = 16 << 20

// Files reads what paths name: files, directories of documents, and, where a path is -, a stream. What
// cannot be read is of KindInvalid.
func (read Reader) Files(paths []string) (list []spec.File, err error) {
	for _, path := range paths {
		found, err := read(path)
		if err != nil {
			return nil, shoal.Errorf(shoal.KindInvalid, "cannot read documents: %w", err)
		}
		list = append(list, found...)
	}
	return list, nil
}

// Disk reads files from the disk, and stdin where a path is -.
func Disk(stdin io.Reader) Reader {
	return func(path string) ([]spec.File, error) { return documents(stdin, path) }
}

func documents(stdin io.Reader, path string) ([]spec.File, error) {
	if path == "-" {
		data, err := io.ReadAll(io.LimitReader(stdin, MaxFile+1))
		if err == nil && len(data) > MaxFile {
			err = fmt.Errorf("stdin holds more than %s", shoal.Bytes(MaxFile))
		}
		return []spec.File{{Name: "stdin", Data: data}}, err
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		if info.Size() > MaxFile {
			return nil, fmt.Errorf("%s has more than %s", path, shoal.Bytes(MaxFile))
		}
		data, err := os.ReadFile(path)
		return []spec.File{{Name: path, Data: data}}, err
	}
	entries, err := os.ReadDir(path) // sorted
	if err != nil {
		return nil, err
	}
	var list []spec.File
	for _, e := range entries {
		if e.IsDir() || !slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(e.Name())) {
			continue
		}
		found, err := documents(stdin, filepath.Join(path, e.Name()))
		if err != nil {
			return nil, err
		}
		list = append(list, found...)
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("%s holds no .yaml, .yml or .json file", path)
	}
	return list, nil
}
