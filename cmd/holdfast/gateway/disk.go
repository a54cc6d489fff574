package gateway

import (
	"bytes"
	"os"
	"strconv"
	"syscall"
)

// DiskStatus is the disk with the data, in bytes.
type DiskStatus struct {
	Free int64 `json:"free"` // for this user
	Size int64 `json:"size"`
	// Written is what the process has caused to be written since its start: the
	// wear of a card. 0 if the kernel does not tell.
	Written int64 `json:"written"`
}

func diskStatus(dir string) *DiskStatus {
	var st syscall.Statfs_t
	if syscall.Statfs(dir, &st) != nil {
		return nil
	}
	block := int64(st.Bsize)
	d := &DiskStatus{Free: int64(st.Bavail) * block, Size: int64(st.Blocks) * block}
	if b, err := os.ReadFile("/proc/self/io"); err == nil {
		d.Written = writeBytes(b)
	}
	return d
}

// writeBytes reads the line "write_bytes: 123" of /proc/pid/io (proc(5)).
func writeBytes(b []byte) int64 {
	for line := range bytes.Lines(b) {
		if n, ok := bytes.CutPrefix(line, []byte("write_bytes:")); ok {
			v, _ := strconv.ParseInt(string(bytes.TrimSpace(n)), 10, 64)
			return max(0, v)
		}
	}
	return 0
}

// residentMemory is the second figure of /proc/self/statm (proc(5)), in bytes.
func residentMemory() int64 {
	b, _ := os.ReadFile("/proc/self/statm")
	f := bytes.Fields(b)
	if len(f) < 2 {
		return 0
	}
	pages, _ := strconv.ParseInt(string(f[1]), 10, 40)
	return max(0, pages) * int64(os.Getpagesize())
}
