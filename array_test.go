package shoal_test

import (
	"slices"
	"testing"

	"github.com/shoal-pool/shoal"
)

func TestArray(t *testing.T) {
	t.Parallel()
	for text, want := range map[string][]int{
		"": {0}, "0": {0}, "5": {5}, "1-4": {1, 2, 3, 4}, "0-9:3": {0, 3, 6, 9}, "1,4,7-9": {1, 4, 7, 8, 9}, "0-10:4, 20": {0, 4, 8, 20},
	} {
		a, err := shoal.ParseArray(text)
		if err != nil || a.Len() != len(want) {
			t.Errorf("%q: %d, %v", text, a.Len(), err)
			continue
		}
		for p, index := range want {
			if got := a.Index(p); got != index {
				t.Errorf("%q at %d: %d, want %d", text, p, got, index)
			}
		}
		for index := range 25 {
			p, ok := slices.BinarySearch(want, index)
			got, found := a.Position(index)
			if found != ok || ok && got != p || a.From(index) != p {
				t.Errorf("%q, index %d: position %d %v, from %d; want %d %v", text, index, got, found, a.From(index), p, ok)
			}
		}
	}
	for _, text := range []string{"x", "1-", "-1", "3-1", "1:2", "1-5:0", "1,1", "5,1", "1-5,5", "1-5:", "99999999999", ","} {
		if _, err := shoal.ParseArray(text); shoal.KindOf(err) != shoal.KindInvalid {
			t.Errorf("%q: %v", text, err)
		}
	}
	a, err := shoal.ParseArray("1-10000000")
	if err != nil || a.Len() != 10_000_000 || a.Index(9_999_999) != 10_000_000 {
		t.Errorf("ten million: %d, %v", a.Len(), err)
	}
}
