package configs

import "testing"

func TestParseSize(t *testing.T) {
	for text, want := range map[string]Size{
		"0": 0, "1": 1, "1024": KiB, "1B": 1, "1KB": 1000, "1KiB": KiB, "512MB": 512e6, "512 MiB": 512 * MiB,
		"1GiB": GiB, "1gib": GiB, "1.5GiB": 3 * GiB / 2, "2TB": 2e12, "8TiB": 8 * TiB, "0.5KiB": 512,
		"9223372036854775807": 1<<63 - 1,
	} {
		if got, err := ParseSize(text); err != nil || got != want {
			t.Errorf("%q is %d, %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{
		"", " ", "B", "GiB", "-1", "1X", "1 2", "1.2.3", "one", "1K", "1Gi", "0x10", "1e3", "+1", "NaN",
		"9223372036854775808", "8388608TiB", "99999999999999999999GB",
	} {
		if got, err := ParseSize(text); err == nil {
			t.Errorf("%q is taken as %d", text, got)
		}
	}
}

func TestSizeIsPrintedAsItIsRead(t *testing.T) {
	for size, want := range map[Size]string{
		0: "0B", 1: "1B", 999: "999B", 1000: "1KB", KiB: "1KiB", 3 * GiB / 2: "1536MiB", 512e6: "512MB", 4 * TiB: "4TiB", -1: "-1B",
	} {
		if got := size.String(); got != want {
			t.Errorf("%d is %q, want %q", size, got, want)
		}
		if got, err := ParseSize(size.String()); size >= 0 && (err != nil || got != size) {
			t.Errorf("%q is %d, %v", size.String(), got, err)
		}
	}
}
