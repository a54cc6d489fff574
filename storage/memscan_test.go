package storage

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// memFixture is a log of transactions as Badger writes them, two rows each, and
// where each transaction ends.
func memFixture(txns int) (b []byte, ends []int) {
	b = make([]byte, memHeader)
	record := func(meta byte, key string, version uint64, value []byte) {
		start := len(b)
		k := binary.BigEndian.AppendUint64([]byte(key), math.MaxUint64-version)
		b = append(b, meta, 0)
		b = binary.AppendUvarint(b, uint64(len(k)))
		b = binary.AppendUvarint(b, uint64(len(value)))
		b = append(append(append(b, 0), k...), value...)
		b = binary.BigEndian.AppendUint32(b, crc32.Checksum(b[start:], castagnoli))
	}
	for i := range txns {
		v := uint64(i + 1)
		record(metaTxn, fmt.Sprint("a", i), v, bytes.Repeat([]byte{byte(i)}, 50))
		record(metaTxn|metaDelete, fmt.Sprint("b", i), v, nil)
		record(metaFin, "!badger!txn", v, fmt.Append(nil, v))
		ends = append(ends, len(b))
	}
	return b, ends
}

func TestAMemtableIsReadBehindItsDamage(t *testing.T) {
	whole, ends := memFixture(10)
	padded := func(b []byte) []byte { return append(bytes.Clone(b), make([]byte, 5000)...) }
	for _, c := range []struct {
		name    string
		data    []byte
		end     int
		damaged bool
		behind  int
	}{
		{"whole", padded(whole), ends[9], false, 0},
		{"without zeros behind it", whole, ends[9], false, 0},
		{"its last transaction cut", whole[:ends[9]-3], ends[8], false, 0},
		{"garbage behind it", append(bytes.Clone(whole), bytes.Repeat([]byte{0xff}, 4000)...), ends[9], false, 0},
		{"a byte of the last transaction", padded(flip(whole, ends[8]+20)), ends[8], false, 0},
		{"a byte of the fourth", padded(flip(whole, ends[2]+30)), ends[2], true, 13},
		{"the end of the fourth", padded(flip(whole, ends[3]-2)), ends[2], true, 14},
		{"a length", padded(flip(whole, ends[2]+3)), ends[2], true, 13},
		{"a page of zeros", padded(append(append(bytes.Clone(whole[:ends[2]]), make([]byte, ends[5]-ends[2])...), whole[ends[5]:]...)), ends[2], true, 8},
		{"ten bytes", whole[:10], 0, false, 0},
	} {
		m := scanMem(c.data, true)
		if m.end != c.end || m.damaged != c.damaged || len(m.behind) != c.behind {
			t.Errorf("%s: end %d, damaged %v, %d rows behind, want %d %v %d", c.name, m.end, m.damaged, len(m.behind), c.end, c.damaged, c.behind)
		}
	}
	// Of an older memtable nothing was unfinished.
	if m := scanMem(padded(flip(whole, ends[8]+20)), false); !m.damaged || len(m.behind) != 1 {
		t.Errorf("%+v", m)
	}
	if m := scanMem(flip(whole, 3), true); !m.header || m.end != ends[9] {
		t.Errorf("%+v", m)
	}
}

func flip(b []byte, at int) []byte {
	b = bytes.Clone(b)
	b[at] ^= 0x10
	return b
}

// In the middle of a memtable Badger would cut off all that comes behind, and
// say nothing.
func TestABadRecordCostsItsTransactionOnly(t *testing.T) {
	im := damageImage(t)
	for _, name := range im.files(t, "*.mem") {
		n := used(t, filepath.Join(im.dir, name))
		if n < 10000 {
			continue
		}
		dir := im.copy(t)
		hurt(t, filepath.Join(dir, name), "flip", n/3)
		lost, unseen, st := im.after(t, dir)
		if lost > im.perBatch || unseen != 0 || st.Salvaged == 0 || st.SetAside == 0 {
			t.Fatalf("lost %d, unseen %d, %+v", lost, unseen, st)
		}
		if kept := used(t, filepath.Join(dir, setAsideDir, name)); kept != n {
			t.Fatalf("%d bytes of %d are kept aside", kept, n)
		}
		return
	}
	t.Fatal("the image has no memtable with rows in it")
}

// Without the marks a tail that is cut off leaves nothing to see; with them it
// is counted, and its positions are not used again.
func TestALostTailIsCountedByTheMarks(t *testing.T) {
	im := damageImage(t)
	for _, marked := range []bool{true, false} {
		dir := im.copy(t)
		for _, name := range im.files(t, "*.mem") {
			if n := used(t, filepath.Join(dir, name)); n > 10000 {
				hurt(t, filepath.Join(dir, name), "cut", n/2)
			}
		}
		if !marked {
			if err := os.Remove(filepath.Join(dir, marksName)); err != nil {
				t.Fatal(err)
			}
		}
		lost, unseen, _ := im.after(t, dir)
		if marked && (lost == 0 || unseen != 0) || !marked && unseen == 0 {
			t.Fatalf("with marks %v: lost %d, unseen %d", marked, lost, unseen)
		}
	}
}

func FuzzMemScan(f *testing.F) {
	whole, ends := memFixture(4)
	f.Add(whole, true)
	f.Add(whole[:ends[2]-1], false)
	f.Add(flip(whole, ends[0]+5), true)
	f.Fuzz(func(t *testing.T, data []byte, newest bool) {
		m := scanMem(data, newest)
		if m.end > len(data) || m.used < m.end && !m.short || m.used > max(len(data), memHeader) {
			t.Fatalf("%+v of %d bytes", m, len(data))
		}
		for _, r := range m.behind {
			if len(r.key) <= 8 {
				t.Fatalf("%+v", r)
			}
		}
		if again := scanMem(data[:m.end], true); again.end != m.end || again.rows != m.rows {
			t.Fatalf("cut at %d it ends at %d", m.end, again.end)
		}
	})
}

func FuzzTableScan(f *testing.F) {
	x := &exam{dir: f.TempDir(), next: 1}
	whole, ends := memFixture(40)
	rows := (&memFile{memScan: scanMem(whole, true)}).allRows(whole[:ends[39]])
	slices.SortFunc(rows, func(a, b rawRow) int { return bytes.Compare(a.key, b.key) })
	if _, err := x.writeTables(slices.Values(rows)); err != nil {
		f.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(x.dir, "000001.sst"))
	if err != nil {
		f.Fatal(err)
	}
	if s := scanTable(b, nil); !s.index || s.bad > 0 || s.rows != len(rows) {
		f.Fatalf("%+v of %d rows", s, len(rows))
	}
	if s := scanTable(b[:len(b)-20], nil); s.index || s.bad > 0 || s.rows != len(rows) {
		f.Fatalf("without its foot %+v of %d rows", s, len(rows))
	}
	f.Add(b)
	f.Add(b[:len(b)/2])
	f.Fuzz(func(t *testing.T, data []byte) {
		n := 0
		s := scanTable(data, func(rawRow) bool { n++; return true })
		if n != s.rows {
			t.Fatal(n, s.rows)
		}
	})
}

func FuzzManifest(f *testing.F) {
	f.Add(manifest{tables: map[uint64]int{1: 0, 300: 6}}.encode())
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := readManifest(data)
		if again, err2 := readManifest(m.encode()); err == nil && (err2 != nil || len(again.tables) != len(m.tables)) {
			t.Fatal(again, err2)
		}
	})
}
