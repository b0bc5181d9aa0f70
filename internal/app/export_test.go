package app

import "github.com/shoal-pool/shoal/internal/store"

// Store is where the server keeps what it knows.
func (a *App) Store() *store.DB { return a.store }

// LedBy is what agents are answered by.
var LedBy = ledBy

// Holds is holds.
var Holds = holds
