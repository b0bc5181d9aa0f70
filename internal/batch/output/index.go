package output

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"os"
	"slices"
	"sort"
)

// tail is where a stream stands in a log.
type tail struct {
	last int64 // where its last frame is
	size int64 // bytes of the stream
}

type entry struct {
	key
	tail
}

// An index holds blocks of entries, sorted within each. Where two blocks have an entry for a stream
// the later holds. All that was in the log up to a block's upTo is in it or in an earlier one. An
// index is worth nothing by itself: what it lacks is read from the log.
type index struct {
	f      *os.File
	blocks []block
}

// block says where entries are. Its filter is in memory: a task that writes all the time is in every
// block, so their ranges alone would have most of them read for each stream that is looked up.
type block struct {
	pos, upTo   int64
	count       int
	first, last key
	sum         uint32
	filterSum   uint32
	filter      filter
}

// errDamaged is that an index does not hold what was written to it, or not what the log holds.
var errDamaged = errors.New("the index is damaged")

const (
	blockMagic   = "\xf5Sy\xa7"
	blockHead    = 4 + 4 + 8 + 2*keySize + 4 + 4 + 4
	keySize      = 16
	entrySize    = keySize + 16
	blockEntries = 4096
	maxEntries   = 1 << 20
)

// entries is where its entries are.
func (b block) entries() int64 { return b.pos + blockHead + int64(filterSize(b.count)) }

func (b block) end() int64 { return b.entries() + int64(b.count)*entrySize }

// filter says of most streams that a block does not have that it does not: a Bloom filter.
type filter []byte

// filterSize is a byte for each entry: with 5 bits set of each, 1 in 46 is said to be there and is not.
func filterSize(entries int) int { return max(entries, 8) }

func (f filter) bits(k key) (bits [5]uint64) {
	h := uint64(k.index)*0x9e3779b97f4a7c15 ^ (uint64(k.attempt)<<32 | uint64(k.sub))
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9 // the finish of splitmix64
	h = (h ^ h>>27) * 0x94d049bb133111eb
	h ^= h >> 31
	for i := range bits {
		bits[i] = (h&0xffffffff + uint64(i)*(h>>32|1)) % uint64(len(f)*8)
	}
	return bits
}

func (f filter) add(k key) {
	for _, b := range f.bits(k) {
		f[b/8] |= 1 << (b % 8)
	}
}

// has is false only of what was not added.
func (f filter) has(k key) bool {
	for _, b := range f.bits(k) {
		if f[b/8]&(1<<(b%8)) == 0 {
			return false
		}
	}
	return true
}

// upTo is how much of the log the index covers.
func (x *index) upTo() int64 {
	if n := len(x.blocks); n > 0 {
		return x.blocks[n-1].upTo
	}
	return 0
}

func putKey(b []byte, k key) []byte {
	b = binary.LittleEndian.AppendUint64(b, uint64(k.index))
	b = binary.LittleEndian.AppendUint32(b, k.attempt)
	return binary.LittleEndian.AppendUint32(b, k.sub)
}

func getKey(b []byte) key {
	return key{int64(binary.LittleEndian.Uint64(b)), binary.LittleEndian.Uint32(b[8:]), binary.LittleEndian.Uint32(b[12:])}
}

func sum(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }

// encode gives a block's bytes.
func encodeBlock(upTo int64, entries []entry) []byte {
	body := make([]byte, 0, len(entries)*entrySize)
	filter := make(filter, filterSize(len(entries)))
	for _, e := range entries {
		filter.add(e.key)
		body = putKey(body, e.key)
		body = binary.LittleEndian.AppendUint64(body, uint64(e.last))
		body = binary.LittleEndian.AppendUint64(body, uint64(e.size))
	}
	b := append(make([]byte, 0, blockHead+len(filter)+len(body)), blockMagic...)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(entries)))
	b = binary.LittleEndian.AppendUint64(b, uint64(upTo))
	b = putKey(putKey(b, entries[0].key), entries[len(entries)-1].key)
	b = binary.LittleEndian.AppendUint32(b, sum(body))
	b = binary.LittleEndian.AppendUint32(b, sum(filter))
	b = binary.LittleEndian.AppendUint32(b, sum(b))
	return append(append(b, filter...), body...)
}

// parseBlock reads a block's head.
func parseBlock(b []byte) (k block, ok bool) {
	if len(b) < blockHead || string(b[:4]) != blockMagic || binary.LittleEndian.Uint32(b[blockHead-4:]) != sum(b[:blockHead-4]) {
		return k, false
	}
	k.count, k.upTo = int(binary.LittleEndian.Uint32(b[4:])), int64(binary.LittleEndian.Uint64(b[8:]))
	k.first, k.last, k.sum = getKey(b[16:]), getKey(b[16+keySize:]), binary.LittleEndian.Uint32(b[blockHead-12:])
	k.filterSum = binary.LittleEndian.Uint32(b[blockHead-8:])
	return k, k.count > 0 && k.count <= maxEntries && k.upTo > 0
}

// openIndex reads the heads of an index, up to the first that is not one, or that tells of more than
// there is in the log.
func openIndex(f *os.File, logged int64) (*index, error) {
	x := &index{f: f}
	head := make([]byte, blockHead)
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	for pos := int64(0); ; {
		if _, err := f.ReadAt(head, pos); err != nil && err != io.EOF {
			return nil, err
		} else if err == io.EOF {
			break
		}
		b, ok := parseBlock(head)
		b.pos = pos
		if !ok || b.end() > info.Size() || b.upTo <= x.upTo() || b.upTo > logged {
			break
		}
		b.filter = make(filter, filterSize(b.count))
		if _, err := f.ReadAt(b.filter, pos+blockHead); err != nil || sum(b.filter) != b.filterSum {
			break
		}
		x.blocks = append(x.blocks, b)
		pos = b.end()
	}
	// What is behind may speak of what the log will hold one day.
	if n := len(x.blocks); n > 0 {
		return x, f.Truncate(x.blocks[n-1].end())
	}
	return x, f.Truncate(0)
}

// table is the entries of a block as they are on disk.
type table []byte

func (t table) len() int { return len(t) / entrySize }

func (t table) at(i int) entry {
	b := t[i*entrySize:]
	return entry{getKey(b), tail{int64(binary.LittleEndian.Uint64(b[keySize:])), int64(binary.LittleEndian.Uint64(b[keySize+8:]))}}
}

// entries reads a block. It is false for one that is damaged.
func (x *index) entries(b block) (table, bool) {
	t := make(table, b.count*entrySize)
	if _, err := x.f.ReadAt(t, b.entries()); err != nil || sum(t) != b.sum {
		return nil, false
	}
	return t, true
}

// find looks a stream up. whole is false if a block was damaged.
func (x *index) find(k key) (t tail, found, whole bool) {
	for _, b := range slices.Backward(x.blocks) {
		if k.compare(b.first) < 0 || k.compare(b.last) > 0 || !b.filter.has(k) {
			continue
		}
		all, ok := x.entries(b)
		if !ok {
			return t, false, false
		}
		i := sort.Search(all.len(), func(i int) bool { return all.at(i).compare(k) >= 0 })
		if i < all.len() && all.at(i).key == k {
			return all.at(i).tail, true, true
		}
	}
	return t, false, true
}

// add writes what is new of the log up to a place: with the last block, while that is small. After an error
// what was lost of the index is among the news.
func (x *index) add(upTo int64, news map[key]tail) error {
	if n := len(x.blocks); n > 0 && x.blocks[n-1].count+len(news) <= blockEntries {
		old, ok := x.entries(x.blocks[n-1])
		if !ok {
			return errDamaged
		}
		for i := range old.len() {
			e := old.at(i)
			if _, newer := news[e.key]; !newer {
				news[e.key] = e.tail
			}
		}
		x.blocks = x.blocks[:n-1]
	}
	all := make([]entry, 0, len(news))
	for k, t := range news {
		all = append(all, entry{k, t})
	}
	slices.SortFunc(all, func(a, b entry) int { return a.compare(b.key) })
	b := encodeBlock(upTo, all)
	k, _ := parseBlock(b)
	k.filter = slices.Clone(b[blockHead:][:filterSize(k.count)])
	if n := len(x.blocks); n > 0 {
		k.pos = x.blocks[n-1].end()
	}
	if _, err := x.f.WriteAt(b, k.pos); err != nil {
		return err
	}
	if err := x.f.Truncate(k.end()); err != nil {
		return err
	}
	x.blocks = append(x.blocks, k)
	return nil
}
