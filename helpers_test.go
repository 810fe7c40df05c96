package peerlimit

import (
	"bytes"
	"runtime"
	"sync"
)

// What several tests need, also those outside of the package.

// HeapInUse returns the bytes on the heap that are in use.
func HeapInUse() uint64 {
	runtime.GC()
	runtime.GC() // what is in a sync.Pool, also of nodes that have ended, survives the first
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// LockedBuffer is a log that can be read while it is written.
type LockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *LockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *LockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
