package api

import (
	"strings"
	"testing"
)

func FuzzOutputLine(f *testing.F) {
	for _, line := range []string{"data 0 5", "gap 7 100", "beat", "end 12", "end", "data 1", "data -1 2", "beat 3", "", "data 99999999999999999999 1"} {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		frame, err := ParseOutputLine(line)
		if err != nil {
			return
		}
		if frame.Offset < 0 || frame.Length < 0 {
			t.Errorf("%q is %+v", line, frame)
		}
		again, err := ParseOutputLine(strings.TrimSuffix(string(frame.Line()), "\n"))
		if err != nil || again != frame {
			t.Errorf("%q is %+v, and again %+v, %v", line, frame, again, err)
		}
	})
}
