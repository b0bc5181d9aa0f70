// Package local is the built-in directory: users are objects of the store, their
// keys are part of the object, password hashes and tokens lie beside it.
//
// Passwords are hashed with argon2id. A check costs 19 MiB and tens of
// milliseconds on purpose, so at most four run at once, few wait, and the rest is
// turned away at once. Wrong guesses slow down their source and their account, but
// never a login by key, and never a source from which the account has signed in
// before.
//
// Tokens and challenges are for the API. A token is 160 random bits of which only
// the hash is stored. A challenge is signed with the user's SSH key
// (`ssh-keygen -Y sign -n shoal-login`); the server keeps nothing for one that is
// never answered.
package local
