package tasks

// Person is the account a task runs as.
type Person struct {
	UID    int    `json:"uid"`
	GID    int    `json:"gid"`
	Groups []int  `json:"groups,omitempty"` // beside the primary one, or with it
	Home   string `json:"home"`
	Shell  string `json:"shell,omitempty"`
}
