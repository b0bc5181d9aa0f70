package batch

// Bells is how many things somebody waits for.
func (b *Batch) Bells() int { return b.book.Listeners() }
