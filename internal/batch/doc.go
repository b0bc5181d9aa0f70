// Package batch takes jobs, and answers for them.
//
// What people ask for is here: submissions, cancellations, retries, lists, outputs, and why something
// waits. Each change is a request to package book, which keeps the truth about jobs and moves their
// tasks. What can never run is refused by package admit before it gets there.
//
// What it deliberately does not do: it makes no machines. Waiting tasks are demand that the engine
// sees in the store.
package batch
