package storage

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/dgraph-io/badger/v4/fb"
	"github.com/dgraph-io/badger/v4/y"
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

// span32 is a part of a table's file: a block, and the key of its first row if
// that is known from the index.
type span32 struct {
	off, n int
	key    []byte
}

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
		blocks = append(blocks, span32{int(o.Offset()), int(o.Len()), o.KeyBytes()})
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
	var base []byte
	bad := false
	whole := eachEntry(b[:start], func(e []byte) bool {
		r, ok := parseRow(e, base)
		if bad = !ok; bad {
			return false
		}
		if n == 0 {
			base = r.key
		}
		n++
		return each == nil || each(r)
	})
	return n, whole && !bad
}

// eachEntry calls each for the bytes of every entry of a block, which is given
// without its checksum. It returns false if their offsets make no sense; an
// entry between two that do is still passed.
func eachEntry(b []byte, each func(e []byte) bool) (whole bool) {
	end := len(b) - 4
	count := int(binary.BigEndian.Uint32(b[end:]))
	index := end - 4*count
	if count <= 0 || count > end/4 || index < 0 {
		return false
	}
	whole = true
	for i := range count {
		from, to := int(binary.NativeEndian.Uint32(b[index+4*i:])), index
		if i+1 < count {
			to = int(binary.NativeEndian.Uint32(b[index+4*i+4:]))
		}
		if from < 0 || to > index || to-from < 4 {
			whole = false
			continue
		}
		if !each(b[from:to]) {
			break
		}
	}
	return whole
}

// parseRow reads an entry of a block whose first key is base.
func parseRow(e, base []byte) (r rawRow, ok bool) {
	overlap, diff := int(binary.NativeEndian.Uint16(e)), int(binary.NativeEndian.Uint16(e[2:]))
	e = e[4:]
	if diff > len(e) || overlap > len(base) {
		return r, false
	}
	r.key = append(bytes.Clone(base[:overlap]), e[:diff]...)
	d := decoder{b: e[diff:]}
	r.meta, r.user, r.expires = d.byte(), d.byte(), d.uvarint()
	r.value = d.b
	return r, !d.bad && len(r.key) > 8
}

// provenRows passes the rows of a damaged block that prove themselves: batches
// with sums that hold, which say their position themselves and belong to a
// chunk that the index names for this block or the next one.
func provenRows(b []byte, key, next []byte, version uint64, each func(rawRow) bool) {
	_, start, ok := checksum(b, len(b))
	if !ok || start < 4 {
		return
	}
	chunkOf := func(key []byte) []byte {
		if len(key) != batchKeyLen+8 || key[0] != keyBatch {
			return nil
		}
		return key[:batchKeyLen-8]
	}
	last := []byte(nil)
	eachEntry(b[:start], func(e []byte) bool {
		r, ok := parseRow(e, key)
		if !ok {
			return true
		}
		chunk := chunkOf(r.key)
		if chunk == nil || !bytes.Equal(chunk, chunkOf(key)) && !bytes.Equal(chunk, chunkOf(next)) ||
			r.meta&^metaTxn != 0 || r.user != 0 || r.expires != 0 || r.version() == 0 || r.version() > version ||
			y.CompareKeys(r.key, key) < 0 || last != nil && y.CompareKeys(r.key, last) <= 0 || next != nil && y.CompareKeys(r.key, next) >= 0 {
			return true
		}
		_, first, _ := splitBatchKey(r.name())
		t, records, sum, err := decodeTrailer(r.value)
		if err != nil || t.first != first || crc32.Checksum(records, castagnoli) != sum {
			return true
		}
		last = r.key
		return each(r)
	})
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
	blocks, version, err := tableIndex(int64(len(data)), at)
	t.index = err == nil
	if !t.index {
		blocks = findBlocks(data)
	}
	for i, b := range blocks {
		t.blocks++
		// Whole first: the rows of half a block are not to be trusted.
		block := data[b.off : b.off+b.n]
		if _, ok := blockRows(block, nil); !ok {
			t.bad++
			var next []byte
			if i+1 < len(blocks) {
				next = blocks[i+1].key
			}
			if t.index {
				provenRows(block, b.key, next, version, take)
			}
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
					blocks = append(blocks, span32{off: from, n: end - from})
				}
				break
			}
		}
		starts = append(starts, end)
	}
	return blocks
}
