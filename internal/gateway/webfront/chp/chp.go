// Package chp is the REST API of configurable-http-proxy, by which a hub of JupyterHub says where requests go:
// GET, POST and DELETE of /api/routes and below. Where it differs from the original is listed in docs/reference/chp.md.
package chp

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/gateway/webfront/routes"
)

// Config is what the API works on.
type Config struct {
	Routes *routes.Table
	Token  string // every request must have it
	// Guarded: of the routes that are put here, those with a user are for that user's own browser only.
	Guarded bool
	// Hosts: the first segment of each path is a host, and is told as such.
	Hosts bool
	Log   *slog.Logger
}

// maxBody bounds the JSON of one route.
const maxBody = 64 << 10

// Handler serves the API.
type Handler struct {
	cfg   Config
	token [sha256.Size]byte
}

// New makes the API. It refuses to work without a token: whoever writes routes reads what users send.
func New(cfg Config) (*Handler, error) {
	if cfg.Token == "" || cfg.Routes == nil {
		return nil, errors.New("cannot serve the routes' API without a token and a table")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Handler{cfg: cfg, token: sha256.Sum256([]byte(cfg.Token))}, nil
}

var scheme = regexp.MustCompile(`^token\s+(\S+)\s*$`)

// admits compares in the same time whatever was sent.
func (h *Handler) admits(r *http.Request) bool {
	sent := ""
	if m := scheme.FindStringSubmatch(r.Header.Get("Authorization")); m != nil {
		sent = m[1]
	}
	sum := sha256.Sum256([]byte(sent))
	return subtle.ConstantTimeCompare(sum[:], h.token[:]) == 1
}

func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	escaped, ours := strings.CutPrefix(r.URL.EscapedPath(), "/api/routes")
	if !ours || escaped != "" && escaped[0] != '/' {
		fail(w, http.StatusNotFound, "Not Found")
		return
	}
	handle := map[string]func(http.ResponseWriter, *http.Request, string){
		http.MethodGet: h.get, http.MethodPost: h.post, http.MethodDelete: h.delete}[r.Method]
	if handle == nil {
		fail(w, http.StatusMethodNotAllowed, "Method not supported")
		return
	}
	if !h.admits(r) {
		w.WriteHeader(http.StatusForbidden)
		return
	}
	prefix, err := url.PathUnescape(escaped)
	if err != nil || !utf8.ValidString(prefix) {
		fail(w, http.StatusBadRequest, "Path not valid: it must be UTF-8, with % and two hexadecimal digits where something is escaped")
		return
	}
	handle(w, r, routes.Clean(prefix))
}

func (h *Handler) get(w http.ResponseWriter, r *http.Request, prefix string) {
	if prefix != "/" {
		route := h.cfg.Routes.Get(prefix)
		if route == nil {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		answer(w, route.AppendJSON(nil))
		return
	}
	before, err := inactiveSince(r.URL.Query())
	if err != nil {
		fail(w, http.StatusBadRequest, err.Error())
		return
	}
	all := []byte{'{'}
	for _, route := range h.cfg.Routes.All() {
		if !before.IsZero() && !route.LastUsed().Before(before) {
			continue
		}
		key, err := json.Marshal(route.Prefix)
		if err != nil {
			continue // cannot be: any text can be written
		}
		if len(all) > 1 {
			all = append(all, ',')
		}
		all = append(append(all, key...), ':')
		all = route.AppendJSON(all)
	}
	answer(w, append(all, '}'))
}

func (h *Handler) post(w http.ResponseWriter, r *http.Request, prefix string) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		var large *http.MaxBytesError
		if errors.As(err, &large) {
			fail(w, http.StatusRequestEntityTooLarge, "Body too large")
		}
		return
	}
	if !json.Valid(body) {
		fail(w, http.StatusBadRequest, "Body not valid JSON")
		return
	}
	var posted map[string]json.RawMessage
	if err := json.Unmarshal(body, &posted); err != nil {
		posted = nil // valid, and no object: it has no target
	}
	if h.cfg.Hosts && prefix != "/" && posted != nil {
		host, _, _ := strings.Cut(prefix[1:], "/")
		posted["host"], _ = json.Marshal(host)
	}
	if err := h.cfg.Routes.Put(prefix, posted, h.cfg.Guarded, time.Now()); err != nil {
		h.cfg.Log.Warn("a route was refused", "err", err)
		if shoal.KindOf(err) == shoal.KindExhausted {
			fail(w, http.StatusInsufficientStorage, err.Error())
			return
		}
		fail(w, http.StatusBadRequest, "Must specify 'target' as string")
		return
	}
	h.cfg.Log.Debug("route added", "prefix", prefix)
	w.WriteHeader(http.StatusCreated)
}

func (h *Handler) delete(w http.ResponseWriter, _ *http.Request, prefix string) {
	if !h.cfg.Routes.Remove(prefix) {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	h.cfg.Log.Debug("route removed", "prefix", prefix)
	w.WriteHeader(http.StatusNoContent)
}

// inactiveSince reads the time from before which routes are asked for. Zero: all are.
func inactiveSince(query url.Values) (time.Time, error) {
	text, asked := "", false
	for _, key := range []string{"inactiveSince", "inactive_since"} {
		if query.Has(key) {
			text, asked = query.Get(key), true
		}
	}
	if !asked {
		return time.Time{}, nil
	}
	// A plus sign of an offset that was not escaped has become a space.
	text = strings.TrimSpace(text)
	for _, candidate := range []string{text, strings.Replace(text, " ", "+", 1)} {
		for _, form := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999Z0700", "2006-01-02T15:04Z07:00", "2006-01-02", "2006-01", "2006", time.RFC1123, time.RFC1123Z} {
			if t, err := time.Parse(form, candidate); err == nil {
				return t, nil
			}
		}
		for _, form := range []string{"2006-01-02T15:04:05.999999999", "2006-01-02 15:04:05.999999999", "2006-01-02T15:04"} {
			if t, err := time.ParseInLocation(form, candidate, time.Local); err == nil {
				return t, nil
			}
		}
	}
	return time.Time{}, shoal.Errorf(shoal.KindInvalid, "Invalid datestamp '%s' must be ISO8601.", text)
}

func answer(w http.ResponseWriter, body []byte) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(body) // whoever asked has gone
}

func fail(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text)
}
