package api

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/shoal-pool/shoal"
)

// OutputMedia is the type of output in frames, for who asks with frames=true. Each frame is a line; the
// bytes of data follow it. So a reader sees what is not kept, knows at which byte it is, notices a
// connection that died, and tells the true end from one that a proxy made:
//
//	data OFFSET LENGTH    so many bytes follow
//	gap OFFSET LENGTH     so many bytes of the output are not kept
//	beat                  nothing new, every 15 s or so
//	end OFFSET            all there is was sent; with follow the task is over
const OutputMedia = "application/vnd.shoal.output"

// The kinds of frames.
const (
	OutputData = "data"
	OutputGap  = "gap"
	OutputBeat = "beat"
	OutputEnd  = "end"
)

// OutputFrame is a frame, without its data.
type OutputFrame struct {
	Kind           string
	Offset, Length int64
}

// MaxOutputLine is longer than any line of a frame.
const MaxOutputLine = 64

// Line is how a frame is written.
func (f OutputFrame) Line() []byte {
	switch f.Kind {
	case OutputData, OutputGap:
		return fmt.Appendf(nil, "%s %d %d\n", f.Kind, f.Offset, f.Length)
	case OutputEnd:
		return fmt.Appendf(nil, "%s %d\n", f.Kind, f.Offset)
	}
	return []byte(f.Kind + "\n")
}

// ParseOutputLine reads the line of a frame, without its end.
func ParseOutputLine(line string) (f OutputFrame, err error) {
	words := strings.Split(line, " ")
	wanted, known := map[string]int{OutputData: 3, OutputGap: 3, OutputBeat: 1, OutputEnd: 2}[words[0]]
	if !known || len(words) != wanted {
		return f, shoal.Errorf(shoal.KindUnavailable, "cannot read %q as a line of output's frames", line[:min(len(line), MaxOutputLine)])
	}
	f.Kind = words[0]
	for i, into := range []*int64{&f.Offset, &f.Length}[:wanted-min(wanted, 1)] {
		if *into, err = strconv.ParseInt(words[i+1], 10, 64); err != nil || *into < 0 {
			return f, shoal.Errorf(shoal.KindUnavailable, "cannot read %q as a line of output's frames", line[:min(len(line), MaxOutputLine)])
		}
	}
	return f, nil
}

// OutputNotice is what a person reads in place of output that is not kept.
func OutputNotice(missing int64) []byte {
	return fmt.Appendf(nil, "\n--- %d bytes (%s) of output are not kept here ---\n", missing, shoal.Bytes(missing))
}
