package storage

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// What stands in the folder of a store under a name of the store's may be anything: a
// device that never ends, a pipe that nobody writes to, a file of a terabyte that is
// one hole.

// openFile opens a regular file of at most most bytes.
func openFile(name string, most int64) (*os.File, int64, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	switch {
	case err != nil:
	case !info.Mode().IsRegular():
		err = fmt.Errorf("%s is not a file", name)
	case info.Size() > most:
		err = fmt.Errorf("%s is larger than the store makes it", name)
	default:
		return f, info.Size(), nil
	}
	return nil, 0, errors.Join(err, f.Close())
}

// readWhole reads a file of at most most bytes.
func readWhole(name string, most int64) ([]byte, error) {
	f, size, err := openFile(name, most)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b := make([]byte, size)
	n, err := io.ReadFull(f, b)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = nil // it has become shorter
	}
	return b[:n], err
}

// readFile reads a file of at most most bytes. Where the card cannot be read there
// are zeros instead: one bad sector must not cost the rest.
func readFile(name string, most int64) ([]byte, error) {
	b, err := readWhole(name, most)
	if err == nil {
		return b, nil
	}
	f, size, openErr := openFile(name, most)
	if openErr != nil {
		return nil, err
	}
	defer f.Close()
	b = make([]byte, size)
	for off := 0; off < len(b); off += 4096 {
		part := b[off:min(off+4096, len(b))]
		if n, err := f.ReadAt(part, int64(off)); n < len(part) && err != nil {
			clear(part)
		}
	}
	return b, nil
}

func readAt(name string, off int64, n int) ([]byte, error) {
	f, _, err := openFile(name, 1<<62)
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
