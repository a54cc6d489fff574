package storage

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"maps"
	"slices"
)

// Badger removes every table that its MANIFEST does not name, and refuses to
// open if one is missing that it names. Format (v4.9.6, manifest.go):
//
//	"Bdgr" | 0 u16 | 8 u16 | sets of changes: length u32 | CRC32C u32 | protobuf

// maxManifest is the largest that is read; Badger makes it anew long before that.
const maxManifest = 16 << 20

var manifestMagic = []byte{'B', 'd', 'g', 'r', 0, 0, 0, 8}

// manifest is the tables by their number, with the level of each.
type manifest struct {
	tables map[uint64]int
	// gone are those that were removed and did not come again.
	gone map[uint64]bool
	// tail: bytes behind the last whole set.
	tail bool
}

// readManifest reads as much of a MANIFEST as is whole. err tells why that is
// not all of it.
func readManifest(b []byte) (m manifest, err error) {
	m = manifest{tables: map[uint64]int{}, gone: map[uint64]bool{}}
	if len(b) < len(manifestMagic) || string(b[:8]) != string(manifestMagic) {
		return m, errors.New("its beginning is damaged")
	}
	for b = b[8:]; len(b) > 0; {
		if len(b) < 8 {
			m.tail = true
			break
		}
		n := uint64(binary.BigEndian.Uint32(b))
		if n > uint64(len(b)-8) {
			m.tail = true
			break
		}
		set := b[8 : 8+n]
		if crc32.Checksum(set, castagnoli) != binary.BigEndian.Uint32(b[4:]) {
			err = errors.New("a record in it is damaged")
		} else if !m.apply(set) {
			err = errors.New("a record in it makes no sense")
		}
		b = b[8+n:]
	}
	return m, err
}

// apply takes one set of changes, field 1 of it each.
func (m *manifest) apply(set []byte) bool {
	d := decoder{b: set}
	for len(d.b) > 0 && !d.bad {
		if d.uvarint() != 1<<3|2 {
			return false
		}
		var field [8]uint64
		for c := (decoder{b: d.bytes()}); len(c.b) > 0; {
			tag := c.uvarint()
			v := c.uvarint()
			if c.bad || tag&7 != 0 || tag>>3 >= 8 {
				return false
			}
			field[tag>>3] = v
		}
		id, level := field[1], int(field[3])
		switch field[2] {
		case 0:
			if _, ok := m.tables[id]; ok || level > 6 || field[4] != 0 {
				return false
			}
			m.tables[id] = level
			delete(m.gone, id)
		case 1:
			delete(m.tables, id)
			m.gone[id] = true
		default:
			return false
		}
	}
	return !d.bad
}

// encode is a MANIFEST that names just these tables.
func (m manifest) encode() []byte {
	var set []byte
	for _, id := range slices.Sorted(maps.Keys(m.tables)) {
		c := binary.AppendUvarint([]byte{1 << 3}, id)
		if level := m.tables[id]; level > 0 {
			c = append(c, 3<<3, byte(level))
		}
		set = append(set, 1<<3|2, byte(len(c)))
		set = append(set, c...)
	}
	b := slices.Clone(manifestMagic)
	b = binary.BigEndian.AppendUint32(b, uint32(len(set)))
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(set, castagnoli))
	return append(b, set...)
}
