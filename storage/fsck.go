package storage

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Report is what Check has found in the folder of a store.
type Report struct {
	Findings []Finding
	// What was read: files, rows, and batches of messages among these.
	Memtables, Tables, Rows, Batches int
	// BadBatches are intact for Badger and not by their own checksum.
	BadBatches int
	// SetAside are the files that earlier openings have set aside.
	SetAside      int
	SetAsideBytes int64
}

// Check looks at every byte of a store that nobody has open, and changes
// nothing. It tells what is wrong and what the next opening does about it. step
// is called as the work goes on; nil for no one.
func Check(dir string, step func(done, total int64)) (*Report, error) {
	lock, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("storage: open the folder: %w", err)
	}
	defer lock.Close()
	if unix.Flock(int(lock.Fd()), unix.LOCK_SH|unix.LOCK_NB) != nil {
		return nil, fmt.Errorf("storage: the folder %s is %w by a running gateway: stop it first, and look at its status until then", dir, errInUse)
	}
	x, err := examine(dir, -1, step)
	if err != nil {
		return nil, err
	}
	r := &Report{Findings: x.findings, Memtables: len(x.mems), Tables: len(x.tables), Rows: x.rows, Batches: x.batches, BadBatches: x.badBatches}
	if x.badBatches > 0 {
		r.Findings = append(r.Findings, Finding{"*.sst", fmt.Sprintf("%d batches of messages are damaged", x.badBatches), "they are counted as lost when they are read", true})
	}
	if _, err := readMarks(dir); err != nil {
		r.Findings = append(r.Findings, Finding{marksName, "it is damaged", "it is written anew; a tail lost now would not be noticed", false})
	}
	_ = filepath.WalkDir(filepath.Join(dir, setAsideDir), func(_ string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			if info, err := d.Info(); err == nil {
				r.SetAside++
				r.SetAsideBytes += info.Size()
			}
		}
		return nil
	})
	return r, nil
}
