package storage

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
)

// examineTables looks at the index, the first and the last block of every
// table, which Badger reads at opening as well, and at as many others as deep
// allows: those first that are soon merged into others, because a merge leaves
// out what is behind a block that it cannot read.
func (x *exam) examineTables(deep int64, step func(done, total int64)) error {
	var order []*tableFile
	var total, done int64
	for _, t := range x.tables {
		x.examineEnds(t)
		order = append(order, t)
		total += t.size
	}
	levels := map[uint64]int{}
	if b, err := readWhole(filepath.Join(x.dir, "MANIFEST"), maxManifest); err == nil {
		m, _ := readManifest(b)
		levels = m.tables
	}
	rank := func(t *tableFile) int {
		switch level, ok := levels[t.id]; {
		case t.bad, !ok, level == 0:
			return 0
		case bytes.Compare(t.last, []byte{keyMeta}) >= 0:
			return 1 // small rows, which are written again and again
		}
		return 2
	}
	slices.SortFunc(order, func(a, b *tableFile) int {
		if d := rank(a) - rank(b); d != 0 {
			return d
		}
		return int(int64(b.id) - int64(a.id))
	})
	left := deep
	for _, t := range order {
		if deep < 0 || t.size <= left || x.faulty[t.name] {
			left -= t.size
			if err := x.examineBlocks(t); err != nil {
				return err
			}
		}
		if done += t.size; step != nil {
			step(done, total)
		}
	}
	return nil
}

func (t *tableFile) damage(format string, args ...any) {
	if !t.bad {
		t.bad, t.odd = true, fmt.Sprintf(format, args...)
	}
}

// examineEnds does what Badger does when it opens a table, and survives it.
func (x *exam) examineEnds(t *tableFile) {
	f, err := os.Open(filepath.Join(x.dir, t.name))
	if err != nil {
		t.damage("it cannot be opened: %v", err)
		return
	}
	defer f.Close()
	at := func(off int64, n int) ([]byte, error) {
		b := make([]byte, n)
		_, err := f.ReadAt(b, off)
		return b, err
	}
	if t.blocks, _, err = tableIndex(t.size, at); err != nil {
		t.damage("%v", err)
		return
	}
	n := len(t.blocks)
	for i, b := range []span32{t.blocks[0], t.blocks[n-1]} {
		raw, err := at(int64(b.off), b.n)
		if err != nil {
			t.damage("its block %d of %d cannot be read: %v", i*(n-1)+1, n, err)
			return
		}
		if _, ok := blockRows(raw, func(r rawRow) bool {
			if t.first == nil {
				t.first = r.key
			}
			t.last = r.key
			return true
		}); !ok {
			t.damage("its block %d of %d is damaged", i*(n-1)+1, n)
			return
		}
	}
}

// examineBlocks looks at all of a table.
func (x *exam) examineBlocks(t *tableFile) error {
	if t.size > maxTableBytes {
		return nil
	}
	data, err := readFile(filepath.Join(x.dir, t.name), maxTableBytes)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		return fmt.Errorf("storage: read %s: %w", t.name, err)
	}
	s := scanTable(data, func(r rawRow) bool {
		if k := r.name(); len(k) == batchKeyLen && k[0] == keyBatch && r.meta&metaDelete == 0 {
			x.batches++
			if _, records, sum, err := decodeTrailer(r.value); err != nil || crc32.Checksum(records, castagnoli) != sum {
				x.badBatches++
			}
		}
		return true
	})
	x.checked++
	x.rows += s.rows
	if s.bad > 0 {
		t.damage("%d of its %d blocks are damaged", s.bad, s.blocks)
	}
	return nil
}
