package web

import (
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/identity"
)

const maxForm = 16 << 10

// loginBody is the body of the login page.
type loginBody struct {
	User, Next, Token string
	Mistake           string
}

func (w *Web) routes() *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /shoal/{$}", w.person(w.home))
	mux.HandleFunc("GET /shoal/login", w.loginPage)
	mux.HandleFunc("POST /shoal/login", w.login)
	mux.HandleFunc("GET /shoal/link", w.linkPage)
	mux.HandleFunc("POST /shoal/link", w.useLink)
	mux.HandleFunc("POST /shoal/logout", w.logout)
	mux.HandleFunc("GET /shoal/logout", func(rw http.ResponseWriter, _ *http.Request) { redirect(rw, http.StatusSeeOther, home) }) // where the button is
	mux.HandleFunc("GET /shoal/authorize", w.authorize)
	mux.HandleFunc("GET /shoal/start/{pool}/{endpoint}", w.personOrProgram(w.startPage))
	mux.HandleFunc("POST /shoal/start/{pool}/{endpoint}", w.form(w.start))
	mux.HandleFunc("POST /shoal/desktop/{pool}/{endpoint}", w.form(w.desktop))
	mux.HandleFunc("GET /shoal/desktop/{pool}/{endpoint}", func(rw http.ResponseWriter, _ *http.Request) { redirect(rw, http.StatusSeeOther, home) }) // where the button is
	mux.HandleFunc("POST /shoal/stop/{app}", w.form(w.stopApp))
	mux.HandleFunc("POST /shoal/end/{session}", w.form(w.endSession))
	mux.HandleFunc("GET /shoal/static/{version}/{file}", w.static)
	mux.HandleFunc("GET /shoal", func(rw http.ResponseWriter, _ *http.Request) { redirect(rw, http.StatusMovedPermanently, home) })
	return mux
}

// Handler serves the pages, all below /shoal/.
func (w *Web) Handler() http.Handler {
	return w.guarded(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if _, pattern := w.mux.Handler(r); pattern == "" {
			w.nothing(rw, r)
			return
		}
		if !safe(r.Method) {
			r.Body = http.MaxBytesReader(rw, r.Body, maxForm)
		}
		w.mux.ServeHTTP(rw, r)
	}))
}

// visitor is somebody who is signed in.
type visitor struct {
	shoal.User
	secret string
}

// page is a view of hers.
func (v visitor) page(title string, body any) view {
	return view{Title: title, User: v.Name, CSRF: tokenFor(v.secret), Body: body}
}

// person serves whoever is signed in.
func (w *Web) person(serve func(http.ResponseWriter, *http.Request, visitor)) http.HandlerFunc {
	return func(rw http.ResponseWriter, r *http.Request) {
		u, secret, err := w.signedIn(r)
		if err == nil && !w.followed(r) {
			err = nobody()
		}
		if err != nil {
			w.unknown(rw, r, err)
			return
		}
		serve(rw, r, visitor{u, secret})
	}
}

// personOrProgram also serves a program with an API token, which gets no page.
func (w *Web) personOrProgram(serve func(http.ResponseWriter, *http.Request, visitor)) http.HandlerFunc {
	person := w.person(serve)
	return func(rw http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") == "" || w.cfg.Tokens == nil || wantsPage(r) {
			person(rw, r)
			return
		}
		name, err := w.cfg.Tokens(r)
		if err != nil {
			w.unknown(rw, r, err)
			return
		}
		serve(rw, r, visitor{User: shoal.User{Name: name}})
	}
}

// form serves a form of hers that a page of ours has sent.
func (w *Web) form(serve func(http.ResponseWriter, *http.Request, visitor)) http.HandlerFunc {
	return func(rw http.ResponseWriter, r *http.Request) {
		u, secret, err := w.signedIn(r)
		if err != nil {
			w.unknown(rw, r, err)
			return
		}
		if !w.readForm(rw, r) {
			return
		}
		if !w.fromHere(r) || !tokenFits(secret, r.PostForm.Get("csrf")) {
			w.stale(rw, r)
			return
		}
		serve(rw, r, visitor{u, secret})
	}
}

// readForm reads a form, or answers.
func (w *Web) readForm(rw http.ResponseWriter, r *http.Request) bool {
	if media, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";"); strings.TrimSpace(media) != "application/x-www-form-urlencoded" || r.ParseForm() != nil {
		w.Message(rw, r, http.StatusBadRequest, "That cannot be read", "What was sent is not a form of this page, or it is too long.", "")
		return false
	}
	return true
}

// stale answers a form that no page of ours has sent, or an old one.
func (w *Web) stale(rw http.ResponseWriter, r *http.Request) {
	w.Message(rw, r, http.StatusForbidden, "Please do that again", "The page you came from is too old, or it is not one of Shoal's. Nothing was done.", "Open the page anew and try again.")
}

func (w *Web) loginPage(rw http.ResponseWriter, r *http.Request) {
	to := next(r.URL.Query().Get("next"))
	switch _, _, err := w.signedIn(r); {
	case err == nil:
		redirect(rw, http.StatusSeeOther, to)
	case isNobody(err):
		w.showLogin(rw, r, http.StatusOK, loginBody{Next: to})
	default:
		w.unknown(rw, r, err)
	}
}

// showLogin gives a browser a login form of its own.
func (w *Web) showLogin(rw http.ResponseWriter, r *http.Request, status int, b loginBody) {
	b.Token = w.formToken(rw, r)
	w.show(rw, r, status, "login", view{Title: "Sign in", Body: b})
}

// formToken is the token of forms for those who are not signed in. It belongs to a cookie, so that a form that was
// made for one browser does not sign in another.
func (w *Web) formToken(rw http.ResponseWriter, r *http.Request) string {
	secret := secretOf(r, formCookie)
	if secret == "" {
		secret = shoal.NewToken()
	}
	setCookie(rw, formCookie, secret, formLife)
	return tokenFor(secret)
}

// ownForm reports whether a form was given to the browser that sends it.
func (w *Web) ownForm(r *http.Request) bool {
	return w.fromHere(r) && tokenFits(secretOf(r, formCookie), r.PostForm.Get("token"))
}

func (w *Web) login(rw http.ResponseWriter, r *http.Request) {
	if !w.readForm(rw, r) {
		return
	}
	// Nobody's name has capitals, which telephones put first.
	b := loginBody{User: strings.ToLower(strings.TrimSpace(r.PostForm.Get("user"))), Next: next(r.PostForm.Get("next"))}
	if !w.ownForm(r) {
		b.Mistake = "This form was too old. Please sign in again; your browser must accept cookies from here."
		w.showLogin(rw, r, http.StatusForbidden, b)
		return
	}
	name, password := shoal.UserName(b.User), r.PostForm.Get("password")
	b.User = clip(b.User)
	if name == "" || password == "" {
		b.Mistake = "Please give your name and your password."
		w.showLogin(rw, r, http.StatusBadRequest, b)
		return
	}
	known, err := w.withPassword(rw, r, name, password)
	if errors.Is(err, errChanged) { // a password that is hashed anew changes its hash and stays right
		known, err = w.withPassword(rw, r, name, password)
	}
	if err != nil {
		if !known { // it may be a password in the wrong field
			name = "(nobody)"
		}
		level := slog.LevelInfo
		if shoal.KindOf(err) == shoal.KindExhausted { // it was not looked at, and there may be very many
			level = slog.LevelDebug
		}
		w.cfg.Log.Log(r.Context(), level, "web: not signed in", "user", name, "from", r.RemoteAddr, "err", err)
	}
	switch shoal.KindOf(err) {
	case shoal.KindUnauthenticated, shoal.KindNotFound, shoal.KindDenied:
		b.Mistake = "The name or the password is not right."
		w.showLogin(rw, r, http.StatusUnauthorized, b)
	case shoal.KindExhausted:
		rw.Header().Set("Retry-After", identity.RetryAfter(err))
		b.Mistake = sentence(err.Error()) + " " + sentence(shoal.HintOf(err))
		w.showLogin(rw, r, http.StatusTooManyRequests, b)
	default:
		if err != nil {
			w.failed(rw, r, "You cannot be signed in now", err)
			return
		}
		redirect(rw, http.StatusSeeOther, b.Next)
	}
}

// withPassword signs in with a password. known: there is a user of that name; it takes as long to find out that there is none.
func (w *Web) withPassword(rw http.ResponseWriter, r *http.Request, name shoal.UserName, password string) (known bool, err error) {
	means, err := w.cfg.People.Means(r.Context(), name)
	if err == nil {
		err = w.cfg.People.CheckPassword(r.Context(), name, password, r.RemoteAddr)
	}
	if err == nil {
		err = w.signIn(rw, r, name, means, passwordLife)
	}
	return means != "", err
}

// errChanged: what she signs in by has changed since she proved who she is.
var errChanged = errors.New("the password or keys have just changed")

// signIn gives a browser a new cookie; the one it had is good for nothing any more. means are those of before she
// proved who she is.
func (w *Web) signIn(rw http.ResponseWriter, r *http.Request, name shoal.UserName, means string, life time.Duration) error {
	secret, _, err := w.cfg.People.OpenBrowser(r.Context(), name, life)
	if err != nil {
		return err
	}
	if now, err := w.cfg.People.Means(r.Context(), name); err != nil || now != means {
		return errors.Join(err, identity.Denied(), errChanged, w.cfg.People.CloseBrowser(r.Context(), secret))
	}
	w.leave(rw, r)
	setCookie(rw, sessionCookie, secret, life)
	setCookie(rw, formCookie, "", 0)
	leaveHub(rw)
	w.cfg.Log.Info("web: signed in", "user", name, "from", r.RemoteAddr)
	if w.cfg.SignedIn != nil {
		w.cfg.SignedIn(name, r.RemoteAddr)
	}
	return nil
}

// leave ends what a browser's cookie stands for. What the browser keeps of apps and notebooks of hers goes, too: whoever
// sits there next could read it.
func (w *Web) leave(rw http.ResponseWriter, r *http.Request) {
	u, secret, err := w.signedIn(r)
	if isNobody(err) {
		return
	}
	rw.Header().Set("Clear-Site-Data", `"cache"`)
	if err != nil {
		return
	}
	if err := w.cfg.People.CloseBrowser(r.Context(), secret); err != nil {
		w.cfg.Log.Warn("web: a cookie's secret cannot be removed", "user", u.Name, "err", err)
	}
	w.known.forget(u.Name)
}

// logout ends what the cookie stands for. Another site's form comes here without the cookie; it must not get the browser
// to forget it either.
func (w *Web) logout(rw http.ResponseWriter, r *http.Request) {
	if !w.readForm(rw, r) {
		return
	}
	u, secret, err := w.signedIn(r)
	if !w.fromHere(r) || err == nil && !tokenFits(secret, r.PostForm.Get("csrf")) {
		w.stale(rw, r)
		return
	}
	w.leave(rw, r)
	if !isNobody(err) && r.PostForm.Get("everywhere") != "" {
		if err == nil {
			err = w.cfg.People.CloseBrowsers(r.Context(), u.Name)
		}
		if err != nil {
			w.failed(rw, r, "You could not be signed out everywhere", err)
			return
		}
		w.Forget(u.Name)
	}
	setCookie(rw, sessionCookie, "", 0)
	leaveHub(rw)
	redirect(rw, http.StatusSeeOther, "/shoal/login")
}

// leaveHub takes the hub's cookies away: who signs in next in this browser must not meet the hub as somebody else.
func leaveHub(rw http.ResponseWriter) {
	http.SetCookie(rw, &http.Cookie{Name: "jupyterhub-hub-login", Path: "/hub/", MaxAge: -1})
	http.SetCookie(rw, &http.Cookie{Name: "jupyterhub-session-id", Path: "/", MaxAge: -1})
}

// linkBody is the body of the page of a one-time link.
type linkBody struct{ Token, Mistake string }

// linkPage asks before it signs in: whoever sends somebody a link of her own would otherwise have that person work
// in her place. The code is behind the #, so it is in no log; a script of ours puts it into the form.
func (w *Web) linkPage(rw http.ResponseWriter, r *http.Request) {
	w.showLink(rw, r, http.StatusOK, "")
}

func (w *Web) showLink(rw http.ResponseWriter, r *http.Request, status int, mistake string) {
	w.show(rw, r, status, "link", view{Title: "Sign in with a link", Body: linkBody{Token: w.formToken(rw, r), Mistake: mistake}})
}

// useLink signs in with a link's code, NAME.SECRET.
func (w *Web) useLink(rw http.ResponseWriter, r *http.Request) {
	if !w.readForm(rw, r) {
		return
	}
	if !w.ownForm(r) {
		w.showLink(rw, r, http.StatusForbidden, "This form was too old. Please try again; your browser must accept cookies from here.")
		return
	}
	text := strings.TrimSpace(r.PostForm.Get("code"))
	if i := strings.LastIndexByte(text, '#'); i >= 0 { // the whole address was pasted
		text = text[i+1:]
	}
	name, secret, _ := strings.Cut(text, ".")
	l, ok := w.links.Take(secret)
	if ok && string(l.user) == name {
		err := w.signIn(rw, r, l.user, l.means, linkedLife)
		if err == nil {
			redirect(rw, http.StatusSeeOther, home)
			return
		}
		if k := shoal.KindOf(err); k != shoal.KindNotFound && k != shoal.KindDenied && k != shoal.KindUnauthenticated {
			w.failed(rw, r, "You cannot be signed in now", err)
			return
		}
	}
	w.showLink(rw, r, http.StatusUnauthorized, "The link is not good, or not any more: each is good once, for five minutes. `shoal web` makes another.")
}
