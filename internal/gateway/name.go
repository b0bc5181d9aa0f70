package gateway

import (
	"strings"

	"github.com/shoal-pool/shoal"
)

// Name is what somebody calls herself at the door: "alice", "alice+lab",
// "alice+lab/new" or "alice+lab/m-7f3kq2".
type Name struct {
	User    shoal.UserName
	Pool    shoal.PoolName  // empty: the user's default pool
	New     bool            // a fresh placement
	Machine shoal.MachineID // empty: any
}

// maxName bounds what is looked at: more than any valid name has.
const maxName = 256

// ParseName reads a login name. Where only the part behind the user is wrong, the user
// is returned with the error: who she is can be found out first, and she is told only then.
func ParseName(s string) (Name, error) {
	user, rest, more := strings.Cut(s, "+")
	if len(s) > maxName || !plain(user, "._-") {
		return Name{}, shoal.Errorf(shoal.KindInvalid, "cannot read the login name")
	}
	n := Name{User: shoal.UserName(user)}
	if !more {
		return n, nil
	}
	pool, place, more := strings.Cut(rest, "/")
	if !plain(pool, "._-") {
		return Name{User: n.User}, shoal.Errorf(shoal.KindInvalid, "cannot read the name of a pool behind %s+", user).WithHint(
			"log in as %s+POOL", user)
	}
	n.Pool = shoal.PoolName(pool)
	switch {
	case !more:
	case place == "new":
		n.New = true
	case strings.HasPrefix(place, "m-") && plain(place, "-"):
		n.Machine = shoal.MachineID(place)
	default:
		return Name{User: n.User}, shoal.Errorf(shoal.KindInvalid, "cannot read what follows %s+%s/", user, pool).WithHint(
			"say %[1]s+%[2]s/new for a fresh place, or %[1]s+%[2]s/m-… for a machine by its name", user, pool)
	}
	return n, nil
}

// Fresh returns the name by which the same login asks for a fresh placement.
func (n Name) Fresh() string { return string(n.User) + "+" + string(n.Pool) + "/new" }

// plain reports whether s is not empty and consists of ASCII letters, digits and some
// others, of which none may come first: what is not could not be a name of ours.
func plain(s, others string) bool {
	for i := range len(s) {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case i > 0 && strings.IndexByte(others, c) >= 0:
		case i == 0 && c == '_' && strings.Contains(others, "_"):
		default:
			return false
		}
	}
	return s != ""
}
