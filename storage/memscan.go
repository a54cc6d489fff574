package storage

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"math"
	"strconv"
)

// Badger's replay of a memtable's log stops at the first record that it cannot
// read, and cuts the file there: right for a tail that the power has torn off,
// and a silent loss if what lies behind was acknowledged. This reader of the
// same format (v4.9.6, memtable.go) looks behind the fault.

const (
	// memHeader is what stands before the first record: id of a key, all zero
	// because nothing is encrypted, and an initial vector.
	memHeader = 20
	// maxMemBytes is the largest memtable that is read: Badger makes them
	// twice memTableSize long.
	maxMemBytes = 16 << 20

	metaDelete = 1 << 0
	metaTxn    = 1 << 6
	metaFin    = 1 << 7
)

// rawRow is one row as Badger keeps it. Its slices share the file's memory.
type rawRow struct {
	key     []byte // ends with eight bytes of version, counted downwards
	meta    byte
	user    byte
	expires uint64
	value   []byte
}

func (r rawRow) version() uint64 {
	if len(r.key) < 8 {
		return 0
	}
	return math.MaxUint64 - binary.BigEndian.Uint64(r.key[len(r.key)-8:])
}

// name is the key without its version.
func (r rawRow) name() []byte { return r.key[:max(len(r.key)-8, 0)] }

// memScan is what was found in one memtable.
type memScan struct {
	rows int // in complete transactions before end
	// end is where a replay stops; used is behind the last byte that is not zero.
	end, used int
	last      uint64 // version of the last complete transaction before end
	short     bool   // the header is not whole
	header    bool   // the header claims an encryption that there is not
	// damaged: something behind end was acknowledged.
	damaged bool
	// behind are the intact rows there, in the order of the file.
	behind []rawRow
}

// torn: an unfinished transaction that nobody was told of.
func (m memScan) torn() bool { return !m.damaged && m.used > m.end }

// readRecord reads the record at the beginning of b. size is its length by its
// header, 0 if that makes no sense.
func readRecord(b []byte) (r rawRow, size int, ok bool) {
	if len(b) < 9 {
		return r, 0, false
	}
	r.meta, r.user = b[0], b[1]
	d := decoder{b: b[2:min(len(b), 2+3*binary.MaxVarintLen64)]}
	head := len(d.b)
	klen, vlen := d.uvarint(), d.uvarint()
	r.expires = d.uvarint()
	if d.bad || klen <= 8 || klen > 1<<16 || vlen > maxMemBytes {
		return r, 0, false
	}
	hlen := 2 + head - len(d.b)
	size = hlen + int(klen) + int(vlen) + crc32.Size
	if size > len(b) {
		return r, size, false
	}
	r.key = b[hlen : hlen+int(klen)]
	r.value = b[hlen+int(klen) : size-crc32.Size]
	ok = crc32.Checksum(b[:size-crc32.Size], castagnoli) == binary.BigEndian.Uint32(b[size-crc32.Size:])
	return r, size, ok
}

// scanMem reads a memtable. newest is true if no later one has rows: only there
// may the last transaction be unfinished.
func scanMem(data []byte, newest bool) (m memScan) {
	m.used = len(bytes.TrimRight(data, "\x00"))
	if len(data) < memHeader {
		m.short, m.damaged = true, m.used > 0
		return m
	}
	m.header = binary.BigEndian.Uint64(data) != 0
	m.end = memHeader
	m.used = max(m.used, memHeader)
	off, pending := memHeader, 0
	var open uint64 // version of the transaction that has begun
	for fault := false; !fault && off < m.used; {
		r, size, ok := readRecord(data[off:])
		if !ok {
			break
		}
		switch v := r.version(); {
		case r.meta&metaTxn != 0:
			if open == 0 {
				open = v
			}
			pending++
			fault = v != open
		case r.meta&metaFin != 0:
			n, err := strconv.ParseUint(string(r.value), 10, 64)
			if fault = err != nil || n != open; !fault {
				m.rows, m.last, m.end = m.rows+pending, open, off+size
				open, pending = 0, 0
			}
		default:
			if fault = open != 0; !fault {
				m.rows, m.last, m.end = m.rows+1, max(m.last, v), off+size
			}
		}
		off += size
	}
	// A record may end with zeros of its own.
	if m.used = max(m.used, m.end); m.used == m.end {
		return m
	}
	m.lookBehind(data, open, newest)
	return m
}

// lookBehind collects what is intact behind the fault, and decides whether it
// is damage. One transaction is synced before the next one begins: what lies
// behind a later one than that of the fault was acknowledged.
func (m *memScan) lookBehind(data []byte, open uint64, newest bool) {
	data = data[:min(m.used+crc32.Size, len(data))]
	budget := 16*len(data) + 1<<20 // bytes that are summed, for hostile input
	var latest, finished uint64
	earliest := uint64(math.MaxUint64)
	for off := m.end; off < len(data) && budget > 0; {
		r, size, ok := rawRow{}, 0, false
		if c := data[off]; c == metaTxn || c == metaTxn|metaDelete || c == metaFin {
			r, size, ok = readRecord(data[off:])
			if size > 0 && size <= len(data)-off {
				budget -= size
			}
		}
		if !ok {
			// If the lengths are sound, the next record follows: a payload that
			// looks like a record is not taken for one then.
			if size > 0 && size < len(data)-off {
				if _, n, ok := readRecord(data[off+size:]); ok {
					budget -= n
					off += size
					continue
				}
			}
			off++
			continue
		}
		off += size
		if r.meta&metaFin != 0 {
			if n, err := strconv.ParseUint(string(r.value), 10, 64); err == nil {
				finished, latest = max(finished, n), max(latest, n)
				earliest = min(earliest, n)
			}
			continue
		}
		latest, earliest = max(latest, r.version()), min(earliest, r.version())
		m.behind = append(m.behind, r)
	}
	switch {
	case open != 0:
	case m.last != 0:
		open = m.last + 1
	default:
		open = earliest
	}
	m.damaged = latest > open || !newest
	rows := m.behind[:0]
	for _, r := range m.behind {
		// The last transaction counts only if its end is there.
		if m.damaged && (r.version() < latest || r.version() <= finished || !newest) {
			rows = append(rows, r)
		}
	}
	m.behind = rows
}
