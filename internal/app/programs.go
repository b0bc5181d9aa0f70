package app

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"path/filepath"
	"slices"
	"strings"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/providers/program"
	"github.com/shoal-pool/shoal/provider"
)

// openPrograms opens the executables that make machines for pools. Those that the server was told of, and no others, are ever run.
func (a *App) openPrograms(ctx context.Context, all map[string]provider.Provider) error {
	for _, arg := range a.opts.Programs {
		name, path, err := a.programOf(arg)
		if err == nil {
			err = program.Trust(path)
		}
		if err != nil {
			return err
		}
		sum := sha256.Sum256([]byte(path))
		p, err := program.New(ctx, program.Config{Path: path, Dir: a.opts.path("providers", filepath.Base(path)+"-"+hex.EncodeToString(sum[:3])),
			Installation: a.installation(), ControlDir: a.opts.path("control"), BinDir: a.opts.BinDir, Log: a.log})
		if err != nil {
			return err
		}
		a.onClose(p.Close)
		all[name] = p
	}
	return nil
}

// programOf reads an argument of --provider: what pools call it, and where it lies.
func (a *App) programOf(arg string) (name, path string, err error) {
	switch {
	case filepath.IsAbs(arg):
		return "exec:" + arg, arg, nil
	case slices.Contains([]string{"kubernetes", "azure"}, arg):
		return arg, filepath.Join(a.opts.BinDir, "shoal-provider-"+arg), nil
	}
	hint := "write the path of an executable from /, or kubernetes or azure"
	if strings.HasPrefix(arg, "exec:") {
		hint = "leave exec: out"
	}
	return "", "", shoal.Errorf(shoal.KindInvalid, "cannot use --provider %q", arg).WithHint("%s", hint)
}

// installation is the tag of the machines that this server has others make. It stays when the data directory moves.
func (a *App) installation() string {
	sum := sha256.Sum256(append([]byte("shoal installation\x00"), a.keys.agents...))
	return hex.EncodeToString(sum[:6])
}
