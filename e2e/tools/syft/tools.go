//go:build tools

// Package tools pins syft, which writes what images consist of.
package tools

import _ "github.com/anchore/syft/cmd/syft"
