package storage

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
)

const (
	// memTableSize is that of a small board. A larger one makes each sync
	// rewrite large folios of the page cache: 36 device bytes per byte.
	memTableSize = 4 << 20
	// maxTxnBytes is Badger's bound for a transaction, and for a value that
	// stays in the tree: a failed sync of the value log is only logged by
	// Badger, so nothing may go there.
	maxTxnBytes = memTableSize * 15 / 100
	// maxTxnOps stays below Badger's bound for the rows of a transaction.
	maxTxnOps = 4000
	// valueLogBytes is the least that Badger takes: nothing is ever in it.
	valueLogBytes = 1 << 20
)

// blockSize holds a batch with the row around it: a block that an entry does not
// fit is copied into a larger one twice, and the arenas of the tables under way,
// which Badger keeps, become three times as large as the tables.
const blockSize = batchBytes + 32<<10

// badgerEngine is a Badger folder, opened.
type badgerEngine struct {
	db     *badger.DB
	lock   *os.File // held while it is open
	faults *faults
}

func badgerOptions(dir string, log *slog.Logger, f *faults) badger.Options {
	return badger.DefaultOptions(dir).
		WithLogger(&badgerLogger{log: log, faults: f}).
		WithSyncWrites(true).
		WithMemTableSize(memTableSize).
		WithNumMemtables(1).
		WithValueThreshold(maxTxnBytes).
		WithValueLogFileSize(valueLogBytes).
		WithBaseTableSize(2 << 20).
		WithBaseLevelSize(2<<30 - 1). // one level below L0: each byte is compacted once
		WithNumLevelZeroTables(2).
		WithNumLevelZeroTablesStall(6).
		WithNumCompactors(2). // the least that Badger takes
		WithBlockSize(blockSize).
		WithBlockCacheSize(0).
		WithIndexCacheSize(0).
		WithCompression(options.None).
		WithChecksumVerificationMode(options.OnBlockRead).
		WithVerifyValueChecksum(true).
		WithDetectConflicts(false). // one writer
		WithMetricsEnabled(false).
		WithNumGoroutines(1)
}

func (e *badgerEngine) commit(ops []op) error {
	// ErrBlockedWrites comes while prefixes are dropped, before anything was
	// written; the committer does both, so it is not expected to last.
	for wait := time.Millisecond; ; wait *= 2 {
		err := e.commitOnce(ops)
		if !errors.Is(err, badger.ErrBlockedWrites) || wait > time.Second {
			return err
		}
		time.Sleep(wait)
	}
}

func (e *badgerEngine) commitOnce(ops []op) error {
	txn := e.db.NewTransaction(true)
	defer txn.Discard()
	for _, o := range ops {
		var err error
		if o.value == nil {
			err = txn.Delete(o.key)
		} else {
			err = txn.Set(o.key, o.value)
		}
		if err != nil {
			return fmt.Errorf("storage: write row: %w", err)
		}
	}
	// A crash in here leaves all of ops or none: Badger replays a transaction
	// of its log only if its end is there.
	if err := txn.Commit(); err != nil {
		return fmt.Errorf("storage: commit: %w", err)
	}
	return nil
}

func (e *badgerEngine) get(key []byte) (value []byte, err error) {
	defer e.faults.catch(&err)()
	err = e.db.View(func(txn *badger.Txn) error {
		item, err := txn.Get(key)
		if err != nil {
			return err
		}
		value, err = item.ValueCopy([]byte{})
		return err
	})
	if errors.Is(err, badger.ErrKeyNotFound) {
		return nil, nil
	}
	return value, err
}

func (e *badgerEngine) scan(prefix, from []byte, keysOnly bool, yield func(key, value []byte) bool) (err error) {
	defer e.faults.catch(&err)()
	return e.db.View(func(txn *badger.Txn) error {
		it := txn.NewIterator(badger.IteratorOptions{Prefix: prefix})
		defer it.Close()
		if bytes.Compare(from, prefix) < 0 {
			from = prefix
		}
		for it.Seek(from); it.ValidForPrefix(prefix); it.Next() {
			item := it.Item()
			if keysOnly {
				if !yield(item.Key(), nil) {
					return nil
				}
				continue
			}
			more := true
			err := item.Value(func(v []byte) error {
				more = yield(item.Key(), v)
				return nil
			})
			if err != nil {
				return err
			}
			if !more {
				return nil
			}
		}
		return nil
	})
}

func (e *badgerEngine) last(prefix, upTo []byte) (key []byte, err error) {
	defer e.faults.catch(&err)()
	err = e.db.View(func(txn *badger.Txn) error {
		it := txn.NewIterator(badger.IteratorOptions{Prefix: prefix, Reverse: true})
		defer it.Close()
		if it.Seek(upTo); it.ValidForPrefix(prefix) {
			key = it.Item().KeyCopy(nil)
		}
		return nil
	})
	return key, err
}

// drop lets go of the tables; their files are removed behind it. That takes more
// time than all else, some milliseconds a file, and nobody needs to wait for it.
// A crash leaves files that the MANIFEST says are gone; the next opening removes
// them. The logs of memtables are gone when it returns.
func (e *badgerEngine) drop(prefixes [][]byte) (err error) {
	defer e.faults.catch(&err)()
	// Only a corrected one can tell.
	if db, ok := any(e.db).(interface{ Flushing() bool }); ok && db.Flushing() {
		return errFlushing
	}
	for wait := time.Millisecond; ; wait *= 2 {
		err := e.db.DropPrefix(prefixes...)
		if !errors.Is(err, badger.ErrBlockedWrites) || wait > time.Second {
			return err
		}
		time.Sleep(wait)
	}
}

// close flushes the memtable into a table of its own, which is synced: what
// was visible before is on disk after it.
func (e *badgerEngine) close() error {
	return errors.Join(e.db.Close(), e.lock.Close())
}
