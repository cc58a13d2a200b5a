//go:build tools

// Package tools pins Argo CD, whose components are one program.
package tools

import _ "github.com/argoproj/argo-cd/v3/cmd"
