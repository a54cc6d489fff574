package storage

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Finding is one thing that is wrong in the folder of a store.
type Finding struct {
	File    string // its name in the folder
	Problem string // in words
	Action  string // what an opening does about it
	// Loss: messages or other rows may be lost with it. What is known to be
	// missing is counted when the store opens.
	Loss bool
}

// exam is a look at a closed store. It changes nothing.
type exam struct {
	dir      string
	findings []Finding
	aside    []string // files to be moved aside as they are
	remove   []string // files without anything of ours
	mems     []*memFile
	tables   map[uint64]*tableFile
	manifest manifest
	rewrite  bool // the MANIFEST must be written anew
	next     uint64
	faulty   map[string]bool // could not be read while the store was open
	// Figures for fsck.
	rows, batches, badBatches, checked int
}

type memFile struct {
	name   string
	newest bool
	memScan
}

type tableFile struct {
	name        string
	id          uint64
	size        int64
	blocks      []span32
	first, last []byte // keys; nil if they are not known
	bad         bool
	odd         string // what is wrong, in words
}

// deepBytes bounds what an opening reads of tables beyond their ends: its time
// must not grow with what is queued. The rest is the background scan's.
const deepBytes = 16 << 20

func (x *exam) find(file, problem, action string, loss bool) {
	x.findings = append(x.findings, Finding{file, problem, action, loss})
}

// examine looks at the files of a store that nobody has open. At most deep
// bytes of tables are read in full, each is if deep is negative. step is called
// as the work goes on; nil for no one.
func examine(dir string, deep int64, step func(done, total int64)) (*exam, error) {
	x := &exam{dir: dir, tables: map[uint64]*tableFile{}, next: 1}
	var all bool
	if x.faulty, all = readFaults(dir); all {
		deep = -1
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("storage: look into %s: %w", dir, err)
	}
	for _, f := range files {
		if err := x.sort(f); err != nil {
			return nil, err
		}
	}
	if err := x.examineMems(); err != nil {
		return nil, err
	}
	if err := x.examineTables(deep, step); err != nil {
		return nil, err
	}
	return x, x.examineManifest()
}

// sort puts one entry of the folder where it belongs.
func (x *exam) sort(f os.DirEntry) error {
	name := f.Name()
	stem, ext, _ := strings.Cut(name, ".")
	number, err := strconv.ParseUint(stem, 10, 32)
	numbered := err == nil && strings.Trim(stem, "0123456789") == ""
	kind := "." + ext
	switch {
	case name == "LOCK" || name == "MANIFEST" || name == "MANIFEST-REWRITE" || name == "KEYREGISTRY" || name == "DISCARD" || name == marksName:
		kind = name
	case kind != ".mem" && kind != ".sst" && kind != ".vlog":
		return nil // not Badger's
	case !numbered:
		x.aside = append(x.aside, name)
		x.find(name, "its name is none that the store gives", "it is set aside", false)
		return nil
	}
	if !f.Type().IsRegular() {
		x.aside = append(x.aside, name)
		x.find(name, "it is not a file", "it is set aside", false)
		return nil
	}
	info, err := f.Info()
	if err != nil {
		return fmt.Errorf("storage: look at %s: %w", name, err)
	}
	switch kind {
	case ".mem":
		if info.Size() == 0 {
			// A crash between the truncation and the removal of a memtable whose
			// content is already in a table leaves it; Badger refuses it for ever.
			x.aside = append(x.aside, name)
			x.find(name, "it is empty: the power went while it was removed", "it is set aside; nothing is lost", false)
			return nil
		}
		if info.Size() > maxMemBytes {
			x.aside = append(x.aside, name)
			x.find(name, "it is larger than the store makes them", "it is set aside", true)
			return nil
		}
		x.mems = append(x.mems, &memFile{name: name})
	case ".sst":
		x.tables[number] = &tableFile{name: name, id: number, size: info.Size()}
		x.next = max(x.next, number+1)
	case ".vlog":
		return x.examineLog(name, info.Size())
	case "KEYREGISTRY":
		// Nothing is encrypted: it holds a random vector and a fixed text.
		if b, err := os.ReadFile(filepath.Join(x.dir, name)); err != nil || len(b) != 16+len(keyRegistryText) || string(b[16:]) != keyRegistryText {
			x.aside = append(x.aside, name)
			x.find(name, "it is damaged", "it is set aside and made anew; nothing is lost", false)
		}
	case "DISCARD":
		// Statistics of a value log that has nothing in it.
		if b, err := readAt(filepath.Join(x.dir, name), 0, 16); err != nil || info.Size() != 1<<20 || strings.Trim(string(b), "\x00") != "" {
			x.remove = append(x.remove, name)
			x.find(name, "it is damaged", "it is made anew; nothing is lost", false)
		}
	}
	return nil
}

const keyRegistryText = "Hello Badger"

// examineLog looks at a value log. No value of ours is ever in one, so that
// one that is not empty is of no use, and may keep Badger from opening.
func (x *exam) examineLog(name string, size int64) error {
	b, err := readAt(filepath.Join(x.dir, name), 0, int(min(size, memHeader+22)))
	if err == nil && size >= memHeader && strings.Trim(string(b[:8]), "\x00") == "" && strings.Trim(string(b[memHeader:]), "\x00") == "" {
		return nil
	}
	x.aside = append(x.aside, name)
	x.find(name, "it is damaged", "it is set aside; nothing is lost: no message is kept in it", false)
	return nil
}

func (x *exam) examineMems() error {
	slices.SortFunc(x.mems, func(a, b *memFile) int { return len(a.name) - len(b.name) + strings.Compare(a.name, b.name) })
	newest := true
	for i := len(x.mems) - 1; i >= 0; i-- {
		m := x.mems[i]
		data, err := readFile(filepath.Join(x.dir, m.name))
		if err != nil {
			return fmt.Errorf("storage: read %s: %w", m.name, err)
		}
		m.newest = newest
		m.memScan = scanMem(data, newest)
		if m.used > memHeader {
			newest = false
		}
		n := len(m.behind)
		m.behind = nil // shares data; read again when it is needed
		x.rows += m.rows
		switch {
		case m.short:
			x.aside = append(x.aside, m.name)
			x.find(m.name, "it is shorter than its header", "it is set aside", true)
		case m.damaged:
			x.find(m.name, fmt.Sprintf("it is damaged at byte %d of %d, behind %d rows", m.end, m.used, m.rows),
				fmt.Sprintf("a copy is set aside, and %d rows behind the damage are taken into a table", n), true)
		case m.torn():
			x.find(m.name, fmt.Sprintf("a transaction at byte %d was not finished", m.end), "it is cut off; it was never acknowledged", false)
		}
		if m.header && !m.short {
			x.find(m.name, "its header is damaged", "the header is written anew", false)
		}
	}
	x.mems = slices.DeleteFunc(x.mems, func(m *memFile) bool { return m.short })
	return nil
}

// examineManifest compares the MANIFEST with the tables that are there.
func (x *exam) examineManifest() error {
	b, err := os.ReadFile(filepath.Join(x.dir, "MANIFEST"))
	missing := errors.Is(err, os.ErrNotExist) || slices.Contains(x.aside, "MANIFEST")
	switch {
	case missing && len(x.tables) == 0 && len(x.mems) == 0:
		x.manifest = manifest{tables: map[uint64]int{}}
		return nil // a new store
	case missing:
		x.manifest = manifest{tables: map[uint64]int{}}
		x.rewrite = len(x.tables) > 0
		if x.rewrite {
			x.find("MANIFEST", "it is missing", "it is made anew from the tables", false)
		}
	case err != nil:
		return fmt.Errorf("storage: read the MANIFEST: %w", err)
	default:
		if x.manifest, err = readManifest(b); err != nil {
			x.rewrite = true
			x.find("MANIFEST", err.Error(), "it is made anew from the tables", false)
		}
	}
	for id := range x.manifest.tables {
		if x.tables[id] == nil {
			x.rewrite = true
			x.find(fmt.Sprintf("%06d.sst", id), "the table is missing", "the store opens without it", true)
		}
		x.next = max(x.next, id+1)
	}
	unsure := x.rewrite || x.manifest.tail
	var strays int64
	for id, t := range x.tables {
		if _, ok := x.manifest.tables[id]; !ok {
			strays += t.size
		}
	}
	for id, t := range x.tables {
		_, named := x.manifest.tables[id]
		switch {
		case named && t.bad:
			x.rewrite = true
			x.find(t.name, t.odd, "what can be read of it is taken into a new table, and it is set aside", true)
		case named:
		case t.bad:
			x.aside = append(x.aside, t.name)
			x.find(t.name, t.odd+", and the MANIFEST does not name it", "it is set aside", unsure)
		case x.manifest.gone[id] && !unsure:
			// The crash came before its removal; Badger makes up for that.
		case unsure || strays <= deepBytes:
			// A crash before it was named leaves it beside the log or the tables
			// that it was made of, and then its rows are there twice, which is no
			// harm. If the end of the MANIFEST is lost it is the only one.
			x.rewrite = true
			if unsure {
				x.find(t.name, "the MANIFEST does not name it", "it is taken into the store", false)
			}
		}
	}
	slices.SortFunc(x.findings, func(a, b Finding) int { return strings.Compare(a.File, b.File) })
	return nil
}

func readAt(name string, off int64, n int) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b := make([]byte, n)
	m, err := f.ReadAt(b, off)
	if m == n || errors.Is(err, io.EOF) {
		err = nil
	}
	return b[:m], err
}

// readFile reads a whole file. Where the card cannot be read there are zeros
// instead: one bad sector must not cost the rest.
func readFile(name string) ([]byte, error) {
	b, err := os.ReadFile(name)
	if err == nil {
		return b, nil
	}
	f, openErr := os.Open(name)
	if openErr != nil {
		return nil, err
	}
	defer f.Close()
	info, statErr := f.Stat()
	if statErr != nil || info.Size() > maxTableBytes {
		return nil, err
	}
	b = make([]byte, info.Size())
	for off := 0; off < len(b); off += 4096 {
		part := b[off:min(off+4096, len(b))]
		if n, err := f.ReadAt(part, int64(off)); n < len(part) && err != nil {
			clear(part)
		}
	}
	return b, nil
}
