//go:build tools

// Package tools pins the Helm before the present one, which many still install charts with.
package tools

import _ "helm.sh/helm/v3/cmd/helm"
