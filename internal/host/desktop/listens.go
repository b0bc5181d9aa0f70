package desktop

import (
	"bytes"
	"fmt"
)

// RootListens reports whether, by the text of /proc/net/tcp or tcp6, all who listen at a port are root's, and somebody does.
func RootListens(text []byte, port int) bool {
	const (
		local, state, uid = 1, 3, 7 // fields
		listening         = "0A"
	)
	suffix := []byte(fmt.Sprintf(":%04X", port))
	found := false
	for l := range bytes.Lines(text) {
		f := bytes.Fields(l)
		if len(f) <= uid || string(f[state]) != listening || !bytes.HasSuffix(f[local], suffix) {
			continue
		}
		if string(f[uid]) != "0" {
			return false
		}
		found = true
	}
	return found
}
