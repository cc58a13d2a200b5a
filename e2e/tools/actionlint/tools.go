//go:build tools

// Package tools pins actionlint, which reads the workflow files in the tests.
package tools

import _ "github.com/rhysd/actionlint/cmd/actionlint"
