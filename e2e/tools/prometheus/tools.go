//go:build tools

// Package tools pins Prometheus and promtool, which the tests of dashboards and alerts run.
package tools

import (
	_ "github.com/prometheus/prometheus/cmd/prometheus"
	_ "github.com/prometheus/prometheus/cmd/promtool"
)
