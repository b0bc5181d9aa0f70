package deploy

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/arm"
	"github.com/shoal-pool/shoal/internal/arm/tree"
)

// loader fetches templates. Files are those in the directory of the template that is deployed and below it, and
// only where that is a file itself.
type loader struct {
	dir    string // empty: no files
	own    string // the template's name in it
	note   func(format string, args ...any)
	client *http.Client // nil: the usual one
}

// patience is for how long a server may take.
const patience = 30 * time.Second

// template reads the template that is deployed.
func (l *loader) template(file, uri string) (arm.File, error) {
	switch {
	case file == "" && uri == "":
		return arm.File{}, shoal.Errorf(shoal.KindInvalid, "cannot deploy nothing: there is no template").WithHint("give --template-file FILE or --template-uri URL")
	case file != "" && uri != "":
		return arm.File{}, shoal.Errorf(shoal.KindInvalid, "cannot read two templates").WithHint("give either --template-file or --template-uri")
	}
	if u, err := url.Parse(uri); err == nil && u.Scheme == "file" {
		file = u.Path
	}
	if file == "" {
		f, err := l.Load(uri)
		if err != nil {
			return f, shoal.Errorf(shoal.KindOf(err), "cannot fetch the template: %w", err)
		}
		return f, nil
	}
	data, err := readFile(file)
	if err != nil {
		return arm.File{}, err
	}
	whole, err := filepath.Abs(file)
	if err != nil {
		return arm.File{}, err
	}
	if strings.EqualFold(filepath.Ext(file), ".bicep") {
		return arm.File{}, shoal.Errorf(shoal.KindInvalid, "cannot read %s: it is written in Bicep, and templates are read in JSON", file).WithHint("az bicep build --file %s makes one of it", file)
	}
	l.dir, l.own = filepath.Dir(whole), filepath.Base(whole)
	return arm.File{Name: file, URI: (&url.URL{Scheme: "file", Path: filepath.ToSlash(whole)}).String(), Data: data}, nil
}

// Load fetches what a template links. Errors do not hold what is behind the ? of an address.
func (l *loader) Load(uri string) (arm.File, error) {
	u, err := url.Parse(uri)
	if err != nil {
		return arm.File{}, shoal.Errorf(shoal.KindInvalid, "it is no address")
	}
	shown := (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
	switch u.Scheme {
	case "https":
		if f, ok := l.copied(u.Path); ok {
			l.note("%s is taken from %s, beside the template", shown, f.Name)
			return f, nil
		}
		data, err := l.fetch(uri, shown)
		return arm.File{Name: shown, URI: uri, Data: data}, err
	case "file", "":
		return l.beside(u.Path)
	}
	return arm.File{}, shoal.Errorf(shoal.KindInvalid, "templates are fetched by https, or lie beside the template").WithHint("use an https address")
}

// copied finds a linked template of an address beside the template: whoever has copied nested/net.json with the
// template means that one.
func (l *loader) copied(path string) (arm.File, bool) {
	if l.dir == "" {
		return arm.File{}, false
	}
	parts := strings.Split(strings.Trim(path, "/"), "/")
	for i := max(len(parts)-4, 0); i < len(parts); i++ {
		name := strings.Join(parts[i:], "/")
		if name == "" || name == l.own {
			continue
		}
		if f, err := l.beside(name); err == nil {
			return f, true
		}
	}
	return arm.File{}, false
}

// beside reads a file in the template's directory or below.
func (l *loader) beside(path string) (arm.File, error) {
	if l.dir == "" {
		return arm.File{}, shoal.Errorf(shoal.KindDenied, "a template from elsewhere reads no files here")
	}
	name := filepath.FromSlash(path)
	if filepath.IsAbs(name) {
		var err error
		if name, err = filepath.Rel(l.dir, name); err != nil {
			return arm.File{}, shoal.Errorf(shoal.KindDenied, "it does not lie beside the template")
		}
	}
	root, err := os.OpenRoot(l.dir)
	if err != nil {
		return arm.File{}, err
	}
	defer root.Close()
	f, err := root.Open(name)
	if errors.Is(err, os.ErrNotExist) {
		return arm.File{}, shoal.Errorf(shoal.KindNotFound, "there is no file %s beside the template", name)
	}
	if err != nil {
		return arm.File{}, shoal.Errorf(shoal.KindDenied, "a template reads files in its own directory and below, and not %s", tree.Clip(name, 100))
	}
	defer f.Close()
	data, err := bounded(f)
	whole := filepath.Join(l.dir, name)
	return arm.File{Name: name, URI: (&url.URL{Scheme: "file", Path: filepath.ToSlash(whole)}).String(), Data: data}, err
}

// fetch gets a template from a server.
func (l *loader) fetch(uri, shown string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, uri, nil)
	if err != nil {
		return nil, shoal.Errorf(shoal.KindInvalid, "it is no address")
	}
	c := http.Client{}
	if l.client != nil {
		c = *l.client
	}
	c.CheckRedirect = func(req *http.Request, via []*http.Request) error {
		if req.URL.Scheme != "https" || len(via) > 5 {
			return errors.New("it leads elsewhere than to https")
		}
		return nil
	}
	resp, err := c.Do(req)
	if err != nil {
		if u, ok := errors.AsType[*url.Error](err); ok {
			err = u.Err // without the address
		}
		return nil, shoal.Errorf(shoal.KindUnavailable, "%s does not answer: %w", shown, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, shoal.Errorf(shoal.KindUnavailable, "%s answers %d %s", shown, resp.StatusCode, http.StatusText(resp.StatusCode))
	}
	return bounded(resp.Body)
}

func bounded(r io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, tree.MaxSize+1))
	if err == nil && len(data) > tree.MaxSize {
		err = shoal.Errorf(shoal.KindInvalid, "it has more than %s", shoal.Bytes(tree.MaxSize))
	}
	return data, err
}

// readFile reads a file that the command line names.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, shoal.Errorf(shoal.KindInvalid, "cannot read %s: %w", path, err)
	}
	defer f.Close()
	data, err := bounded(f)
	if err != nil {
		return nil, shoal.Errorf(shoal.KindInvalid, "cannot read %s: %w", path, err)
	}
	return data, nil
}
