package storage

import (
	"errors"
	"math/bits"
	"unsafe"

	"github.com/dgraph-io/badger/v4/y"
	"github.com/dgraph-io/ristretto/v2/z"
)

// Uncorrected is what a binary should say of itself that is not Corrected.
const Uncorrected = "built without the corrections of the storage engine: a full disk may end the process, " +
	"and a failing one may lose acknowledged messages; build it with \"make build\""

// Corrected reports whether this binary was built with the module file of
// scripts/patch-modules.sh, by trying one of the changes: the error of a part of
// a merge must still be known at its end after another part has seen it.
func Corrected() bool {
	t := y.NewThrottle(2)
	_ = t.Do()
	t.Done(errors.New("self-check"))
	more := 0
	for t.Do() == nil { // both places are taken then, at the latest
		more++
	}
	for range more {
		t.Done(nil)
	}
	return t.Finish() != nil
}

// errAllocator refuses to open a store. It can only be met where the binary was
// built without the module file of scripts/patch-modules.sh.
var errAllocator = errors.New("storage: this binary would damage what it stores: " +
	"its 32-bit build of the storage engine hands out memory that is in use (ristretto, z.Allocator). " +
	"Build it with \"make build\", or with -modfile=build/mod/go.mod after scripts/patch-modules.sh")

// selfCheck returns errAllocator if this binary must not write tables.
func selfCheck() error {
	// Where an int has 64 bits the shift is right, and this costs nothing.
	if bits.UintSize != 32 {
		return nil
	}
	return checkArena()
}

// checkArena tries the arena in which Badger builds its tables.
func checkArena() error {
	a := z.NewAllocator(checkFirst, "self-check")
	defer a.Release()
	if overlaps(a.Allocate) {
		return errAllocator
	}
	return nil
}

const (
	// checkFirst is the first buffer of the arena that is tried; each further
	// one is twice as large.
	checkFirst = 512
	// checkPiece must be smaller than the first buffer, or the faulty arena
	// would look for a place for ever.
	checkPiece = 200
	// checkPieces reach into the fifth buffer.
	checkPieces = 50
)

// overlaps says whether allocate hands out anything twice, also in part, on its
// way through several buffers. It also says so of pieces of another length than
// was asked for.
func overlaps(allocate func(size int) []byte) bool {
	pieces := make([][]byte, 0, checkPieces) // keeps them, so that nothing is used again rightly
	for range checkPieces {
		p := allocate(checkPiece)
		if len(p) != checkPiece {
			return true
		}
		at := address(p)
		for _, q := range pieces {
			if before := address(q); at < before+checkPiece && before < at+checkPiece {
				return true
			}
		}
		pieces = append(pieces, p)
	}
	return false
}

func address(b []byte) uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(b))) }
