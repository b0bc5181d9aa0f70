// Command shoal is the command line of Shoal and, with `shoal serve`, its server.
package main

import (
	"context"
	"os"
	"runtime/debug"
	"time"

	"github.com/shoal-pool/shoal/internal/app"
	"github.com/shoal-pool/shoal/internal/cli"
	"github.com/shoal-pool/shoal/internal/clock"
	"github.com/shoal-pool/shoal/internal/providers/local/mounts"
)

func main() {
	mounts.Child()
	cfg := cli.OS(version())
	cfg.Serve = func(ctx context.Context, s cli.Serve) error {
		return app.Run(ctx, app.Options{Data: s.Data, Database: s.Database, Listen: s.Listen, SSHListen: s.SSHListen, AgentListen: s.AgentListen, AgentURL: s.AgentURL, EndpointHost: s.EndpointHost, Programs: s.Programs, GPURoot: s.GPURoot, MountHelper: "/proc/self/exe", Role: s.Role, Servers: s.Servers, TokenFile: s.TokenFile, OfflineFor: time.Duration(s.OfflineFor), KeepHistory: time.Duration(s.Keep), Linger: time.Duration(s.Linger), TaskLease: time.Duration(s.TaskLease), OutputCap: s.OutputCap, Web: app.Web(s.Web), Boot: clock.Linux, Version: cfg.Version, Log: s.Log})
	}
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
