package top

import (
	"fmt"
	"strings"
	"testing"
)

func TestFit(t *testing.T) {
	table := func(rows int) section {
		s := section{"HEADER"}
		for i := range rows {
			s = append(s, fmt.Sprintf("row %d", i))
		}
		return s
	}
	all := []section{table(1), table(30), table(3)}
	if got := fit(all, 0); len(got) != 2+1+31+1+4 {
		t.Errorf("without a limit: %d lines", len(got))
	}
	for _, height := range []int{39, 24, 15, 10} {
		got := fit(all, height)
		if len(got) != height {
			t.Errorf("%d lines in %d", len(got), height)
		}
		text := strings.Join(got, "\n")
		for _, left := range []string{"HEADER\nrow 0\n\nHEADER"} {
			if !strings.Contains(text, left) {
				t.Errorf("in %d lines: %s", height, text)
			}
		}
		if shown := strings.Count(text, "row "); height < 39 && !strings.Contains(text, "… and ") || height == 39 && shown != 34 {
			t.Errorf("in %d lines: %s", height, text)
		}
	}
	if got := fit(all, 1); len(got) < 3 { // the screen cuts what has no room at all
		t.Errorf("%q", got)
	}
}
