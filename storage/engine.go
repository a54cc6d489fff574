package storage

import "errors"

// engine is what the store needs of a key-value store below it. commit, drop
// and close are called by the committer only; get and the scans by any
// goroutine, also while a commit runs, but never during drop and close.
type engine interface {
	// commit must apply all of ops, in order, or none of them, and must not
	// return nil until they are durable. It must not keep keys or values. After
	// an error nobody knows what was written: the caller closes the engine.
	commit(ops []op) error
	// get returns a copy of the value, or nil if there is none.
	get(key []byte) ([]byte, error)
	// scan calls yield for each row whose key begins with prefix, from the
	// first key at or behind from, in order, until yield returns false. key
	// and value are valid during the call only; value is nil with keysOnly.
	scan(prefix, from []byte, keysOnly bool, yield func(key, value []byte) bool) error
	// last returns a copy of the largest key that begins with prefix and is
	// not larger than upTo; nil if there is none.
	last(prefix, upTo []byte) ([]byte, error)
	// drop removes all rows whose keys begin with one of prefixes, and gives
	// their space back. A crash may leave any part of them. It returns errFlushing,
	// and has done nothing, if it would have to wait for what was committed.
	drop(prefixes [][]byte) error
	// close must leave what was committed for the next opening.
	close() error
}

// errFlushing is why nothing can be dropped at this moment.
var errFlushing = errors.New("what was committed is not in a table yet")

// op is one row to be written: a put, or a delete if value is nil.
type op struct {
	key, value []byte
	// own marks the store's own progress, which must be written again if the
	// commit fails; all else belongs to a caller, who is told.
	own bool
}

func (o op) size() int { return len(o.key) + len(o.value) + 32 }
