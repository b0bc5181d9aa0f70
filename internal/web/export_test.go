package web

// The readers of foreign input.
var (
	Next       = next
	LocalPath  = localPath
	SameOrigin = sameOrigin
	SecretOf   = secretOf
)
