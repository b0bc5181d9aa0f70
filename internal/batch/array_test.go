package batch_test

import (
	"testing"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/spec"
)

// What package spec finds right about an array, placement can read, and every index is where it says.
func FuzzArray(f *testing.F) {
	for _, text := range []string{"1-100", "0-9:3", "1,4,7-9", "0-10:4, 20", "5", "1-10000000", "2147483646", "1:2", "-", "3-1", " 1 - 2"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s := shoal.JobSpec{Command: "true", Array: text}
		spec.DefaultJob(&s)
		for _, m := range spec.CheckJob(s) {
			if m.Path == "array" {
				return
			}
		}
		a, err := shoal.ParseArray(text)
		if err != nil || a.Len() < 1 || a.Len() > 10_000_000 {
			t.Fatalf("%q: %d, %v", text, a.Len(), err)
		}
		last := -1
		for i := range min(a.Len(), 100) {
			index := a.Index(i)
			if p, ok := a.Position(index); !ok || p != i || index <= last || a.From(index) != i || a.From(last+1) != i {
				t.Fatalf("%q: index %d at %d, position %d, %v", text, index, i, p, ok)
			}
			last = index
		}
		end := a.Index(a.Len() - 1)
		if a.From(end+1) != a.Len() {
			t.Fatalf("%q: from beyond the end: %d", text, a.From(end+1))
		}
	})
}
