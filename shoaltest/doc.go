// Package shoaltest runs a whole Shoal within one test: the real store, engine,
// broker, scheduler, gateway and API, put together by package app as in `shoal
// serve`, with machines of the fake provider. Nothing of it touches the network or
// the host, so it lives in a testing/synctest bubble: hours of fake time pass in
// milliseconds, and a test can say exactly when something must have happened.
//
//	synctest.Test(t, func(t *testing.T) {
//		w := shoaltest.New(t)
//		w.Apply("kind: Pool\nname: lab\nprovider: fake\n…")
//		out := w.SSH("alice", "echo here") // wakes a machine
//	})
//
// A fake machine speaks the agents' protocol over HTTP and SSH as a real one does, but its
// commands are understood by the machine itself: see Machine.
package shoaltest
