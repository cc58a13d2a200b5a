//go:build tools

// Package tools pins an S3 server over a folder, which the tests of stores talk to.
package tools

import _ "github.com/versity/versitygw/cmd/versitygw"
