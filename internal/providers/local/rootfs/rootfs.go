// Package rootfs makes the root file systems that local machines stand on: the
// host's own software by allow-list, a directory, or an archive unpacked once.
//
// A machine's root is an overlay: a lower directory from here, which is never
// written to again, and an upper of its own. Of the image "host" the lower holds
// only links, empty directories and copied files; the host's /usr and package
// database are trees, each the lower of an overlay of its own, so that nothing is
// copied and nothing but what is listed can be reached. (One overlay over "/" would
// need a mask for every other thing the host has, and one for what it gets tomorrow.)
package rootfs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// Host is the image that is this host's own software.
const Host = "host"

// Image is a root file system ready to be the lower of machines.
type Image struct {
	Root  string // the lower directory
	Trees []Tree // directories of the host that machines see below Root, outer ones first
	// State tells the host's software apart from what it was; empty for images that never change.
	State string
}

// Tree is a directory of the host that machines see, under an overlay of its own.
type Tree struct {
	Path string // on the host and in the machine
	Mask string // a lower above it that hides what is not for everybody; empty if there is nothing to hide
}

// Options are a pool's wishes for the image host.
type Options struct {
	Opt bool     // with the host's /opt
	Etc []string // names in the host's /etc beyond the listed ones
}

// Store keeps unpacked images in a directory. Its methods may be called concurrently.
type Store struct {
	dir  string
	host string // the host's root: "/" but in tests
	room int64  // what an archive may unpack to; zero: what is free

	mu       sync.Mutex
	busy     map[string]*sync.Mutex // by what is being built
	built    map[string]Image       // host images of this process, by options and state
	archives map[string]string      // digests, by an archive's path, size and time
}

// Open opens the store in dir and removes what an interrupted unpacking left.
func Open(dir string) (*Store, error) { return openAt(dir, "/") }

func openAt(dir, host string) (*Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("cannot open the image store: %w", err)
	}
	left, err := filepath.Glob(filepath.Join(dir, tmpPrefix+"*"))
	if err != nil {
		return nil, err
	}
	for _, d := range left {
		if err := os.RemoveAll(d); err != nil {
			return nil, fmt.Errorf("cannot remove the unfinished image %s: %w", d, err)
		}
	}
	return &Store{dir: dir, host: host, busy: map[string]*sync.Mutex{}, built: map[string]Image{},
		archives: map[string]string{}}, nil
}

// tmpPrefix marks directories that are not finished.
const tmpPrefix = ".unfinished-"

// Get makes an image ready, which may take as long as unpacking it; a second call is quick.
func (s *Store) Get(ctx context.Context, image string, o Options) (Image, error) {
	kind, err := s.Classify(image)
	if err != nil {
		return Image{}, err
	}
	switch kind {
	case KindHost:
		return s.hostImage(ctx, o)
	case KindSnapshot:
		return Image{Root: filepath.Join(s.snapshotDir(image), "root")}, nil
	case KindDirectory:
		return Image{Root: image}, nil
	default:
		return s.archive(ctx, image)
	}
}

// Kind is what sort of image a name stands for.
type Kind string

// The kinds of images.
const (
	KindHost      Kind = "host"
	KindSnapshot  Kind = "snapshot"
	KindDirectory Kind = "directory"
	KindArchive   Kind = "archive"
)

// ErrNoImage is in the chain of every error that says that an image is not there or cannot be one.
var ErrNoImage = errors.New("no such image")

// Classify says what an image is, by looking only at what is cheap to see.
func (s *Store) Classify(image string) (Kind, error) {
	if image == Host {
		return KindHost, nil
	}
	if !filepath.IsAbs(image) {
		if validName(image) {
			if _, err := os.Stat(s.snapshotDir(image)); err == nil {
				return KindSnapshot, nil
			}
		}
		return "", fmt.Errorf("%w: %q is neither \"host\", the name of a snapshot, nor an absolute path of a directory or archive; "+
			"save an image of a registry as an archive first (skopeo copy docker://IMAGE oci-archive:FILE.tar)", ErrNoImage, image)
	}
	info, err := os.Stat(image)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrNoImage, err)
	}
	if info.Mode().IsRegular() {
		return KindArchive, begins(image)
	}
	if !info.IsDir() {
		return "", fmt.Errorf("%w: %s is neither a directory nor an archive", ErrNoImage, image)
	}
	if _, err := os.Stat(filepath.Join(image, "oci-layout")); err == nil {
		return KindArchive, nil
	}
	if within(s.dir, image) {
		return "", fmt.Errorf("%w: %s contains the data directory %s; use the image \"host\" for this host's own software",
			ErrNoImage, image, s.dir)
	}
	for _, name := range []string{"usr", "etc"} {
		if info, err := os.Stat(filepath.Join(image, name)); err != nil || !info.IsDir() {
			return "", fmt.Errorf("%w: %s has no directory %s, so it is no root file system", ErrNoImage, image, name)
		}
	}
	return KindDirectory, nil
}

// within reports whether path is dir or below it.
func within(path, dir string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, "../")
}

// lock lets one caller at a time build what is named by key.
func (s *Store) lock(key string) (unlock func()) {
	s.mu.Lock()
	m := s.busy[key]
	if m == nil {
		m = new(sync.Mutex)
		s.busy[key] = m
	}
	s.mu.Unlock()
	m.Lock()
	return m.Unlock
}

// finish moves a finished image into place; one that is there already wins.
func (s *Store) finish(tmp, dir string) error {
	err := os.Rename(tmp, dir)
	if errors.Is(err, fs.ErrExist) {
		return os.RemoveAll(tmp)
	}
	return err
}

// Prune removes the host images that no machine stands on, keeping the lowers in use.
// Unpacked archives and snapshots stay.
func (s *Store) Prune(inUse func(root string) bool) error {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	current := map[string]bool{}
	for _, i := range s.built {
		current[i.Root] = true
	}
	for _, e := range entries {
		root := filepath.Join(s.dir, e.Name(), "root")
		if !strings.HasPrefix(e.Name(), "host-") || current[root] || inUse(root) {
			continue
		}
		if err := os.RemoveAll(filepath.Join(s.dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}
