package httpapi

import (
	"context"
	"net/http"
	"os"
	"path"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/access"
	"github.com/shoal-pool/shoal/internal/batch/files"
	"github.com/shoal-pool/shoal/internal/httpapi/rest"
)

// Files knows where the outputs of jobs are.
type Files interface {
	Files(ctx context.Context, by access.Subject, id shoal.JobID) (files.User, []files.Output, error)
}

// jobFiles lists what is in a job's outputs. The cursor is the last file of the page before.
func (a *API) jobFiles(c *call) (api.List[api.JobFile], error) {
	var none api.List[api.JobFile]
	cursor, limit, err := c.Page()
	if err != nil {
		return none, err
	}
	u, outputs, err := a.cfg.Files.Files(c.Ctx, c.By, job(c))
	if err != nil {
		return none, err
	}
	all, more, err := a.files.List(c.Ctx, u, outputs, c.Query("under"), cursor, limit)
	if err != nil {
		return none, err
	}
	next := ""
	if more {
		last := all[len(all)-1]
		next = path.Join(last.Output, last.Path)
	}
	return listed(all, next, a.cfg.Store.Rev()), nil
}

// jobFile sends a file, or the part of it that a Range asks for.
func (a *API) jobFile(c *call) error {
	u, outputs, err := a.cfg.Files.Files(c.Ctx, c.By, job(c))
	if err != nil {
		return err
	}
	f, err := a.files.Open(c.Ctx, u, outputs, c.Name("path"))
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return shoal.Errorf(shoal.KindUnavailable, "cannot read the file: %w", err)
	}
	// What a job wrote is nothing that a browser should run in this server's name.
	h := c.W.Header()
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Content-Disposition", "attachment")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	http.ServeContent(c.W, c.Req, "", info.ModTime(), slow{f, http.NewResponseController(c.W)})
	_ = http.NewResponseController(c.W).SetWriteDeadline(time.Time{}) // as for other answers
	return nil
}

// slow is a file whose reader is gone if she does not take a piece for a while.
type slow struct {
	*os.File
	rc *http.ResponseController
}

func (s slow) Read(p []byte) (int, error) {
	_ = s.rc.SetWriteDeadline(time.Now().Add(rest.WriteTime)) // not every connection can
	return s.File.Read(p)
}
