package client

import (
	"context"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
)

// Files lists what is in a job's outputs, as far as the caller may read it; under is OUTPUT or
// OUTPUT/PATH, and empty for all of it.
func (c *Client) Files(ctx context.Context, id shoal.JobID, under string) ([]api.JobFile, error) {
	return list[api.JobFile](ctx, c, pathOf("jobs", string(id), "files"), query("under", under), 0)
}

// File reads a file of a job's outputs, OUTPUT/PATH. It goes on where a connection broke, unless the file
// was changed meanwhile. The caller closes it.
func (c *Client) File(ctx context.Context, id shoal.JobID, name string) (*File, error) {
	f := &File{c: c, ctx: ctx, path: pathOf(append([]string{"jobs", string(id), "files"}, strings.Split(name, "/")...)...), patience: c.patient(c.patience)}
	for {
		err := f.open()
		if err == nil {
			return f, nil
		}
		if !f.patience.again(ctx, err) {
			return nil, err
		}
	}
}

// File is a file that is read.
type File struct {
	Size     int64
	Modified time.Time

	c        *Client
	ctx      context.Context
	path     string
	version  string // as the server tells it
	offset   int64
	body     io.ReadCloser // nil after a break
	patience *patience
}

func (f *File) open() error {
	k := call{method: http.MethodGet, path: f.path, header: http.Header{}}
	if f.offset > 0 {
		k.header.Set("Range", "bytes="+strconv.FormatInt(f.offset, 10)+"-")
		k.header.Set("If-Range", f.version)
	}
	resp, err := f.c.send(f.ctx, k)
	if err != nil {
		return err
	}
	if f.offset == 0 {
		f.Size, f.version = resp.ContentLength, resp.Header.Get("Last-Modified")
		f.Modified, _ = http.ParseTime(f.version) // zero if it is not told
	} else if resp.StatusCode != http.StatusPartialContent || resp.ContentLength != f.Size-f.offset {
		resp.Body.Close()
		return shoal.Errorf(shoal.KindConflict, "the file was changed while it was read").WithHint("read it again")
	}
	f.body = resp.Body
	return nil
}

func (f *File) Read(p []byte) (int, error) {
	for {
		if f.offset == f.Size {
			return 0, io.EOF
		}
		var err error
		if f.body == nil {
			err = f.open()
		}
		n := 0
		if err == nil {
			n, err = f.body.Read(p)
			f.offset += int64(n)
			if n > 0 {
				f.patience.reset()
				return n, nil // an error comes again
			}
			if err == nil {
				continue
			}
			if err == io.EOF && f.Size < 0 { // somebody between does not say how much it is
				return 0, io.EOF
			}
			f.Close()
			f.body = nil
			err = f.c.broken(f.ctx, err)
		}
		if !f.patience.again(f.ctx, err) {
			return 0, err
		}
	}
}

// Close ends the reading.
func (f *File) Close() error {
	if f.body == nil {
		return nil
	}
	return f.body.Close()
}
