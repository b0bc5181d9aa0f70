// Package submit makes jobs of what people write: flags, documents, files of Batch AI, batch scripts,
// lists of items and sweeps. It reads files by way of its caller and talks to no server.
package submit
