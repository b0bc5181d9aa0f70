package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/shoal-pool/shoal/api"
)

// distant reports whether a home is on a share.
func distant(home string, mounts []api.AgentMount) bool {
	return slices.ContainsFunc(mounts, func(m api.AgentMount) bool {
		return strings.HasPrefix(filepath.Clean(home)+"/", strings.TrimSuffix(filepath.Clean(m.Path), "/")+"/")
	})
}

// settings put the databases of IPython and Jupyter, for which there are no variables, where SHOAL_LOCAL says.
var settings = map[string]string{
	"/etc/ipython/ipython_config.py": `# Written by Shoal: locks of SQLite do not work on all shares.
import os
if os.environ.get("SHOAL_LOCAL"):
    c.HistoryManager.hist_file = os.path.join(os.environ["SHOAL_LOCAL"], "ipython-history.sqlite")
`,
	"/etc/jupyter/jupyter_config.py": `# Written by Shoal: locks of SQLite do not work on all shares.
import os
if os.environ.get("SHOAL_LOCAL"):
    c.NotebookNotary.db_file = os.path.join(os.environ["SHOAL_LOCAL"], "nbsignatures.db")
    c.BaseFileIdManager.db_path = os.path.join(os.environ["SHOAL_LOCAL"], "file_id_manager.db")
    c.SQLiteYStore.db_path = os.path.join(os.environ["SHOAL_LOCAL"], "ystore.db")
`,
}

// writeSettings writes them where the image says nothing itself.
func writeSettings() error {
	var errs []error
	for path, text := range settings {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			errs = append(errs, err)
			continue
		}
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err == nil {
			_, err = f.WriteString(text)
			err = errors.Join(err, f.Close())
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// troubleFile tells the door whose homes cannot be made.
const troubleFile = agentDir + "/trouble.json"
