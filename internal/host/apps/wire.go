package apps

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/host/cgroups"
	"github.com/shoal-pool/shoal/internal/host/tasks"
)

// Order is what a supervisor is told on its standard input.
type Order struct {
	Order  api.AppOrder    `json:"order"`
	Person tasks.Person    `json:"person"`
	Groups *cgroups.Config `json:"groups,omitempty"` // nil: the machine has no control groups for users
	Doors  []string        `json:"doors,omitempty"`
	Local  string          `json:"local,omitempty"` // the directory of users' local directories
}

// Request is from keeper to supervisor. One field is set.
type Request struct {
	Stop  bool      `json:"stop,omitempty"`
	Doors *[]string `json:"doors,omitempty"`
}

// State is all there is to know of an app: the first line that a supervisor says, and again whenever it changes.
type State struct {
	Report api.AppReport  `json:"report"`
	User   shoal.UserName `json:"user"`
	UID    int            `json:"uid"`
	Group  bool           `json:"group,omitempty"` // it has a control group, of GroupName
}

// GroupName is the name of an app's control group.
func GroupName(id shoal.AppID) string { return "app-" + string(id) }

// ValidID reports whether an identifier can be part of the name of a file.
func ValidID(id shoal.AppID) bool {
	ok := len(id) > 2 && len(id) <= 32 && strings.HasPrefix(string(id), "a-")
	for _, c := range []byte(id) {
		ok = ok && (c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c == '-')
	}
	return ok
}

// Endings of an app's files.
const (
	SocketFile = ".sock"
	LockFile   = ".lock"
	EndFile    = ".end" // the last State
	AppFile    = ".app" // its first State: written before there is a supervisor
)

// maxLine bounds a line: a state holds the last lines of an app.
const maxLine = 256 << 10

// WriteLine writes a value as a line of JSON.
func WriteLine(w io.Writer, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = w.Write(append(b, '\n'))
	return err
}

// ReadLine reads one.
func ReadLine(r *bufio.Reader, v any) error {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case err == nil:
			return json.Unmarshal(line, v)
		case !errors.Is(err, bufio.ErrBufferFull):
			return err
		case len(line) > maxLine:
			return fmt.Errorf("a line is longer than %d bytes", maxLine)
		}
	}
}
