package output

import (
	"cmp"
	"encoding/binary"
	"hash/crc32"

	"github.com/shoal-pool/shoal"
)

// key names a stream of a node of an attempt, within a job.
type key struct {
	index   int64
	attempt uint32
	sub     uint32 // twice the node's rank, plus the stream
}

func keyOf(ref shoal.AttemptRef, rank int, stream Stream) key {
	return key{int64(ref.Index), uint32(ref.Attempt), uint32(rank)*uint32(streams) + uint32(stream)}
}

func (k key) compare(o key) int {
	return cmp.Or(cmp.Compare(k.index, o.index), cmp.Compare(k.attempt, o.attempt), cmp.Compare(k.sub, o.sub))
}

// frame is a piece of a stream in a log. Frames of one stream follow each other without a gap, and
// each knows where in the log two before it are, so that any byte is found from the last frame in
// few steps and nothing but that frame's position need be remembered.
type frame struct {
	key
	number int64 // within its stream, from 0
	offset int64 // of its first byte within the stream
	back   int64 // how far before it in the log the stream's previous frame is; 0: it is the first
	jump   int64 // the same of the frame whose number is this one's without its lowest bit
	span   int64 // how far before this one's, in the stream, that frame's first byte is
	size   int   // of its data
	head   int   // of what is before its data
}

// length is what a frame takes in the log.
func (f frame) length() int64 { return int64(f.head + f.size) }

// end is the offset in the stream after its last byte.
func (f frame) end() int64 { return f.offset + int64(f.size) }

// A frame is a fixed part, the varints of its fields, and the data:
//
//	magic 4 | CRC-32C of what follows 4 | length of the varints 1 | length of the data 4
const (
	magic     = "\xf5Sh\xa7" // no UTF-8: text never holds it
	fixed     = 4 + 4 + 1 + 4
	maxHead   = fixed + 8*binary.MaxVarintLen64
	maxData   = 64 << 10
	maxLength = maxHead + maxData
)

// seal is the checksum that frames of a job's log have. It begins with the job's number: what came
// from another log is no frame here.
func seal(job shoal.JobID, b []byte) uint32 {
	table := crc32.MakeTable(crc32.Castagnoli)
	return crc32.Update(crc32.Checksum([]byte(job), table), table, b[8:])
}

// appendFrame appends a frame with its data.
func appendFrame(b []byte, job shoal.JobID, f frame, data []byte) []byte {
	start := len(b)
	b = append(b, magic...)
	b = append(b, make([]byte, fixed-len(magic))...)
	b = binary.AppendVarint(b, f.index)
	for _, v := range []int64{int64(f.attempt), int64(f.sub), f.number, f.offset, f.back, f.jump, f.span} {
		b = binary.AppendUvarint(b, uint64(v))
	}
	b[start+8] = byte(len(b) - start - fixed)
	binary.LittleEndian.PutUint32(b[start+9:], uint32(len(data)))
	b = append(b, data...)
	binary.LittleEndian.PutUint32(b[start+4:], seal(job, b[start:]))
	return b
}

// parseFrame reads the head of a frame; it does not look at the data, nor at the checksum.
func parseFrame(b []byte) (f frame, ok bool) {
	if len(b) < fixed || string(b[:4]) != magic {
		return f, false
	}
	f.head = fixed + int(b[8])
	size := binary.LittleEndian.Uint32(b[9:])
	if f.head > maxHead || len(b) < f.head || size == 0 || size > maxData {
		return f, false
	}
	f.size = int(size)
	rest := b[fixed:f.head]
	index, n := binary.Varint(rest)
	if n <= 0 {
		return f, false
	}
	f.index, rest = index, rest[n:]
	var v [7]uint64
	for i := range v {
		if v[i], n = binary.Uvarint(rest); n <= 0 || v[i] > 1<<62 {
			return f, false
		}
		rest = rest[n:]
	}
	f.attempt, f.sub = uint32(v[0]), uint32(v[1])
	f.number, f.offset, f.back, f.jump, f.span = int64(v[2]), int64(v[3]), int64(v[4]), int64(v[5]), int64(v[6])
	first := f.number == 0
	ok = len(rest) == 0 && uint64(f.attempt) == v[0] && uint64(f.sub) == v[1] && f.span <= f.offset &&
		first == (f.offset == 0) && first == (f.back == 0) && first == (f.jump == 0) && f.back <= f.jump
	return f, ok
}

// checkFrame reads a whole frame, which may have more behind it, and holds it against its checksum.
func checkFrame(job shoal.JobID, b []byte) (frame, bool) {
	f, ok := parseFrame(b)
	if !ok || int64(len(b)) < f.length() {
		return f, false
	}
	return f, binary.LittleEndian.Uint32(b[4:]) == seal(job, b[:f.length()])
}
