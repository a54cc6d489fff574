package storage

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// setAsideDir is the folder below the store for files that were set aside.
const setAsideDir = "setaside"

const (
	// asideBytes and asideFiles bound what is kept there; the oldest goes.
	asideBytes = 64 << 20
	asideFiles = 32
)

// asidePath finds a free name below the sub-folder for files set aside.
func asidePath(dir, name string) (string, error) {
	to := filepath.Join(dir, setAsideDir)
	if info, err := os.Stat(to); err == nil && !info.IsDir() {
		_ = os.Rename(to, to+".old") // whatever it is
	}
	if err := os.MkdirAll(to, 0o700); err != nil {
		return "", fmt.Errorf("storage: set aside %s: %w", name, err)
	}
	target := filepath.Join(to, name)
	for n := 1; ; n++ {
		if _, err := os.Lstat(target); os.IsNotExist(err) {
			return target, nil
		}
		target = filepath.Join(to, fmt.Sprintf("%s.%d", name, n))
	}
}

// setAside moves a file of the store into the sub-folder for such files. A
// crash in here leaves it in one of the two places.
func setAside(dir, name string) error {
	target, err := asidePath(dir, name)
	if err != nil {
		return err
	}
	if err := os.Rename(filepath.Join(dir, name), target); err != nil {
		return fmt.Errorf("storage: set aside %s: %w", name, err)
	}
	_ = os.Chtimes(target, time.Time{}, time.Now()) // its age there is all that it means
	return nil
}

// copyAside keeps the first n bytes of a file. A crash in here leaves a part
// of the copy, and another one beside it later.
func copyAside(dir, name string, n int) error {
	target, err := asidePath(dir, name)
	if err != nil {
		return err
	}
	data, err := readFile(filepath.Join(dir, name), maxTableBytes)
	if err != nil {
		return fmt.Errorf("storage: set aside %s: %w", name, err)
	}
	return writeSynced(target, data[:min(n, len(data))])
}

// boundAside removes the oldest files that were set aside when there are too
// many of them.
func boundAside(dir string) error {
	type old struct {
		path string
		size int64
		at   time.Time
	}
	var list []old
	var total int64
	root := filepath.Join(dir, setAsideDir)
	entries, err := os.ReadDir(root)
	if err != nil {
		return fmt.Errorf("storage: look at what is set aside: %w", err)
	}
	for _, e := range entries {
		o := old{path: filepath.Join(root, e.Name())}
		_ = filepath.WalkDir(o.path, func(_ string, d fs.DirEntry, err error) error {
			if err == nil {
				if info, err := d.Info(); err == nil && d.Type().IsRegular() {
					o.size += info.Size()
				}
			}
			return nil
		})
		if info, err := e.Info(); err == nil {
			o.at = info.ModTime()
		}
		list = append(list, o)
		total += o.size
	}
	slices.SortFunc(list, func(a, b old) int {
		if d := a.at.Compare(b.at); d != 0 {
			return d
		}
		return strings.Compare(a.path, b.path)
	})
	for len(list) > 1 && (total > asideBytes || len(list) > asideFiles) {
		if err := os.RemoveAll(list[0].path); err != nil {
			return fmt.Errorf("storage: remove what was set aside: %w", err)
		}
		total -= list[0].size
		list = list[1:]
	}
	return nil
}
