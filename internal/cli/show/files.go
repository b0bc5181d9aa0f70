package show

import (
	"io"
	"path"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
)

// JobFiles writes the files in a job's outputs, by the names that `shoal job files` takes.
func JobFiles(w io.Writer, format string, files []api.JobFile) error {
	return list(w, format, files, []string{"FILE", "SIZE", "MODIFIED"}, func(f api.JobFile) []string {
		name, size := path.Join(f.Output, f.Path), shoal.Bytes(f.Size).String()
		if f.Dir {
			name, size = name+"/", ""
		}
		return []string{name, size, f.Modified.Local().Format("2006-01-02 15:04:05")}
	})
}
