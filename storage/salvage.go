package storage

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/dgraph-io/badger/v4/options"
	"github.com/dgraph-io/badger/v4/table"
	"github.com/dgraph-io/badger/v4/y"
)

// What can be read of a damaged file is written into new tables with the
// versions that the rows had: Badger itself then finds the newest of each key,
// and honours what was deleted.

// salvageBytes is about the size of one table that is written here.
const salvageBytes = 4 << 20

// writeTables writes rows, sorted by key, into as many tables as they need and
// returns their numbers. A crash in here leaves tables that no MANIFEST names.
func (x *exam) writeTables(rows func(yield func(rawRow) bool)) (ids []uint64, err error) {
	var b *table.Builder
	var last []byte
	fresh := func() {
		b = table.NewTableBuilder(table.Options{
			TableSize: salvageBytes, BlockSize: 4 << 10, BloomFalsePositive: 0.01,
			ChkMode: options.OnBlockRead, Compression: options.None,
		})
	}
	flush := func() {
		if b == nil || b.Empty() {
			return
		}
		data := b.Finish()
		b.Close()
		b = nil
		id := x.next
		x.next++
		if err = writeSynced(filepath.Join(x.dir, table.IDToFilename(id)), data); err == nil {
			ids = append(ids, id)
		}
	}
	for r := range rows {
		if bytes.Equal(last, r.key) {
			continue // the same row, from a file and from a copy of it
		}
		if b != nil && b.ReachedCapacity() && !y.SameKey(last, r.key) {
			if flush(); err != nil {
				return ids, err
			}
		}
		if b == nil {
			fresh()
		}
		b.Add(r.key, y.ValueStruct{Meta: r.meta, UserMeta: r.user, ExpiresAt: r.expires, Value: r.value}, 0)
		last = append(last[:0], r.key...)
	}
	flush()
	return ids, err
}

// writeSynced writes a file that is whole on disk when it returns. What has its name
// and is not a file goes.
func writeSynced(name string, data []byte) error {
	if info, err := os.Lstat(name); err == nil && !info.Mode().IsRegular() {
		if err := os.RemoveAll(name); err != nil {
			return fmt.Errorf("storage: make way for %s: %w", filepath.Base(name), err)
		}
	}
	f, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("storage: write %s: %w", filepath.Base(name), err)
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return fmt.Errorf("storage: write %s: %w", filepath.Base(name), err)
	}
	return nil
}

// replaceFile writes a file so that a crash leaves the old one or the new one.
func replaceFile(name string, data []byte) error {
	if err := writeSynced(name+".tmp", data); err != nil {
		return err
	}
	if err := os.Rename(name+".tmp", name); err != nil {
		return fmt.Errorf("storage: put %s in its place: %w", filepath.Base(name), err)
	}
	return syncDir(filepath.Dir(name))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("storage: sync the folder: %w", err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("storage: sync the folder: %w", err)
	}
	return nil
}

// salvageMem puts the rows behind the damage of a memtable into tables.
func (x *exam) salvageMem(m *memFile) (ids []uint64, rows int, err error) {
	data, err := readFile(filepath.Join(x.dir, m.name), maxMemBytes)
	if err != nil {
		return nil, 0, fmt.Errorf("storage: read %s: %w", m.name, err)
	}
	s := scanMem(data, m.newest)
	slices.SortStableFunc(s.behind, func(a, b rawRow) int { return y.CompareKeys(a.key, b.key) })
	ids, err = x.writeTables(func(yield func(rawRow) bool) {
		for _, r := range s.behind {
			if !yield(r) {
				return
			}
		}
	})
	return ids, len(s.behind), err
}

// salvageTable puts the rows of a damaged table that can be read into others.
func (x *exam) salvageTable(t *tableFile) (ids []uint64, rows int, err error) {
	if t.size > maxTableBytes {
		return nil, 0, nil
	}
	data, err := readFile(filepath.Join(x.dir, t.name), maxTableBytes)
	if err != nil {
		return nil, 0, fmt.Errorf("storage: read %s: %w", t.name, err)
	}
	sorted := true
	var last []byte
	s := scanTable(data, func(r rawRow) bool {
		sorted = sorted && (last == nil || y.CompareKeys(last, r.key) <= 0)
		last = append(last[:0], r.key...)
		return true
	})
	if !sorted {
		return nil, 0, nil // blocks found without the index that make no sense
	}
	ids, err = x.writeTables(func(yield func(rawRow) bool) {
		more := true
		scanTable(data, func(r rawRow) bool {
			more = more && yield(r)
			return more
		})
	})
	return ids, s.rows, err
}
