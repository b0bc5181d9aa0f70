// Command shoal is the command line of Shoal and, with `shoal serve`, its server.
package main

import (
	"context"
	"errors"
	"os"
	"runtime/debug"

	"github.com/shoal-pool/shoal/internal/cli"
)

func main() {
	cfg := cli.OS(version())
	cfg.Serve = serve
	os.Exit(cli.Main(context.Background(), os.Args[1:], cfg))
}

// version is the module's, or the commit it was built from.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	commit, changed := "unknown", ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			commit = s.Value[:min(12, len(s.Value))]
		case s.Key == "vcs.modified" && s.Value == "true":
			changed = "+changes"
		}
	}
	return commit + changed
}

// serve is the server, which is not part of this program yet.
func serve(context.Context, cli.Serve) error {
	return errors.New("cannot serve: this program is built without a server")
}
