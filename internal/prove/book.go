package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"
)

// book is prove.json.
type book struct {
	Commit  string    `json:"commit"`
	Started time.Time `json:"started"`
	Updated time.Time `json:"updated"`
	Suites  []*record `json:"suites"`

	path string
}

// record is how far a suite is.
type record struct {
	Name     string         `json:"name"`
	Goal     int            `json:"goal"`   // rounds
	Rounds   int            `json:"rounds"` // done
	Seeds    [2]int         `json:"seeds"`  // of the first and the last round
	Count    int            `json:"count"`  // of what a round does: checks, seconds, transfers, runs
	Unit     string         `json:"unit"`
	Counted  map[string]int `json:"counted,omitempty"` // by what rounds say of themselves: takeovers, jobs, logins
	Seconds  int            `json:"seconds"`
	Failures []failure      `json:"failures"`
}

type failure struct {
	Seed   int       `json:"seed"`
	Time   time.Time `json:"time"`
	Output string    `json:"output"`
}

// open reads the book; that of another commit is begun anew.
func open(path, commit string) (*book, error) {
	b := &book{path: path}
	text, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(text, b)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("cannot read %s: %w", path, err)
	}
	if b.Commit != commit {
		b = &book{path: path, Commit: commit, Started: time.Now().UTC().Truncate(time.Second)}
	}
	return b, nil
}

// suite returns the record of a suite, a new one if there is none.
func (b *book) suite(s suite) *record {
	for _, r := range b.Suites {
		if r.Name == s.Name {
			r.Goal = s.Goal
			return r
		}
	}
	r := &record{Name: s.Name, Goal: s.Goal, Unit: s.Unit, Failures: []failure{}}
	b.Suites = append(b.Suites, r)
	return r
}

// write replaces the file whole: an interruption leaves the former one.
func (b *book) write() error {
	b.Updated = time.Now().UTC().Truncate(time.Second)
	text, err := json.MarshalIndent(b, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(b.path+".new", append(text, '\n'), 0o644); err != nil {
		return err
	}
	return os.Rename(b.path+".new", b.path)
}
