package sched

import (
	"cmp"
	"slices"
	"time"

	"github.com/shoal-pool/shoal"
)

// needs is what decides where a task can go, and until when it is there.
type needs struct {
	resources   shoal.Resources // on each node
	nodes       shoal.Nodes
	limit       time.Duration
	preemptible bool
}

// shape is all tasks of a pool with the same needs: where one fits all do.
type shape struct {
	needs
	parts   int // that have it
	failed  int // the latest pass that found no place
	weighed int // the latest pass that found out what to do about that
}

func (p *pool) shape(n needs) *shape {
	sh := p.shapes[n]
	if sh == nil {
		sh = &shape{needs: n}
		p.shapes[n] = sh
	}
	sh.parts++
	return sh
}

func (p *pool) dropShape(sh *shape) {
	if sh.parts--; sh.parts == 0 {
		delete(p.shapes, sh.needs)
	}
}

// class is what a shape may use of a machine: everything but the seats in use, or what is never a seat's.
func (p *pool) class(n needs) int {
	if p.Interactive && !n.preemptible {
		return firm
	}
	return loan
}

// job is a job with its tasks that wait.
type job struct {
	part                // tasks that need what the job says
	grown       []*part // tasks that need more memory than that
	id          shoal.JobID
	number      int64
	pool        *pool
	account     *account
	priority    Priority
	total       int
	next        int
	maxRunning  int
	running     int
	gated       bool
	blocked     bool
	unshiftable bool
}

// part is those of a job's tasks that have the same needs.
type part struct {
	job    *job
	shape  *shape
	again  []int // ascending
	queued bool  // it is in its bucket
	gaveUp int   // how many machines there were when it was no longer waited for more; memory of Plan
}

// waiting is how many of its tasks wait.
func (t *part) waiting() int {
	n := len(t.again)
	if j := t.job; t == &j.part && !j.gated {
		n += j.total - j.next
	}
	return n
}

// ready is how many of them could start now if there were room.
func (t *part) ready() int {
	n := t.waiting()
	if t.job.blocked {
		return 0
	}
	if most := t.job.maxRunning; most > 0 {
		n = max(0, min(n, most-t.job.running))
	}
	return n
}

// full reports whether as many of its tasks run as may.
func (j *job) full() bool { return j.maxRunning > 0 && j.running >= j.maxRunning }

// position is that of the i-th waiting task.
func (t *part) position(i int) int {
	if i < len(t.again) {
		return t.again[i]
	}
	return t.job.next + i - len(t.again)
}

// parts yields all parts of a job.
func (j *job) parts(yield func(*part) bool) {
	if !yield(&j.part) {
		return
	}
	for _, t := range j.grown {
		if !yield(t) {
			return
		}
	}
}

// queue puts a job's parts into their buckets, or takes them out, as they have something ready or not.
func (j *job) queue() {
	for t := range j.parts {
		if ready := t.ready() > 0; ready != t.queued {
			if ready {
				t.enqueue()
			} else {
				t.dequeue()
			}
		}
		if t.queued {
			j.pool.dirty = true
		}
	}
}

// forget takes a job out of its pool.
func (j *job) forget() {
	for t := range j.parts {
		if t.queued {
			t.dequeue()
		}
		j.pool.dropShape(t.shape)
	}
	j.pool.dirty = true
}

// repeat adds a task to those that must start again, with other memory than the job's if that is not 0.
func (j *job) repeat(position int, memory shoal.Bytes) {
	for t := range j.parts {
		if _, found := slices.BinarySearch(t.again, position); found {
			return
		}
	}
	t := j.partWith(memory)
	if t == nil {
		n := j.shape.needs
		n.resources.Memory = memory
		t = &part{job: j, shape: j.pool.shape(n)}
		j.grown = append(j.grown, t)
	}
	i, _ := slices.BinarySearch(t.again, position)
	t.again = slices.Insert(t.again, i, position)
}

// partWith is the tasks that need so much memory; nil if there are none.
func (j *job) partWith(memory shoal.Bytes) *part {
	for t := range j.parts {
		if memory == 0 || t.shape.resources.Memory == memory {
			return t
		}
	}
	return nil
}

// take takes a task out of those that wait, and returns what it needs.
func (j *job) take(position int, memory shoal.Bytes) *shape {
	sh := j.shape
	if t := j.partWith(memory); t != nil {
		sh = t.shape
	} else if memory != 0 {
		n := sh.needs
		n.resources.Memory = memory
		sh = &shape{needs: n} // nothing with these needs waits
	}
	for t := range j.parts {
		if i, found := slices.BinarySearch(t.again, position); found {
			t.again = slices.Delete(t.again, i, i+1)
		}
	}
	j.next = max(j.next, position+1)
	j.grown = slices.DeleteFunc(j.grown, func(t *part) bool {
		empty := len(t.again) == 0
		if empty {
			if t.queued {
				t.dequeue()
			}
			j.pool.dropShape(t.shape)
		}
		return empty
	})
	return sh
}

func (t *part) enqueue() {
	q := &t.job.account.queues[t.job.priority]
	b := q.of[t.shape]
	if b == nil {
		if q.of == nil {
			q.of = map[*shape]*bucket{}
		}
		b = &bucket{at: len(q.list)}
		q.of[t.shape] = b
		q.list = append(q.list, line{t.job.number, t.shape, b})
	}
	b.insert(t)
	q.list[b.at].first = b.first()
	t.queued = true
}

func (t *part) dequeue() {
	q := &t.job.account.queues[t.job.priority]
	b := q.of[t.shape]
	b.remove(t.job.number)
	t.queued = false
	t.job.pool.dirty = true
	if b.live > 0 {
		q.list[b.at].first = b.first()
		return
	}
	delete(q.of, t.shape)
	last := len(q.list) - 1
	q.list[b.at] = q.list[last]
	q.list[b.at].bucket.at = b.at
	q.list[last] = line{}
	q.list = q.list[:last]
}

// queue is what is ready on an account with one priority: a bucket for each shape.
type queue struct {
	of   map[*shape]*bucket
	list []line // the same in a form that is quickly gone through
}

// line is a bucket and the number of its first job.
type line struct {
	first  int64
	shape  *shape
	bucket *bucket
}

// bucket is what is ready on one account with one priority and shape, by the job's number. What is
// taken out leaves a hole, so that neither end nor middle costs a move of all that follow.
type bucket struct {
	entries []entry
	live    int // entries that are no holes
	start   int // all before are holes
	at      int // its place in the queue's list
}

// first is the number of its first job.
func (b *bucket) first() int64 {
	for b.entries[b.start].part == nil {
		b.start++
	}
	return b.entries[b.start].number
}

type entry struct {
	number int64
	part   *part // nil: a hole
}

func (b *bucket) find(number int64) (int, bool) {
	return slices.BinarySearchFunc(b.entries, number, func(e entry, n int64) int { return cmp.Compare(e.number, n) })
}

func (b *bucket) insert(t *part) {
	b.live++
	i, found := b.find(t.job.number)
	b.start = min(b.start, i)
	if found {
		b.entries[i].part = t
		return
	}
	b.entries = slices.Insert(b.entries, i, entry{t.job.number, t})
}

func (b *bucket) remove(number int64) {
	i, found := b.find(number)
	if !found || b.entries[i].part == nil {
		return
	}
	b.entries[i].part = nil
	b.live--
	if b.live < len(b.entries)/2 {
		b.entries = slices.DeleteFunc(b.entries, func(e entry) bool { return e.part == nil })
		b.start = 0
	}
}
