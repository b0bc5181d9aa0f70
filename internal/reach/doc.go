// Package reach connects the gateway to machines, by whichever way there is: directly, or by a connection that the machine's agent
// makes from inside when it is asked for one. So pods of a cluster that the gateway is not in, and machines behind NAT, are reached.
//
// The direct way is taken where whoever answers at the machine's address proves with its ssh host key to be that machine:
// the same address may be another's where the gateway is. What was found is remembered and looked at again now and then. While
// it is not known yet, and nothing answers, the other way is taken.
//
// The other way is one connection for each stream, through the agents' door: nothing that one stream carries holds another up. What asks
// for it goes by the agent's stream of desired state, with a secret that is good once, and only from that machine. Once both sides have
// shown by TLS who they are, ssh goes on without TLS around it, where what lies between lets it.
package reach
