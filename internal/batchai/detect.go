package batchai

import (
	"bytes"
	"strings"
)

// Kind is what a file is.
type Kind string

// The kinds of files.
const (
	NotOurs     Kind = ""           // no file of Batch AI's
	KindJob     Kind = "job"        // job.json
	KindCluster Kind = "cluster"    // cluster.json
	KindServer  Kind = "fileServer" // of which nothing can be made
)

// Detect looks at a file. Documents of ours have a kind, which these lack.
func Detect(data []byte) Kind {
	head := bytes.TrimLeft(plain(bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))), " \t\r\n")
	if len(head) == 0 || head[0] != '{' {
		return NotOurs
	}
	n, m := parse(data)
	if m != nil {
		return broken(head)
	}
	if n.under("kind") != nil {
		return NotOurs
	}
	p := n.under("properties")
	if p == nil {
		p = n
	}
	job, cluster := false, false
	for _, k := range p.keys {
		switch word := strings.ToLower(k.text); {
		case word == "datadisks" || word == "sshconfiguration":
			return KindServer
		case word == "vmsize" || word == "scalesettings" || word == "nodesetup" || word == "useraccountsettings":
			cluster = true
		case word == "nodecount" || word == "stdouterrpathprefix" || strings.HasSuffix(word, "settings"):
			job = true
		}
	}
	switch {
	case cluster:
		return KindCluster
	case job:
		return KindJob
	}
	schema := n.under("$schema")
	switch {
	case schema == nil:
		return NotOurs
	case strings.Contains(strings.ToLower(schema.text), "batchai") && strings.Contains(schema.text, "cluster"):
		return KindCluster
	case strings.Contains(strings.ToLower(schema.text), "batchai"):
		return KindJob
	}
	return NotOurs
}

// broken guesses what a file was to be that cannot be read, so that the right reader complains.
func broken(head []byte) Kind {
	lower := bytes.ToLower(head[:min(len(head), 64<<10)])
	has := func(word string) bool { return bytes.Contains(lower, []byte(`"`+word)) }
	switch {
	case has("kind\""):
		return NotOurs
	case has("vmsize\""):
		return KindCluster
	case has("properties\"") || has("nodecount\""):
		return KindJob
	}
	return NotOurs
}
