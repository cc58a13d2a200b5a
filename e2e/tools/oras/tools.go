//go:build tools

// Package tools pins oras, which brings images and what belongs to them to a registry.
package tools

import _ "oras.land/oras/cmd/oras"
