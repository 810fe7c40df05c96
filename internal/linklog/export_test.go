package linklog

// Followed returns how many links are followed.
func (l *Log) Followed() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.links)
}

// Queued returns how many lines wait to be written.
func (l *Log) Queued() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.queue)
}
