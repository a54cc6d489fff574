package storage

import (
	"log/slog"
	"time"
)

// Options say where and how large a store is. The zero value of each field but
// Dir takes the default.
type Options struct {
	// Dir is the folder of the store; it is created if it is missing. One
	// process at a time may open it.
	Dir string
	// Logger takes what a person should know; nil discards it.
	Logger *slog.Logger
	// Session bounds the queue of each durable session. Early is always set.
	Session QueueOptions
	// Sync is when a message is written: Always, or Spill after SpillAfter, which
	// is 500 ms by default.
	Sync       Sync
	SpillAfter time.Duration
	// Volatile is for a store on which nothing is safe (OpenMemory): the done of
	// a publication of QoS 1 comes when all of its destinations have acknowledged
	// it, that of all others that should be on disk never says that they are safe.
	// A store on disk does the same while commits fail, with QoS 0 and 1.
	Volatile bool
	// GiveUpAfter is how long a publication waits that way: default 20 s. Its done
	// then says so, and it is taken back as far as nobody has it.
	GiveUpAfter time.Duration
	// MaxPending is how many bytes may wait for a commit at once: default 8 MiB.
	// Publish answers holdfast.ErrFull beyond it.
	MaxPending int
	// MaxBytes bounds what is queued in all queues together, by
	// holdfast.Message.Size; 0 is no bound of its own. When it is met, the rule
	// of the message's own queue applies, to messages of that queue.
	MaxBytes int64
	// Reserve is how much of the disk must stay free: default 5 %, at least
	// 32 MiB, but at most two fifths of a small disk. Below it the rule of a
	// full queue applies to each new message.
	Reserve int64
	// CommitInterval is how long a commit may wait for more to go with it, for
	// disks where each sync costs: default 0.
	CommitInterval time.Duration
	// BeforeSync, if not nil, is called by the committer before each
	// transaction, and an error of it is taken for an error of the disk.
	BeforeSync func() error
	// AckDelay is how long an acknowledgement may wait for another commit to
	// ride on before it gets its own: default 100 ms.
	AckDelay time.Duration
	// DropEvery is the shortest time between two removals of passed chunks
	// while there is other work: default 10 s.
	DropEvery time.Duration
	// ExpireEvery is the time between two looks for expired messages at the
	// heads of the queues: default a tenth of the shortest age, 1 s to 1 min.
	ExpireEvery time.Duration
	// ChunkBytes is the size of the part of a lane that is given back at once:
	// default 13 MiB.
	ChunkBytes int
	// TailBytes is how much of the newest messages of all lanes is kept in
	// memory for readers that keep up: default 4 MiB.
	TailBytes int
	// MaxRanges is how many acknowledged ranges a lane may have beside its
	// low-water mark before reading ahead pauses: default 4,096.
	MaxRanges int
	// ScrubEvery is the time between two parts of what is stored that are read
	// in the background while the store is idle: default 2 s.
	ScrubEvery time.Duration
	// Clock is the clock for MaxAge; nil is the system's.
	Clock Clock
	// Memory is what OpenMemory works on; nil for a new one.
	Memory *Memory

	// space tells free and total bytes of the disk; nil without a disk.
	space func() (free, total int64, err error)
	// engine opens the engine, for tests.
	engine func(*repairs) (engine, error)
}

// The sizes that are not options.
const (
	// MaxMessage is the largest stored form of a message in bytes: it must fit
	// a transaction of Badger with what goes with it.
	MaxMessage = 480 << 10
	// txnBytes is where a transaction is sealed and the next one begun.
	txnBytes = 540 << 10
	// batchBytes is where a batch ends, so that a reader far behind loads
	// little at a time.
	batchBytes = 128 << 10
	// readBytes is about how much a reader far behind loads at a time.
	readBytes = 128 << 10
	// maxQuarantine and maxQuarantineBytes bound what a queue keeps aside.
	maxQuarantine = 256
	// maxDamaged is how many damaged batches are kept for inspection.
	maxDamaged = 16
)

func (o Options) withDefaults() Options {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.MaxPending <= 0 {
		o.MaxPending = 8 << 20
	}
	if o.SpillAfter <= 0 {
		o.SpillAfter = 500 * time.Millisecond
	}
	if o.Volatile {
		o.Sync = Always // whatever is written is so in memory
	}
	if o.GiveUpAfter <= 0 {
		o.GiveUpAfter = 20 * time.Second
	}
	if o.AckDelay <= 0 {
		o.AckDelay = 100 * time.Millisecond
	}
	if o.DropEvery <= 0 {
		o.DropEvery = 10 * time.Second
	}
	if o.ChunkBytes <= 0 {
		o.ChunkBytes = 13 << 20
	}
	if o.TailBytes <= 0 {
		o.TailBytes = 4 << 20
	}
	if o.MaxRanges <= 0 {
		o.MaxRanges = 4096
	}
	if o.ScrubEvery <= 0 {
		o.ScrubEvery = scrubEvery
	}
	if o.Clock == nil {
		o.Clock = newSystemClock()
	}
	o.Session.Early = true
	return o
}

// WhenFull is what a queue does with a message that would exceed its bounds.
type WhenFull byte

const (
	// DropOldest drops the oldest messages that were not handed out, the least
	// urgent lane first, but none of a more urgent lane than the new message's;
	// if nothing is left to drop it drops the new message.
	DropOldest WhenFull = iota
	// DropNewest acknowledges and counts the new message without storing it.
	DropNewest
	// Refuse makes Publish return holdfast.ErrFull.
	Refuse
)

// QueueOptions are the bounds and habits of one queue. They are not stored.
type QueueOptions struct {
	// MaxBytes (by holdfast.Message.Size) and MaxMessages bound what is not
	// acknowledged; 0 is no bound of its own.
	MaxBytes, MaxMessages int64
	WhenFull              WhenFull
	// Early lets items of QoS 0 and 1 be handed out before they are on disk.
	Early bool
	// MaxAge is how long a message may be in the queue before it is dropped,
	// counted as expired; RouteMaxAge is the same for one route by its name: the
	// shorter counts. 0 is any time. They are looked up when a message would be
	// handed out, so that a change counts for what is queued already.
	MaxAge      time.Duration
	RouteMaxAge map[string]time.Duration
	// Ledger keeps the counts of each route on disk.
	Ledger bool
}
