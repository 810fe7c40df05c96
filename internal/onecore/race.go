//go:build race

package onecore

import "runtime"

func init() { runtime.GOMAXPROCS(1) }
