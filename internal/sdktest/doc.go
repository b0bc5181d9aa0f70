// Package sdktest runs the tests of the Python package in sdk/python with the host's Python, against
// processes of this host and a stand-in for the server. The real server meets it in internal/scripttest.
package sdktest
