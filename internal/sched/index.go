package sched

import (
	"cmp"
	"iter"
	"slices"

	"github.com/shoal-pool/shoal"
)

// index holds machines by what is left of them, the fullest first: so that large tasks find room,
// and empty machines can go. What fits nowhere is known without a look at every machine: they are
// in chunks, each with the most that any of its machines has left of each resource.
type index struct{ chunks []*chunk }

type chunk struct {
	slots []slot // in order
	most  shoal.Resources
}

// slot is a machine and the key under which it is there.
type slot struct {
	left    shoal.Resources
	machine *machine
}

// chunkSize is a balance of moving slots against looking at chunks.
const chunkSize = 96

func compareLeft(a, b shoal.Resources) int {
	return cmp.Or(cmp.Compare(a.GPUs, b.GPUs), cmp.Compare(a.CPUs, b.CPUs), cmp.Compare(a.Memory, b.Memory))
}

func (s slot) compare(o slot) int {
	if c := compareLeft(s.left, o.left); c != 0 {
		return c
	}
	return cmp.Compare(s.machine.ID, o.machine.ID)
}

// chunkOf is where a slot is, or would go.
func (x *index) chunkOf(s slot) int {
	i, _ := slices.BinarySearchFunc(x.chunks, s, func(c *chunk, s slot) int { return c.slots[len(c.slots)-1].compare(s) })
	return i
}

func (x *index) insert(s slot) {
	i := min(x.chunkOf(s), len(x.chunks)-1)
	if i < 0 {
		x.chunks = append(x.chunks, &chunk{slots: []slot{s}, most: s.left})
		return
	}
	c := x.chunks[i]
	at, _ := slices.BinarySearchFunc(c.slots, s, slot.compare)
	c.slots = slices.Insert(c.slots, at, s)
	c.most = most(c.most, s.left)
	if len(c.slots) > chunkSize {
		upper := &chunk{slots: slices.Clone(c.slots[chunkSize/2:])}
		c.slots = slices.Delete(c.slots, chunkSize/2, len(c.slots))
		c.measure()
		upper.measure()
		x.chunks = slices.Insert(x.chunks, i+1, upper)
	}
}

func (x *index) remove(s slot) {
	i := x.chunkOf(s)
	if i == len(x.chunks) {
		return
	}
	c := x.chunks[i]
	at, found := slices.BinarySearchFunc(c.slots, s, slot.compare)
	if !found {
		return
	}
	c.slots = slices.Delete(c.slots, at, at+1)
	if len(c.slots) == 0 {
		x.chunks = slices.Delete(x.chunks, i, i+1)
		return
	}
	if s.left.CPUs == c.most.CPUs || s.left.Memory == c.most.Memory || s.left.GPUs == c.most.GPUs {
		c.measure()
	}
}

func (c *chunk) measure() {
	c.most = c.slots[0].left
	for _, s := range c.slots[1:] {
		c.most = most(c.most, s.left)
	}
}

// fitting yields the machines with room for r, the fullest first. The index must not change meanwhile.
func (x *index) fitting(r shoal.Resources) iter.Seq[*machine] {
	return func(yield func(*machine) bool) {
		for _, c := range x.chunks {
			if !r.Fits(c.most) {
				continue
			}
			for i := range c.slots {
				if r.Fits(c.slots[i].left) && !yield(c.slots[i].machine) {
					return
				}
			}
		}
	}
}
