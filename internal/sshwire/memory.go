package sshwire

import "sync"

const (
	aheadSize  = 64 << 10 // lets one system call fetch two full packets
	packetSize = 32 << 10 // what fits into one packet of data

	// keelFrom is how much a stream moves in one go before it counts as a large transfer.
	keelFrom = 8 << 20
	keelSize = 32 << 20
)

// memory is what the connections of this process share.
type memory struct {
	ahead, packets, heads sync.Pool // of *[]byte
	keel                  keel
}

// shared is a variable of the package because the heap and its collector are the process's.
var shared = memory{
	ahead:   sync.Pool{New: func() any { return buffer(aheadSize) }},
	packets: sync.Pool{New: func() any { return buffer(packetSize) }},
	heads:   sync.Pool{New: func() any { return buffer(headSize) }},
}

func buffer(size int) *[]byte {
	b := make([]byte, size)
	return &b
}

// keel keeps the heap from rolling during large transfers. For every packet it receives,
// x/crypto/ssh allocates its size. In the small heap of a quiet gateway that makes the runtime collect
// a hundred times a second and give memory back to the system that is taken again at once, which costs a third of
// the throughput. A weight in the heap makes it collect more seldom. The weight is never
// written to, so it takes no memory of the machine; and without transfers it is not there, so what
// idle sessions cost does not change.
type keel struct {
	mu     sync.Mutex
	users  int
	weight []byte
}

func (k *keel) lower() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.users++; k.users == 1 {
		k.weight = make([]byte, keelSize)
	}
}

func (k *keel) raise() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.users--; k.users == 0 {
		k.weight = nil
	}
}
