package shoal

// Budget is what the sessions and tasks of a user, or of a group's members, may cost in a calendar month (UTC). Most
// of it spent is told as a warning; all of it as well, and with Stop nothing new begins until the next month. What
// runs goes on.
type Budget struct {
	PerMonth float64 `json:"perMonth,omitempty"`
	Currency string  `json:"currency,omitempty"`
	Stop     bool    `json:"stop,omitempty"`
}
