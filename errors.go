package shoal

import (
	"errors"
	"fmt"
	"log/slog"
)

// Kind says what sort of mistake an error is, in words that survive the wire.
type Kind string

// The kinds. KindInternal is whatever carries no kind.
const (
	KindInvalid         Kind = "invalid"         // the request itself is wrong
	KindNotFound        Kind = "notFound"        // no such object
	KindUnauthenticated Kind = "unauthenticated" // who is asking?
	KindDenied          Kind = "denied"          // known, but may not
	KindConflict        Kind = "conflict"        // the object is in another state than assumed
	KindExhausted       Kind = "exhausted"       // no capacity or quota
	KindUnavailable     Kind = "unavailable"     // a part does not answer; try again
	KindCancelled       Kind = "cancelled"       // the caller gave up
	KindInternal        Kind = "internal"        // a mistake of Shoal's own
)

// Meaning is what a kind stands for outside: the one table behind the HTTP
// status, the CLI's exit code, whether trying again may help, and the log level.
type Meaning struct {
	Kind   Kind
	Status int
	Exit   int
	Retry  bool
	Level  slog.Level
}

var meanings = []Meaning{
	{KindInvalid, 400, 2, false, slog.LevelDebug},
	{KindNotFound, 404, 3, false, slog.LevelDebug},
	{KindUnauthenticated, 401, 4, false, slog.LevelDebug},
	{KindDenied, 403, 4, false, slog.LevelInfo},
	{KindConflict, 409, 5, false, slog.LevelDebug},
	{KindExhausted, 429, 6, true, slog.LevelInfo},
	{KindUnavailable, 503, 7, true, slog.LevelWarn},
	{KindCancelled, 499, 1, true, slog.LevelDebug},
	{KindInternal, 500, 1, true, slog.LevelError},
}

// Meanings returns the table, a copy.
func Meanings() []Meaning { return append([]Meaning(nil), meanings...) }

// Meaning returns the row of a kind; an unknown kind reads as internal.
func (k Kind) Meaning() Meaning {
	for _, m := range meanings {
		if m.Kind == k {
			return m
		}
	}
	return meanings[len(meanings)-1]
}

// Error is a mistake with its kind, a sentence ("cannot drain machine m-7: …")
// and, where one is known, a hint that says what to do next.
type Error struct {
	Kind Kind
	Msg  string
	Hint string
	Err  error
	// Mistakes lists all that is wrong with documents, where the error is about such.
	Mistakes []Mistake
}

// Mistake is one thing wrong in a document. Those that came over the wire have no place but a path.
type Mistake struct {
	File   string `json:"file,omitempty"`
	Line   int    `json:"line,omitempty"` // from 1
	Column int    `json:"column,omitempty"`
	Path   string `json:"path,omitempty"` // "size.max"
	Msg    string `json:"msg"`
	Hint   string `json:"hint,omitempty"`
}

// Errorf makes an Error. A %w in format is kept as its cause.
func Errorf(kind Kind, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Kind: kind, Msg: err.Error(), Err: errors.Unwrap(err)}
}

// WithHint returns a copy that says what to do next.
func (e *Error) WithHint(format string, args ...any) *Error {
	c := *e
	c.Hint = fmt.Sprintf(format, args...)
	return &c
}

func (e *Error) Error() string { return e.Msg }

func (e *Error) Unwrap() error { return e.Err }

// MistakesOf returns the mistakes of the outermost Error in err's chain that has any.
func MistakesOf(err error) []Mistake {
	for err != nil {
		e, ok := errors.AsType[*Error](err)
		if !ok {
			return nil
		}
		if len(e.Mistakes) > 0 {
			return e.Mistakes
		}
		err = e.Err
	}
	return nil
}

// KindOf returns the kind of the outermost Error in err's chain, KindInternal if there is none.
func KindOf(err error) Kind {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Kind
	}
	return KindInternal
}

// HintOf returns the hint of the outermost Error in err's chain that has one.
func HintOf(err error) string {
	for err != nil {
		e, ok := errors.AsType[*Error](err)
		if !ok {
			return ""
		}
		if e.Hint != "" {
			return e.Hint
		}
		err = e.Err
	}
	return ""
}
