package storage

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// ErrUnwritable is in the error of Open if the folder cannot be written: a
// read-only card, one that fails, a wrong owner.
var ErrUnwritable = errors.New("the folder cannot be written")

// errInUse is in the error of Open if another process has the store open.
var errInUse = errors.New("in use")

// repairs is what a guard has done.
type repairs struct {
	aside int  // files set aside
	rows  int  // rows taken out of damaged files
	loss  bool // something may be missing
	// faults are told what cannot be read while the store is open.
	faults *faults
}

// guard looks at a closed store before Badger does, mends what would keep it
// from opening or make it forget silently, and says so. deep as for examine.
func guard(dir string, log *slog.Logger, deep int64) (repairs, error) {
	x, err := examine(dir, deep, nil)
	if err != nil {
		return repairs{}, err
	}
	r, err := x.repair()
	for _, f := range x.findings {
		level := slog.LevelWarn
		if f.Loss {
			level = slog.LevelError
			r.loss = true
		}
		log.Log(context.Background(), level, "storage: a file was damaged", "file", f.File, "problem", f.Problem, "done", f.Action)
	}
	if r.loss {
		log.Error("storage: the store was damaged: what is missing is counted as lost; look at the card or disk, and keep a copy of the folder", "folder", filepath.Join(dir, setAsideDir), "rows_saved", r.rows)
	}
	return r, err
}

// repair does what the findings say. The order makes a crash harmless: copies
// first, then new tables that nothing names, then the MANIFEST that names them,
// then the damaged files go. A crash before the end finds the damage again, and
// rows that are there twice are one row.
func (x *exam) repair() (r repairs, err error) {
	for _, name := range x.aside {
		if err := setAside(x.dir, name); err != nil {
			return r, err
		}
		r.aside++
	}
	for _, name := range x.remove {
		if err := os.RemoveAll(filepath.Join(x.dir, name)); err != nil {
			return r, fmt.Errorf("storage: remove %s: %w", name, err)
		}
	}
	levels := x.manifest.tables
	x.manifest.tables = map[uint64]int{}
	for _, m := range x.mems {
		if !m.damaged {
			continue
		}
		if err := copyAside(x.dir, m.name, m.used); err != nil {
			return r, err
		}
		r.aside++
		ids, rows, err := x.salvageMem(m)
		if err != nil {
			return r, err
		}
		r.rows += rows
		for _, id := range ids {
			x.manifest.tables[id] = 0
			x.rewrite = true
		}
	}
	if x.rewrite {
		if err := x.mendTables(levels, &r); err != nil {
			return r, err
		}
	}
	for _, m := range x.mems {
		if err := x.mendMem(m); err != nil {
			return r, err
		}
	}
	for id, t := range x.tables {
		if _, named := levels[id]; t.bad && named {
			if err := setAside(x.dir, t.name); err != nil {
				return r, err
			}
			r.aside++
		}
	}
	if r.aside > 0 {
		return r, boundAside(x.dir)
	}
	return r, nil
}

// mendTables writes new tables for the damaged ones, and a MANIFEST for all.
func (x *exam) mendTables(levels map[uint64]int, r *repairs) error {
	for id, t := range x.tables {
		level, named := levels[id]
		switch {
		case t.bad && !named:
		case t.bad:
			ids, rows, err := x.salvageTable(t)
			if err != nil {
				return err
			}
			r.rows += rows
			for _, id := range ids {
				x.manifest.tables[id] = 0
			}
		case t.displaced:
			x.manifest.tables[id] = 0
		default:
			x.manifest.tables[id] = level
		}
	}
	if err := syncDir(x.dir); err != nil {
		return err
	}
	return replaceFile(filepath.Join(x.dir, "MANIFEST"), x.manifest.encode())
}

// mendMem cuts a memtable where a replay ends, which Badger would do as well if
// it did not stumble over what is behind. A crash leaves it as it was.
func (x *exam) mendMem(m *memFile) error {
	if !m.header && m.used <= m.end {
		return nil
	}
	f, err := os.OpenFile(filepath.Join(x.dir, m.name), os.O_RDWR, 0)
	if err == nil {
		if m.used > m.end {
			err = f.Truncate(int64(m.end))
		}
		if m.header {
			_, writeErr := f.WriteAt(binary.BigEndian.AppendUint64(nil, 0), 0)
			err = errors.Join(err, writeErr)
		}
		err = errors.Join(err, f.Sync(), f.Close())
	}
	if err != nil {
		return fmt.Errorf("storage: mend %s: %w", m.name, err)
	}
	return nil
}

// probe writes and syncs a small file. Badger leaves memory and goroutines
// behind each time that it fails to open: it must not be tried again and again
// on a card that has gone read-only.
func probe(dir string) error {
	name := filepath.Join(dir, "probe.tmp")
	err := writeSynced(name, []byte("holdfast"))
	if err == nil {
		// A crash before the removal leaves eight bytes that nobody reads.
		err = os.Remove(name)
	}
	switch {
	case errors.Is(err, os.ErrPermission):
		return unwritable(dir, "its owner", err)
	case err != nil:
		return unwritable(dir, "its free space", err)
	}
	return nil
}

// unwritable makes an error of a write into one that says what to look at.
func unwritable(dir, look string, err error) error {
	return fmt.Errorf("storage: %s: %w; check %s, and the card: %w", dir, ErrUnwritable, look, err)
}

// lockDir takes the lock that Badger takes, for as long as the file is open:
// until then nobody else looks at the folder, nor mends it.
func lockDir(dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("storage: open the folder: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("storage: the folder %s is %w by another process: stop the other gateway, or give this one a data_dir of its own", dir, errInUse)
		}
		return nil, fmt.Errorf("storage: lock the folder: %w", err)
	}
	return f, nil
}
