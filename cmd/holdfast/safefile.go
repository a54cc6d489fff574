package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// safeFile is a file that is there whole or not at all: it is written beside its
// place, and moved there when it is on the disk.
type safeFile struct {
	path string
	f    *os.File
	w    *bufio.Writer
}

// newSafeFile begins one. It refuses a path where there is something: what was
// exported before may be nowhere else.
func newSafeFile(path string) (*safeFile, error) {
	if _, err := os.Lstat(path); err == nil {
		return nil, fmt.Errorf("%s is there already, and may be the only copy of what it has: choose another name", path)
	}
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*.part")
	if err != nil {
		return nil, fmt.Errorf("make the file: %w", err)
	}
	return &safeFile{path, f, bufio.NewWriterSize(f, 256<<10)}, nil
}

func (s *safeFile) Write(b []byte) (int, error) { return s.w.Write(b) }

// finish makes the file safe in its place. A crash before it returns leaves the
// file there, or a *.part of it, or none.
func (s *safeFile) finish() error {
	err := s.w.Flush()
	if err == nil {
		err = s.f.Sync()
	}
	if err = errors.Join(err, s.f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", s.path, err)
	}
	err = unix.Renameat2(unix.AT_FDCWD, s.f.Name(), unix.AT_FDCWD, s.path, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		// A file system that cannot promise it: nobody else makes this name.
		err = os.Rename(s.f.Name(), s.path)
	}
	if err != nil {
		return fmt.Errorf("move the file to %s: %w", s.path, err)
	}
	return syncDir(filepath.Dir(s.path))
}

// giveUp removes what finish has not put into its place.
func (s *safeFile) giveUp() {
	s.f.Close()
	os.Remove(s.f.Name())
}

// syncDir makes the names in a folder safe.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	// A file system that has no such thing for folders says EINVAL.
	if err := d.Sync(); err != nil && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("write the folder %s: %w", dir, err)
	}
	return nil
}
