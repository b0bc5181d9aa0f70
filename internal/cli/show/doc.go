// Package show writes the API's objects: as tables and fields for people, as JSON and
// YAML for programs. JSON is the API's own form, a list an array of it. YAML of the
// objects that people write is the documents they write, ready for `shoal apply`.
package show
