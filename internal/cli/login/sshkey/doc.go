// Package sshkey signs a text with the user's SSH key, as `ssh-keygen -Y sign` does:
// with a key that an ssh-agent holds, or with one of a file. Secrets pass through
// this process only; no program is started.
package sshkey
