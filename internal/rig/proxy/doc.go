// Package proxy runs HTTP proxies that are told their routes by configurable-http-proxy's API, ours and the
// original, each as a process of its own, with a backend behind them and clients before them: for tests that hold
// for both, and for measures of one beside the other.
package proxy
