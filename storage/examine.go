package storage

import (
	"fmt"
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
	// displaced: another table of its level has such keys too.
	displaced bool
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
	kind := filepath.Ext(name)
	number, _ := strconv.ParseUint(strings.TrimSuffix(name, kind), 10, 32)
	digits := 6
	if kind == ".mem" {
		digits = 5
	}
	switch {
	case name == "LOCK" || name == "MANIFEST" || name == "MANIFEST-REWRITE" || name == "KEYREGISTRY" || name == "DISCARD" || name == marksName:
		kind = name
	case kind != ".mem" && kind != ".sst" && kind != ".vlog":
		return nil // not Badger's
	case name != fmt.Sprintf("%0*d%s", digits, number, kind):
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
	case "MANIFEST":
		if info.Size() > maxManifest {
			x.aside = append(x.aside, name)
			x.find(name, "it is larger than the store makes it", "it is set aside", false)
		}
	case "KEYREGISTRY":
		// Nothing is encrypted: it holds a random vector and a fixed text.
		if b, err := readWhole(filepath.Join(x.dir, name), 1<<10); err != nil || len(b) != 16+len(keyRegistryText) || string(b[16:]) != keyRegistryText {
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
		data, err := readFile(filepath.Join(x.dir, m.name), maxMemBytes)
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
