package web

import (
	"net/http"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/access"
)

// Subject says who asks the API by a cookie. The request must come from a page of this origin and carry the
// page's token. She has a member's rights, unless she has confirmed this very request.
func (w *Web) Subject(r *http.Request) (access.Subject, error) {
	var none access.Subject
	u, secret, err := w.signedIn(r)
	switch {
	case isNobody(err):
		return none, shoal.Errorf(shoal.KindUnauthenticated, "nobody is signed in: the request carries no bearer token and no cookie that is good").
			WithHint("in a browser sign in at /shoal/login; `shoal login` gets a token")
	case err != nil:
		return none, err
	}
	if !w.fromHere(r) || !safe(r.Method) && r.Header.Get("Origin") == "" && r.Header.Get("Sec-Fetch-Site") == "" {
		return none, shoal.Errorf(shoal.KindDenied, "another site made this request, or a browser that does not say which")
	}
	if !tokenFits(secret, r.Header.Get(CSRFHeader)) {
		return none, shoal.Errorf(shoal.KindDenied, "the request carries a cookie without the token of a page of Shoal's").
			WithHint("send the token in the header %s, or use a bearer token", CSRFHeader)
	}
	by := access.Subject{User: u.Name, Role: u.Role, Groups: u.Groups, Browser: true}
	if token := r.Header.Get(StepUpHeader); token != "" {
		if err := w.confirmed(r, token, secret); err != nil {
			return none, err
		}
		by.Browser = false
	}
	return by, nil
}
