package storage

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/y"
	"golang.org/x/sys/unix"
)

// openGuarded opens a folder in whatever state it is; r is what had to be done.
// Only a folder that cannot be written, or that another process has open, is
// refused.
func openGuarded(dir string, log *slog.Logger, room *pillow, r *repairs) (eng engine, err error) {
	defer func() {
		for _, e := range []error{unix.EROFS, unix.EACCES, unix.EPERM, unix.EIO, unix.ENOSPC, unix.ENOTDIR} {
			if errors.Is(err, e) && !errors.Is(err, ErrUnwritable) {
				err = fmt.Errorf("%w: %w", ErrUnwritable, err)
			}
		}
	}()
	lock, err := claim(dir, room)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			lock.Close()
		}
	}()
	// Each step is heavier than the one before it, and met if that was not
	// enough: mend what is known to be wrong; look at every byte; keep no file
	// of Badger's as it is.
	for _, step := range []func() (repairs, error){
		func() (repairs, error) { return guard(dir, log, deepBytes) },
		func() (repairs, error) { return guard(dir, log, -1) },
		func() (repairs, error) { return startOver(dir, log) },
	} {
		done, stepErr := step()
		r.aside, r.rows, r.loss = r.aside+done.aside, r.rows+done.rows, r.loss || done.loss
		if err = stepErr; err != nil {
			return nil, err
		}
		var db *badger.DB
		if db, err = openCaught(dir, log, r.faults); err == nil {
			if err = r.faults.mended(); err != nil {
				return nil, errors.Join(err, db.Close())
			}
			return &badgerEngine{db: db, lock: lock, faults: r.faults}, nil
		}
		if unwritten(err) {
			return nil, err
		}
		log.Error("storage: the store does not open, and is looked at more closely", "error", err)
	}
	return nil, err
}

// claim takes the lock of a folder in which a store can be opened as far as can be
// known without opening it: it can be written, and there is room for that.
func claim(dir string, room *pillow) (lock *os.File, err error) {
	// A crash in here leaves an empty folder.
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, unwritable(dir, "the folder above it", err)
	}
	if lock, err = lockDir(dir); err != nil {
		return nil, err
	}
	need, err := room.toOpen()
	if err == nil {
		err = room.makeWay(need)
	}
	if err == nil {
		err = probe(dir)
	}
	if err != nil {
		lock.Close()
		return nil, err
	}
	return lock, nil
}

// Writable reports why Open would fail in dir with ErrUnwritable; nil if it would
// not, as far as can be known without opening anything: what is there may still not
// be read. It writes and removes a small file. An error that another process has
// the folder is one too.
func Writable(dir string) error {
	lock, err := claim(dir, newPillow(dir))
	if err != nil {
		return err
	}
	return lock.Close()
}

// unwritten: no repair helps.
func unwritten(err error) bool {
	return slices.ContainsFunc([]error{unix.EROFS, unix.EIO, unix.ENOSPC, unix.EACCES, unix.EPERM, unix.EMFILE, unix.ENOMEM},
		func(e error) bool { return errors.Is(err, e) })
}

// openCaught opens a folder whose lock is held. Badger panics over some of
// what may be damaged.
func openCaught(dir string, log *slog.Logger, f *faults) (db *badger.DB, err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("storage: open %s: %v", dir, p)
		}
	}()
	db, err = badger.Open(badgerOptions(dir, log, f).WithBypassLockGuard(true))
	if err != nil {
		return nil, fmt.Errorf("storage: open %s: %w", dir, err)
	}
	return db, nil
}

// openBadger opens a folder as it is.
func openBadger(dir string, log *slog.Logger) (engine, error) {
	lock, err := lockDir(dir)
	if err != nil {
		return nil, err
	}
	db, err := openCaught(dir, log, nil)
	if err != nil {
		lock.Close()
		return nil, err
	}
	return &badgerEngine{db: db, lock: lock}, nil
}

// startOver takes every row that can be read into new tables, and sets all
// other files aside. A crash before the MANIFEST is in its place leaves the old
// store with some tables that it does not name.
func startOver(dir string, log *slog.Logger) (repairs, error) {
	r := repairs{loss: true}
	x, err := examine(dir, -1, nil)
	if err != nil {
		return r, err
	}
	log.Error("storage: the store cannot be mended in place: what can be read is taken into a new one", "folder", dir)
	x.manifest.tables = map[uint64]int{}
	var old []string
	for _, t := range x.tables {
		old = append(old, t.name)
		ids, rows, err := x.salvageTable(t)
		if err != nil {
			return r, err
		}
		r.rows += rows
		for _, id := range ids {
			x.manifest.tables[id] = 0
		}
	}
	for _, m := range x.mems {
		old = append(old, m.name)
		data, err := readFile(filepath.Join(dir, m.name), maxMemBytes)
		if err != nil {
			return r, fmt.Errorf("storage: read %s: %w", m.name, err)
		}
		rows := m.allRows(data)
		slices.SortStableFunc(rows, func(a, b rawRow) int { return y.CompareKeys(a.key, b.key) })
		ids, err := x.writeTables(slices.Values(rows))
		if err != nil {
			return r, err
		}
		r.rows += len(rows)
		for _, id := range ids {
			x.manifest.tables[id] = 0
		}
	}
	if err := syncDir(dir); err != nil {
		return r, err
	}
	if err := replaceFile(filepath.Join(dir, "MANIFEST"), x.manifest.encode()); err != nil {
		return r, err
	}
	logs, _ := filepath.Glob(filepath.Join(dir, "*.vlog"))
	for _, name := range logs {
		old = append(old, filepath.Base(name))
	}
	for _, name := range append(old, "KEYREGISTRY", "DISCARD") {
		if err := setAside(dir, name); err != nil && !errors.Is(err, os.ErrNotExist) {
			return r, err
		}
		r.aside++
	}
	return r, boundAside(dir)
}

// allRows is everything in a memtable that was acknowledged, and perhaps its
// last transaction.
func (m *memFile) allRows(data []byte) (rows []rawRow) {
	for off := memHeader; off < m.end; {
		r, size, ok := readRecord(data[off:])
		if !ok {
			break
		}
		if r.meta&metaFin == 0 {
			rows = append(rows, r)
		}
		off += size
	}
	return append(rows, scanMem(data, m.newest).behind...)
}
