package password

import (
	"encoding/base64"
	"strings"
	"testing"
)

func TestAPasswordMatchesItsHashOnly(t *testing.T) {
	t.Parallel()
	h, err := New([]byte("sesame"))
	if err != nil {
		t.Fatal(err)
	}
	back, err := Parse(h.String())
	if err != nil {
		t.Fatal(err)
	}
	if !back.Matches([]byte("sesame")) || back.Matches([]byte("sesame ")) || back.Matches(nil) {
		t.Errorf("%s", h)
	}
	if again, _ := New([]byte("sesame")); again.String() == h.String() {
		t.Error("two hashes of one password are the same: the salt is not random")
	}
	if (Hash{}).Matches(nil) {
		t.Error("no hash matches no password")
	}
	for _, bad := range []string{"", strings.Repeat("x", Longest+1)} {
		if _, err := New([]byte(bad)); err == nil {
			t.Errorf("a password of %d bytes was taken", len(bad))
		}
	}
}

// The vectors of the reference implementation (phc-winner-argon2, src/test.c),
// as far as they are within the bounds.
func TestHashesOfTheReferenceImplementation(t *testing.T) {
	t.Parallel()
	for _, v := range []string{
		"$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4",
		"$argon2id$v=19$m=256,t=2,p=2$c29tZXNhbHQ$bQk8UB/VmZZF4Oo79iDXuL5/0ttZwg2f/5U52iv1cDc",
	} {
		h, err := Parse(v)
		if err != nil {
			t.Errorf("%s: %v", v, err)
		} else if !h.Matches([]byte("password")) || h.Matches([]byte("differentpassword")) {
			t.Errorf("%s is not of its password", v)
		}
	}
}

func TestWhatIsNoHash(t *testing.T) {
	const good = "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4"
	b64 := func(n int) string { return base64.RawStdEncoding.EncodeToString(make([]byte, n)) }
	for name, s := range map[string]string{
		"a password":          "sesame",
		"nothing":             "",
		"another kind":        strings.Replace(good, "argon2id", "argon2i", 1),
		"another version":     strings.Replace(good, "v=19", "v=16", 1),
		"more at its end":     good + "$x",
		"a line break":        good + "\n",
		"padding":             good + "=",
		"too much memory":     strings.Replace(good, "m=256", "m=65537", 1),
		"more than an int":    strings.Replace(good, "m=256", "m=4294967296", 1),
		"too little memory":   strings.Replace(good, "m=256", "m=7", 1),
		"too little a lane":   strings.Replace(good, "m=256,t=2,p=1", "m=31,t=2,p=4", 1),
		"no pass":             strings.Replace(good, "t=2", "t=0", 1),
		"too many passes":     strings.Replace(good, "t=2", "t=17", 1),
		"too much of both":    strings.Replace(good, "m=256,t=2", "m=65536,t=5", 1),
		"too many lanes":      strings.Replace(good, "p=1", "p=5", 1),
		"another order":       strings.Replace(good, "m=256,t=2", "t=2,m=256", 1),
		"a sign":              strings.Replace(good, "t=2", "t=+2", 1),
		"a zero in front":     strings.Replace(good, "t=2", "t=02", 1),
		"a short salt":        strings.Replace(good, "c29tZXNhbHQ", b64(7), 1),
		"a long salt":         strings.Replace(good, "c29tZXNhbHQ", b64(65), 1),
		"a short key":         good[:strings.LastIndex(good, "$")+1] + b64(15),
		"a long key":          good[:strings.LastIndex(good, "$")+1] + b64(65),
		"bits that count not": strings.Replace(good, "c29tZXNhbHQ", "c29tZXNhbHR", 1),
	} {
		if _, err := Parse(s); err == nil {
			t.Errorf("%s was taken: %s", name, s)
		} else if strings.Contains(err.Error(), "sesame") {
			t.Errorf("the fault repeats what may be a password: %v", err)
		}
	}
	if _, err := Parse(good); err != nil {
		t.Error(err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4")
	f.Add("$argon2id$v=19$m=,t=,p=$$")
	f.Fuzz(func(t *testing.T, s string) {
		h, err := Parse(s)
		if err != nil {
			return
		}
		if got := h.String(); got != s {
			t.Errorf("%q is read as %q", s, got)
		}
		if h.memory > MaxMemory || h.memory*h.passes > maxWork || h.lanes > MaxLanes {
			t.Errorf("%q is beyond the bounds", s)
		}
	})
}
