package storage

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/dgraph-io/badger/v4/fb"
)

// Badger ends the process when the foot of a table makes no sense, and passes
// over the rest of a table silently when one of its blocks does not. This
// reader of the same format (v4.9.6, table/builder.go) finds every block that
// is whole, also without the index.
//
//	block ... block | index | its length u32 | checksum | its length u32
//	block: entry ... entry | offsets u32 each | their number u32 | checksum | its length u32
//	entry: overlap u16 | rest of key u16 | rest of key | meta | user meta | uv expiry | value

// maxTableBytes is the largest table that is read into memory for a repair.
const maxTableBytes = 256 << 20

// tableScan is what was found in one table.
type tableScan struct {
	index       bool // the index is whole
	blocks, bad int  // blocks looked at, and those that are not whole
	rows        int
	version     uint64 // the largest
	first, last []byte // keys of the first and the last row
}

// checksum reads the sum that ends at end: field 2 of a small protobuf message,
// behind field 1 if that is not zero.
func checksum(b []byte, end int) (sum uint32, start int, ok bool) {
	if end < 4 || end > len(b) {
		return 0, 0, false
	}
	n := int(binary.BigEndian.Uint32(b[end-4:]))
	if n < 2 || n > 12 || end-4-n < 0 {
		return 0, 0, false
	}
	start = end - 4 - n
	d := decoder{b: b[start : end-4]}
	for len(d.b) > 0 {
		switch d.byte() {
		case 1 << 3:
			if d.uvarint() != 0 {
				return 0, 0, false // another algorithm
			}
		case 2 << 3:
			sum = uint32(d.uvarint())
		default:
			return 0, 0, false
		}
	}
	return sum, start, !d.bad
}

// span32 is a part of a table's file.
type span32 struct{ off, n int }

// tableIndex returns the blocks by the index of a table. at reads a part of the
// file, which has size bytes.
func tableIndex(size int64, at func(off int64, n int) ([]byte, error)) (blocks []span32, version uint64, err error) {
	defer func() {
		if r := recover(); r != nil {
			blocks, err = nil, fmt.Errorf("the index makes no sense: %v", r)
		}
	}()
	foot := int(min(size, 64))
	b, err := at(size-int64(foot), foot)
	if err != nil {
		return nil, 0, err
	}
	sum, start, ok := checksum(b, len(b))
	if !ok || start < 4 {
		return nil, 0, errors.New("its foot is damaged")
	}
	n := int64(binary.BigEndian.Uint32(b[start-4:]))
	end := size - int64(foot) + int64(start) - 4
	if n == 0 || n > end || n > maxTableBytes {
		return nil, 0, errors.New("its foot is damaged")
	}
	if b, err = at(end-n, int(n)); err != nil {
		return nil, 0, err
	}
	if crc32.Checksum(b, castagnoli) != sum {
		return nil, 0, errors.New("its index is damaged")
	}
	ix := fb.GetRootAsTableIndex(b, 0)
	var o fb.BlockOffset
	for i := range ix.OffsetsLength() {
		if !ix.Offsets(&o, i) || int64(o.Offset())+int64(o.Len()) > end-n {
			return nil, 0, errors.New("its index points outside of it")
		}
		blocks = append(blocks, span32{int(o.Offset()), int(o.Len())})
	}
	if len(blocks) == 0 {
		return nil, 0, errors.New("its index is empty")
	}
	return blocks, ix.MaxVersion(), nil
}

// blockRows checks one block and reads its rows.
func blockRows(b []byte, each func(rawRow) bool) (n int, ok bool) {
	sum, start, ok := checksum(b, len(b))
	if !ok || start < 4 || crc32.Checksum(b[:start], castagnoli) != sum {
		return 0, false
	}
	count := int(binary.BigEndian.Uint32(b[start-4:]))
	index := start - 4 - 4*count
	if count <= 0 || count > start/4 || index < 0 {
		return 0, false
	}
	var base []byte
	for i := range count {
		from, to := int(binary.NativeEndian.Uint32(b[index+4*i:])), index
		if i+1 < count {
			to = int(binary.NativeEndian.Uint32(b[index+4*i+4:]))
		}
		if from < 0 || to > index || to-from < 4 {
			return n, false
		}
		e := b[from:to]
		overlap, diff := int(binary.NativeEndian.Uint16(e)), int(binary.NativeEndian.Uint16(e[2:]))
		e = e[4:]
		if diff > len(e) || overlap > len(base) {
			return n, false
		}
		key := append(bytes.Clone(base[:overlap]), e[:diff]...)
		if i == 0 {
			base = key
		}
		d := decoder{b: e[diff:]}
		r := rawRow{key: key, meta: d.byte(), user: d.byte(), expires: d.uvarint()}
		if r.value = d.b; d.bad || len(key) <= 8 {
			return n, false
		}
		n++
		if each != nil && !each(r) {
			break
		}
	}
	return n, true
}

// scanTable reads a whole table and calls each for the rows that can be read,
// in the order of the file.
func scanTable(data []byte, each func(rawRow) bool) (t tableScan) {
	at := func(off int64, n int) ([]byte, error) { return data[off : off+int64(n)], nil }
	take := func(r rawRow) bool {
		t.rows++
		t.version = max(t.version, r.version())
		if t.first == nil {
			t.first = bytes.Clone(r.key)
		}
		t.last = append(t.last[:0], r.key...)
		return each == nil || each(r)
	}
	blocks, _, err := tableIndex(int64(len(data)), at)
	t.index = err == nil
	if !t.index {
		blocks = findBlocks(data)
	}
	for _, b := range blocks {
		t.blocks++
		// Whole first: the rows of half a block are not to be trusted.
		block := data[b.off : b.off+b.n]
		if _, ok := blockRows(block, nil); !ok {
			t.bad++
			continue
		}
		blockRows(block, take)
	}
	if !t.index && len(blocks) == 0 {
		t.bad++
	}
	return t
}

// findBlocks finds blocks without an index. Each ends with a checksum and its
// length, three zeros and a small number; it begins where one before it ends.
func findBlocks(data []byte) (blocks []span32) {
	starts := []int{0}
	budget := 16*len(data) + 1<<20 // bytes that are summed, for hostile input
	for off := 0; budget > 0; {
		i := bytes.Index(data[off:], []byte{0, 0, 0})
		if i < 0 {
			break
		}
		off += i + 1
		end := off + 3
		sum, start, ok := checksum(data, end)
		if !ok {
			continue
		}
		for s := len(starts) - 1; s >= max(0, len(starts)-16) && budget > 0; s-- {
			from := starts[s]
			if start <= from {
				continue
			}
			budget -= start - from
			if crc32.Checksum(data[from:start], castagnoli) == sum {
				if _, ok := blockRows(data[from:end], nil); ok {
					blocks = append(blocks, span32{from, end - from})
				}
				break
			}
		}
		starts = append(starts, end)
	}
	return blocks
}
