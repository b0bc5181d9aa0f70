package show

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/cli/show/term"
)

// Users writes users.
func Users(w io.Writer, format string, users []shoal.User) error {
	return list(w, format, users, []string{"NAME", "UID", "ROLE", "GROUPS", "SIGNS IN WITH"}, func(u shoal.User) []string {
		return []string{string(u.Name), fmt.Sprint(u.UID), string(u.Role), Words(u.Groups), signsIn(u)}
	})
}

// User writes one user.
func User(w io.Writer, format string, u shoal.User) error {
	return one(w, format, u, func(u shoal.User) []term.Field {
		return []term.Field{{"Name", string(u.Name)}, {"UID", fmt.Sprint(u.UID)}, {"Role", string(u.Role)}, {"Groups", Words(u.Groups)},
			{"Shell", u.Shell}, {"Disabled", Only(u.Disabled, "yes")}, {"Password", Only(u.HasPassword, "set")},
			{"Keys", strings.Join(u.Keys, "\n")}, {"Budget", budget(u.Budget)}, {"Created", when(u.Created)}, {"Changed", when(u.Updated)}}
	})
}

func signsIn(u shoal.User) string {
	if u.Disabled {
		return "nothing: disabled"
	}
	var ways []string
	if n := len(u.Keys); n > 0 {
		ways = append(ways, Many(n, "key"))
	}
	if u.HasPassword {
		ways = append(ways, "password")
	}
	if len(ways) == 0 {
		return "nothing"
	}
	return strings.Join(ways, ", ")
}

// Groups writes groups.
func Groups(w io.Writer, format string, groups []shoal.Group) error {
	return list(w, format, groups, []string{"NAME", "GID", "MEMBERS"}, func(g shoal.Group) []string {
		return []string{string(g.Name), fmt.Sprint(g.GID), term.Short(Words(g.Members), 80)}
	})
}

// Group writes one group.
func Group(w io.Writer, format string, g shoal.Group) error {
	return one(w, format, g, func(g shoal.Group) []term.Field {
		return []term.Field{{"Name", string(g.Name)}, {"GID", fmt.Sprint(g.GID)}, {"Members", Words(g.Members)}, {"Budget", budget(g.Budget)}, {"Created", when(g.Created)}, {"Changed", when(g.Updated)}}
	})
}

// Sessions writes sessions.
func Sessions(w io.Writer, format string, sessions []shoal.Session) error {
	return list(w, format, sessions, []string{"ID", "USER", "POOL", "MACHINE", "STATE", "WHAT", "SINCE", "REASON"}, func(s shoal.Session) []string {
		return []string{string(s.ID), string(s.User), string(s.Pool), string(s.Machine), string(s.State), holds(s), Ago(s.Since), s.Reason}
	})
}

// holds says what a session consists of: "2 ssh, tmux", and until when it is kept awake.
func holds(s shoal.Session) string {
	count := map[string]int{}
	var kinds []string
	for _, part := range s.Parts {
		if count[part.Kind] == 0 {
			kinds = append(kinds, part.Kind)
		}
		count[part.Kind]++
	}
	var out []string
	for _, k := range kinds {
		out = append(out, fmt.Sprintf("%d %s", count[k], k))
	}
	for _, pin := range s.Pins {
		out = append(out, fmt.Sprintf("%d %s", pin.Count, pin.Kind))
	}
	if s.KeepUntil.After(time.Now()) && s.Live() {
		out = append(out, "kept awake for "+strings.TrimPrefix(Ago(s.KeepUntil), "in "))
	}
	if !s.Ends.IsZero() && s.Live() {
		out = append(out, s.Ending+" ends "+Ago(s.Ends)+Only(s.Ending != "machine", " unless it is used"))
	}
	return strings.Join(out, ", ")
}

// Images writes the images that are kept.
func Images(w io.Writer, format string, images []api.Image) error {
	return list(w, format, images, []string{"NAME", "KIND", "CREATED"}, func(i api.Image) []string {
		return []string{i.Name, i.Kind, Ago(i.Created)}
	})
}
