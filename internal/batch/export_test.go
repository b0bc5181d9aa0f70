package batch

// Bells is how many things somebody waits for.
func (b *Batch) Bells() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.news) + len(b.ends)
}
