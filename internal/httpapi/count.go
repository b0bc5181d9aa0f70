package httpapi

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/shoal-pool/shoal/internal/httpapi/figures"
)

// Count lets /metrics tell others' figures, too. It is called before anybody asks.
func (a *API) Count(more ...prometheus.Collector) { a.metrics = figures.New(a.cfg.Store, more...) }
