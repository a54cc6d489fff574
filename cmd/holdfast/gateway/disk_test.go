package gateway

import "testing"

func TestWhatTheKernelTellsOfTheProcess(t *testing.T) {
	for in, want := range map[string]int64{
		"rchar: 5\nwchar: 6\nread_bytes: 4096\nwrite_bytes: 8192\ncancelled_write_bytes: 1\n": 8192,
		"write_bytes: -1\n": 0, "write_bytes: x\n": 0, "": 0,
	} {
		if got := writeBytes([]byte(in)); got != want {
			t.Errorf("%q: %d, want %d", in, got, want)
		}
	}
	if residentMemory() < 1<<20 {
		t.Errorf("this process has %d bytes", residentMemory())
	}
	if d := diskStatus(t.TempDir()); d == nil || d.Size <= 0 || d.Free > d.Size {
		t.Errorf("%+v", d)
	}
	if diskStatus("/no/such/folder") != nil {
		t.Error("a disk that is not there")
	}
}
