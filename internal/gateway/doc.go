// Package gateway is where people come in. It holds what all front ends share:
// the names they log in by, the door that keeps guessers from crowding out
// others, and the hold that keeps a login informed while its machine starts.
// Each front end is a package below this one; sshfront is the one for SSH.
//
// A front end authenticates with a Directory, asks a Router where the login
// goes, and moves bytes. It decides nothing about pools and machines, and what
// it knows of them it can forget: after a restart everything is asked again.
package gateway
