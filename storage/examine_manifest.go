package storage

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/dgraph-io/badger/v4/y"
)

// examineManifest compares the MANIFEST with the tables that are there.
func (x *exam) examineManifest() error {
	b, err := readWhole(filepath.Join(x.dir, "MANIFEST"), maxManifest)
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
	x.examineLevels()
	slices.SortFunc(x.findings, func(a, b Finding) int { return strings.Compare(a.File, b.File) })
	return nil
}

// examineLevels looks for tables of one level below 0 that overlap, which Badger
// refuses: one of them is in the place of another. Level 0 is right for any table:
// there the newest version of a key is looked for in all of them.
func (x *exam) examineLevels() {
	var deep []*tableFile
	for id, level := range x.manifest.tables {
		if t := x.tables[id]; t != nil && !t.bad && level > 0 {
			deep = append(deep, t)
		}
	}
	slices.SortFunc(deep, func(a, b *tableFile) int {
		return cmp.Or(y.CompareKeys(a.first, b.first), cmp.Compare(a.id, b.id))
	})
	last := map[int][]byte{}
	for _, t := range deep {
		level := x.manifest.tables[t.id]
		if end := last[level]; end != nil && (y.CompareKeys(end, t.first) >= 0 || y.SameKey(end, t.first)) {
			t.displaced, x.rewrite = true, true
			x.find(t.name, "another table has keys of the same range: one of them is in the place of a third, which is missing", "the store opens with both", true)
			continue
		}
		last[level] = t.last
	}
}
