package storage

import (
	"os"
	"strings"
	"testing"

	"github.com/dgraph-io/ristretto/v2/z"
)

func TestSelfCheckPassesThisBuild(t *testing.T) {
	if err := selfCheck(); err != nil {
		t.Error(err)
	}
	// Where an int has 64 bits selfCheck does not come to this.
	if err := checkArena(); err != nil {
		t.Error(err)
	}
}

func TestSelfCheckGoesPastTheFirstBuffers(t *testing.T) {
	a := z.NewAllocator(checkFirst, "test")
	defer a.Release()
	if overlaps(a.Allocate) {
		t.Fatal("overlaps")
	}
	if buffers := strings.Count(a.String(), "idx: "); buffers < 5 {
		t.Errorf("only %d buffers were used:\n%v", buffers, a)
	}
}

// Arenas with a fault, the first of them being that of an int of 32 bits.
func TestSelfCheckNoticesFaultyArenas(t *testing.T) {
	for _, c := range []struct {
		name  string
		arena func() func(size int) []byte
		want  bool
	}{
		{"shifts a full buffer's index out of the word", func() func(int) []byte {
			buf, at := make([]byte, checkFirst), 0
			return func(size int) []byte {
				at += size
				if at > len(buf) {
					at = size // the index of the next buffer is lost
				}
				return buf[at-size : at]
			}
		}, true},
		{"begins again inside a piece", func() func(int) []byte {
			buf, at := make([]byte, 4*checkPiece), 0
			return func(size int) []byte {
				if at+size > len(buf) {
					at = size / 2
				}
				at += size
				return buf[at-size : at]
			}
		}, true},
		{"goes back into its last piece", func() func(int) []byte {
			buf, at := make([]byte, checkPieces*checkPiece), 0
			return func(size int) []byte {
				p := buf[at : at+size]
				at += size - 1
				return p
			}
		}, true},
		{"hands out less than was asked for", func() func(int) []byte {
			return func(size int) []byte { return make([]byte, size-1) }
		}, true},
		{"hands out neighbours", func() func(int) []byte {
			buf, at := make([]byte, checkPieces*checkPiece), 0
			return func(size int) []byte {
				at += size
				return buf[at-size : at]
			}
		}, false},
		{"hands out everything from the heap", func() func(int) []byte {
			return func(size int) []byte { return make([]byte, size) }
		}, false},
	} {
		if got := overlaps(c.arena()); got != c.want {
			t.Errorf("an arena that %s: %v", c.name, got)
		}
	}
}

func TestMakeBuildsWithTheCorrections(t *testing.T) {
	if flags := os.Getenv("GOFLAGS"); strings.Contains(flags, "build/mod/go.mod") && !Corrected() {
		t.Errorf("GOFLAGS is %q, and a merge still forgets its error", flags)
	}
}

func TestSelfCheckSaysWhatToDo(t *testing.T) {
	for _, part := range []string{"32-bit", "make build", "-modfile=build/mod/go.mod", "scripts/patch-modules.sh"} {
		if !strings.Contains(errAllocator.Error(), part) {
			t.Errorf("%q is not in: %v", part, errAllocator)
		}
	}
}
