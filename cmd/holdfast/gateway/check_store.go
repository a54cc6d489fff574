package gateway

import (
	"path/filepath"

	"holdfast/storage"
)

// CheckStore looks for damage in the data folder of a stopped gateway
// (storage.Check).
func CheckStore(dataDir string, step func(done, total int64)) (*storage.Report, error) {
	return storage.Check(filepath.Join(dataDir, "store"), step)
}

// BuildFault is what is wrong with how this program was built, for a person to
// read; empty if nothing is.
func BuildFault() string {
	if storage.Corrected() {
		return ""
	}
	return storage.Uncorrected
}
