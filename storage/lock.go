package storage

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// InUse reports whether another process has the store in dir open. It takes the
// lock of Badger's folder, as Badger does, and gives it back: before Open is
// called for a folder that a gateway may have, whose files must be left alone.
func InUse(dir string) (bool, error) {
	f, err := os.Open(dir)
	if err != nil {
		return false, err
	}
	defer f.Close() // gives the lock back
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return true, nil
	}
	return false, err
}
