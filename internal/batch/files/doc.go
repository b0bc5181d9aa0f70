// Package files reads what a job left in its outputs, from the shares' directories on this host.
//
// It reads with the rights of a user, never with the server's own: whoever asks sees what she would
// see in a session. A share's directory is opened by the server, as it is for a machine; everything
// below it is opened by a thread that has the user's numbers for files (fsuid, fsgid, groups) and is
// thrown away afterwards. Its other numbers stay the server's, or she could send it signals. No link
// and no ".." leads out of the share, also not one that is put there meanwhile.
//
// What it deliberately does not do: it knows neither jobs nor who may see them.
package files
