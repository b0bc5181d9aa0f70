package batchai_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/batchai"
	"github.com/shoal-pool/shoal/internal/spec"
)

var update = flag.Bool("update", false, "write the golden files")

// cases are the published files, and those of a directory that the environment names.
func cases(t testing.TB) []string {
	t.Helper()
	files, err := filepath.Glob("testdata/cases/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no files: %v", err)
	}
	if dir := os.Getenv("SHOAL_BATCHAI_CASES"); dir != "" {
		more, err := filepath.Glob(filepath.Join(dir, "*.json"))
		if err != nil || len(more) == 0 {
			t.Fatalf("no files in %s: %v", dir, err)
		}
		files = append(files, more...)
	}
	return files
}

// told is all that is said about a file: what it becomes, and the notes.
func told(f spec.File, o batchai.Options) string {
	var b strings.Builder
	var set spec.Set
	var notes []batchai.Note
	var err error
	switch kind := batchai.Detect(f.Data); kind {
	case batchai.KindJob:
		var j batchai.Job
		j, err = batchai.ReadJob(f, o)
		set, notes = spec.Set{Shares: j.Shares, Jobs: []shoal.JobSpec{j.Spec}}, j.Notes
	case batchai.KindCluster:
		var c batchai.Cluster
		c, err = batchai.ReadCluster(f, o)
		set, notes = spec.Set{Shares: c.Shares, Pools: []shoal.Pool{c.Pool}}, c.Notes
	default:
		return fmt.Sprintf("it is %q\n", kind)
	}
	if err != nil {
		return err.Error() + "\n" + spec.Format(shoal.MistakesOf(err))
	}
	for _, n := range notes {
		fmt.Fprintln(&b, "#", n)
	}
	text, err := spec.Documents(set)
	if err != nil {
		return err.Error()
	}
	return b.String() + string(text)
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Error(diff)
	}
}

// Every published file is read: strictly, or leniently with the reasons said.
func TestPublishedFiles(t *testing.T) {
	t.Parallel()
	for _, name := range cases(t) {
		base := filepath.Base(name)
		short := strings.TrimSuffix(strings.TrimSuffix(base, ".json"), "__job")
		short = short[strings.LastIndex(short, "__")+2:]
		t.Run(short, func(t *testing.T) {
			t.Parallel()
			data, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			f := spec.File{Name: "file.json", Data: data}
			strict := told(f, batchai.Options{Name: "x"})
			lenient := told(f, batchai.Options{Name: "x", Lenient: true})
			if strings.HasPrefix(lenient, "1 mistake") || strings.Contains(lenient, "mistakes in what was written") {
				t.Errorf("not accepted: %s", lenient)
			}
			if strings.Contains(strict, "mistake") && !strings.Contains(lenient, "(--lenient)") {
				t.Errorf("accepted without a reason: %s", lenient)
			}
			if strings.Contains(strict+lenient, "DemoPa") {
				t.Error("a password was printed")
			}
			if strings.HasPrefix(name, "testdata") {
				golden(t, short, "strict:\n\n"+strict+"\nlenient:\n\n"+lenient)
			}
		})
	}
}
