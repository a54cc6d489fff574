package crash

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"hash/fnv"
	"math/rand/v2"
	"strconv"
)

// stamp says which message a payload is: the seq-th of its source, from 1.
type stamp struct {
	source string
	seq    uint64
}

// Most payloads are those of a sensor; one in bigOneIn is as large as a
// picture, so that memtables rotate and batches are split.
const (
	smallest, spread = 24, 400
	bigOneIn         = 500
	bigSpread        = 60_000
)

// payload makes the content of a message from nothing but the seed and the
// stamp: whoever has the bytes can make them again and compare.
func payload(seed uint64, st stamp) []byte {
	h := fnv.New64a()
	h.Write([]byte(st.source))
	rng := rand.New(rand.NewPCG(seed^h.Sum64(), st.seq))
	n := smallest + rng.IntN(spread)
	if rng.IntN(bigOneIn) == 0 {
		n += rng.IntN(bigSpread)
	}
	b := make([]byte, 0, n+40)
	b = fmt.Appendf(b, "%s/%d/", st.source, st.seq)
	for len(b) < n {
		x := rng.Uint64()
		for range 8 {
			b = append(b, byte(x))
			x >>= 8
		}
	}
	return fmt.Appendf(b, "%08x", crc32.ChecksumIEEE(b))
}

// parse reads the stamp of a payload and compares every byte of it.
func parse(seed uint64, b []byte) (st stamp, err error) {
	source, rest, _ := bytes.Cut(b, []byte("/"))
	number, _, ok := bytes.Cut(rest, []byte("/"))
	seq, err := strconv.ParseUint(string(number), 10, 64)
	if !ok || err != nil {
		return st, fmt.Errorf("a payload that nobody has sent: %.40q (%d bytes)", b, len(b))
	}
	st = stamp{string(source), seq}
	if !bytes.Equal(b, payload(seed, st)) {
		return st, fmt.Errorf("the payload of %s %d is damaged (%d bytes)", st.source, st.seq, len(b))
	}
	return st, nil
}
