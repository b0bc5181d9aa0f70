package catalog

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/store"
)

// numbers gives out uids and gids. Every number that was ever anybody's is recorded among the
// settings, by number and by name, and stays with that name.
type numbers struct {
	tx    *store.Tx
	taken map[int]string // "user alice", of this moment
	next  int
	fresh map[int]string // to be recorded
}

const (
	nextSetting   = "ids.next"
	holderSetting = "ids.holder." // + number → name
	numberSetting = "ids.number." // + name → number
)

// holder is whose a number is or was; empty: nobody's ever.
func (n *numbers) holder(id int) (string, error) {
	if name, ok := n.taken[id]; ok {
		return name, nil
	}
	return n.tx.Setting(holderSetting + strconv.Itoa(id))
}

// claim takes a number that was written.
func (n *numbers) claim(m *mistakes, kind shoal.ObjectKind, name, path string, id int) error {
	if id == 0 {
		return nil
	}
	me := strings.ToLower(string(kind)) + " " + name
	holder, err := n.holder(id)
	if err != nil {
		return err
	}
	if holder != "" && holder != me {
		m.wrong(kind, name, path, "leave it out, and the next free one is given", "%d belongs to %s, or did once", id, holder)
		return nil
	}
	n.take(id, me)
	return nil
}

func (n *numbers) take(id int, name string) {
	n.taken[id] = name
	if n.fresh == nil {
		n.fresh = map[int]string{}
	}
	n.fresh[id] = name
}

// give sets *id, if it is zero, to the number that the name had before, or to the next free one.
func (n *numbers) give(name string, id *int) error {
	if *id != 0 {
		return nil
	}
	text, err := n.tx.Setting(numberSetting + name)
	if err != nil {
		return err
	}
	if old, err := strconv.Atoi(text); err == nil {
		if holder, ok := n.taken[old]; !ok || holder == name {
			*id = old
			n.take(old, name)
			return nil
		}
	}
	if n.next == 0 {
		text, err := n.tx.Setting(nextSetting)
		if err != nil {
			return err
		}
		n.next, _ = strconv.Atoi(text)
		n.next = max(n.next, shoal.FirstID)
	}
	for ; n.next <= shoal.LastID; n.next++ {
		holder, err := n.holder(n.next)
		if err != nil {
			return err
		}
		if holder == "" {
			*id = n.next
			n.take(n.next, name)
			n.next++
			return nil
		}
	}
	return shoal.Errorf(shoal.KindExhausted, "cannot give %s a number: all from %d to %d are or were in use", name, shoal.FirstID, shoal.LastID).
		WithHint("write a free one above %d", 999)
}

// record stores what was given out and taken.
func (n *numbers) record() error {
	for _, id := range slices.Sorted(maps.Keys(n.fresh)) {
		number, name := strconv.Itoa(id), n.fresh[id]
		if err := n.set(holderSetting+number, name); err != nil {
			return err
		}
		if err := n.set(numberSetting+name, number); err != nil {
			return err
		}
	}
	if n.next > 0 {
		return n.set(nextSetting, strconv.Itoa(n.next))
	}
	return nil
}

// set leaves alone what is right already: an Update that changes nothing wakes nobody.
func (n *numbers) set(key, value string) error {
	if old, err := n.tx.Setting(key); err != nil || old == value {
		return err
	}
	return n.tx.SetSetting(key, value)
}
