// Package fetch downloads the files of jobs. What a server says they are called never leads out of the
// directory that they are to be put into, and a file is there whole or not at all.
package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/client"
)

// Tree downloads files of a job, as Client.Files listed them for a path, into a directory, which is made.
// Each is put where it is below that path; a single file directly into it. It says before each what was done.
func Tree(ctx context.Context, c *client.Client, job shoal.JobID, under string, files []api.JobFile, dir string, say func(done Sum, name string)) (done Sum, err error) {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return done, shoal.Errorf(shoal.KindInvalid, "cannot download to %s: %w", dir, err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return done, shoal.Errorf(shoal.KindInvalid, "cannot download to %s: %w", dir, err)
	}
	defer root.Close()
	under = strings.Trim(under, "/")
	for _, f := range files {
		name := path.Join(f.Output, f.Path)
		to := strings.TrimPrefix(strings.TrimPrefix(name, under), "/")
		if to == "" {
			to = path.Base(name)
		}
		if !filepath.IsLocal(filepath.FromSlash(to)) {
			return done, shoal.Errorf(shoal.KindInvalid, "cannot put a file %q below %s", to, dir)
		}
		say(done, name)
		if f.Dir {
			err = root.MkdirAll(to, 0o777)
		} else {
			err = one(ctx, c, job, name, root, to)
		}
		if err != nil {
			if shoal.KindOf(err) == shoal.KindInternal {
				err = shoal.Errorf(shoal.KindInvalid, "cannot write %s below %s: %w", to, dir, err)
			}
			return done, err
		}
		done.add(f)
	}
	return done, nil
}

// Sum counts files.
type Sum struct {
	Files int
	Bytes shoal.Bytes
}

func (s *Sum) add(f api.JobFile) {
	if !f.Dir {
		s.Files, s.Bytes = s.Files+1, s.Bytes+shoal.Bytes(f.Size)
	}
}

// SumOf counts files.
func SumOf(files []api.JobFile) (s Sum) {
	for _, f := range files {
		s.add(f)
	}
	return s
}

func (s Sum) String() string {
	if s.Files == 1 {
		return fmt.Sprintf("1 file, %s", s.Bytes)
	}
	return fmt.Sprintf("%d files, %s", s.Files, s.Bytes)
}

// one downloads a file beside its place, and moves it there once it is whole.
func one(ctx context.Context, c *client.Client, job shoal.JobID, name string, root *os.Root, to string) (err error) {
	in, err := c.File(ctx, job, name)
	if err != nil {
		return err
	}
	defer in.Close()
	if dir := path.Dir(to); dir != "." {
		if err := root.MkdirAll(dir, 0o777); err != nil {
			return err
		}
	}
	part := path.Join(path.Dir(to), "."+path.Base(to)+".part")
	if err := root.Remove(part); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	out, err := root.OpenFile(part, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	if err = errors.Join(err, out.Close()); err == nil && !in.Modified.IsZero() {
		err = root.Chtimes(part, in.Modified, in.Modified)
	}
	if err == nil {
		err = root.Rename(part, to)
	}
	if err != nil {
		err = errors.Join(err, root.Remove(part))
	}
	return err
}
