// Command standin is our front end with configurable-http-proxy's command line, as far as JupyterHub uses it. Tests
// and measures start it in the original's place; `shoal serve` is what people run.
package main
