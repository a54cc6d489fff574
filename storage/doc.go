// Package storage keeps what must outlive the process: the store-and-forward
// queues of the bridges, the queues and the state of durable sessions, retained
// messages, wills, and the ledger that says what became of every message.
//
// It is the third station in the life of a message: the broker hands a
// publication over with Publish, a reader takes it out of a Queue later and
// acknowledges it there. Between the two it survives what a gateway meets.
//
// One goroutine, the committer, owns every write. Callers leave their rows in
// the open transaction under one mutex, where they are given their positions;
// the committer takes everything that is waiting, writes and syncs it once, and
// then calls every done in order. docs/format.md draws each key.
//
// What it does not do: bit
// rot in a row other than a batch of messages is found only when it is read.
package storage
