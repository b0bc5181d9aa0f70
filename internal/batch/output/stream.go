package output

// Stream is one of the streams of a task.
type Stream int

// The streams of a task.
const (
	Stdout Stream = iota
	Stderr
	streams
)

func (s Stream) String() string { return [...]string{"stdout", "stderr"}[s] }

// ParseStream reads the name of a stream.
func ParseStream(name string) (Stream, bool) {
	switch name {
	case "stdout":
		return Stdout, true
	case "stderr":
		return Stderr, true
	}
	return 0, false
}
