package show

import (
	"cmp"
	"fmt"
	"io"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/cli/show/term"
)

// Apps writes web apps.
func Apps(w io.Writer, format string, apps []shoal.App) error {
	return list(w, format, apps, []string{"ID", "USER", "POOL", "ENDPOINT", "MACHINE", "STATE", "SINCE", "USED", "REASON"}, func(a shoal.App) []string {
		return []string{string(a.ID), string(a.User), string(a.Pool), endpoint(a), string(a.Machine), state(a), Ago(a.Since), Ago(a.LastActivity), term.Short(news(a), 80)}
	})
}

// App writes one web app.
func App(w io.Writer, format string, a shoal.App) error {
	return one(w, format, a, func(a shoal.App) []term.Field {
		return []term.Field{{"ID", string(a.ID)}, {"User", string(a.User)}, {"Pool", string(a.Pool)}, {"Endpoint", endpoint(a)}, {"State", state(a)},
			{"Reason", news(a)}, {"Open", cmp.Or(a.URL, a.BaseURL)}, {"Machine", string(a.Machine)}, {"Session", string(a.Session)}, {"Address", a.Address},
			{"Kernels", Only(a.Kernels > 0, fmt.Sprint(a.Kernels))}, {"Terminals", Only(a.Terminals > 0, fmt.Sprint(a.Terminals))},
			{"Asked for", when(a.Created)}, {"Started", when(a.Started)}, {"Last used", when(a.LastActivity)}, {"Ends", when(a.Ends)}, {"Ended", when(a.Ended)}, {"Last output", a.Log}}
	})
}

// endpoint is what an app is an instance of.
func endpoint(a shoal.App) string {
	if a.Name != "" {
		return a.Endpoint + " " + a.Name
	}
	return a.Endpoint
}

// state is the state a person reads.
func state(a shoal.App) string {
	switch {
	case a.Stopping:
		return "stopping"
	case a.Unknown:
		return string(a.State) + "?"
	case a.Ill != "":
		return "ill"
	}
	return string(a.State)
}

// news is what there is to say of an app.
func news(a shoal.App) string {
	switch {
	case a.Unknown:
		return "its machine does not answer"
	case a.Ill != "":
		return a.Ill
	case a.Reason != "":
		return a.Reason
	}
	return a.Progress
}
