package api

import (
	"time"

	"github.com/shoal-pool/shoal"
)

// WebLink is an address at which a user is signed in, once, in the browser that opens it.
type WebLink struct {
	URL     string    `json:"url,omitempty"` // empty where the server does not know its own address
	Path    string    `json:"path"`          // of it
	Expires time.Time `json:"expires"`
}

// RedeemRequest asks whom a one-time code stands for. What it was made for must be said again.
type RedeemRequest struct {
	Code        string `json:"code"`
	RedirectURI string `json:"redirectUri"`
	State       string `json:"state"`
}

// Redeemed is who a one-time code stands for. Admin is false: nobody administrates the hub by her role here.
type Redeemed struct {
	User   shoal.UserName    `json:"user"`
	Groups []shoal.GroupName `json:"groups"`
	Admin  bool              `json:"admin"`
}

// StepUpRequest asks, from a browser, to be let make one request with the rights of one's role.
type StepUpRequest struct {
	Method string `json:"method,omitempty"`
	Path   string `json:"path,omitempty"` // from /api/v1/ on, with what follows a ?
	// Password confirms at once. Without one the answer has a code for `shoal web --confirm`.
	Password string `json:"password,omitempty"`
	// Token asks how the request stands for which it was given; nothing else is to be said then.
	Token string `json:"token,omitempty"`
}

// StepUp is a token for one request, good once it is confirmed, for a minute and once, in the header Shoal-Step-Up.
type StepUp struct {
	Token     string    `json:"token"`
	Expires   time.Time `json:"expires"`
	Confirmed bool      `json:"confirmed"`
	Code      string    `json:"code,omitempty"` // to confirm it by
}

// ConfirmRequest looks at, or confirms, what a browser of the caller's asks for.
type ConfirmRequest struct {
	Code    string `json:"code"`
	Confirm bool   `json:"confirm,omitempty"`
}

// Confirmation is what a browser asks for.
type Confirmation struct {
	Method    string `json:"method"`
	Path      string `json:"path"`
	Confirmed bool   `json:"confirmed"`
}

// AppStart is how far a user's app is, for a client that waits for it.
type AppStart struct {
	App      shoal.AppID    `json:"app,omitempty"`
	State    shoal.AppState `json:"state"`
	Sentence string         `json:"sentence"`
	// Elapsed and Expected are seconds since it was asked for, and how many it takes as a rule; 0: not known.
	Elapsed  int       `json:"elapsed,omitempty"`
	Expected int       `json:"expected,omitempty"`
	Location string    `json:"location,omitempty"` // where it is, once it runs
	Rev      shoal.Rev `json:"rev,omitempty"`
}
