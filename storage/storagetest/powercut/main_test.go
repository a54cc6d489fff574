//go:build linux && (amd64 || arm64)

package powercut

import (
	"fmt"
	"os"
	"testing"
)

// The test binary is also the server of the disk and the program under test.
const (
	envServe = "HOLDFAST_POWERCUT_SERVE" // the folder to serve the disk in
	envBase  = "HOLDFAST_POWERCUT_BASE"  // the file with the disk's first content
	envStore = "HOLDFAST_POWERCUT_STORE" // the folder of the store
	envLife  = "HOLDFAST_POWERCUT_LIFE"  // the number of the program's life; 0 only looks
	envSpill = "HOLDFAST_POWERCUT_SPILL" // set: the store runs in spill mode
	envEarly = "HOLDFAST_POWERCUT_EARLY" // set: promise before the commit, which must be noticed
)

func TestMain(m *testing.M) {
	var err error
	switch {
	case os.Getenv(envServe) != "":
		err = serve(os.Getenv(envServe))
	case os.Getenv(envStore) != "":
		err = program(os.Getenv(envStore), os.Getenv(envLife))
	default:
		os.Exit(m.Run())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
