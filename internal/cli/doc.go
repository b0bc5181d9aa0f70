// Package cli is the shoal command line: a file per command, and every command a
// thin layer over package client. What it knows beside the API is how people work at
// a prompt: where the server is, what a table looks like, when to say why something
// waits, and what a second Ctrl-C means.
//
// Nothing here reads the process's own streams, environment or signals: all come with
// Config, so that tests run whole command lines. Results go to Stdout, everything else
// to Stderr. Exit codes are those of shoal.Kind's table; `run --wait` and `job wait`
// exit as the job did, and with 125 where Shoal itself failed.
package cli
