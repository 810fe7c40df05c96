//go:build race

package signup

import "runtime"

// With several nodes in a bubble of testing/synctest the race detector may crash on several cores: go.dev/issue/78156.
func init() { runtime.GOMAXPROCS(1) }
